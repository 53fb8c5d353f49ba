{{/* Maps of texts as one, each key once: of two with the same key the later one holds. */}}
{{- define "fairlead-crds.joined" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- $_ := set $all $key $value }}
{{- end }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* What the owner of the cluster chooses of a definition's metadata. */}}
{{- define "fairlead-crds.metadata" -}}
{{- $chart := printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- $own := dict "app.kubernetes.io/version" .Chart.AppVersion "helm.sh/chart" $chart }}
{{- $fixed := dict "app.kubernetes.io/name" "fairlead" "app.kubernetes.io/component" "crds" "app.kubernetes.io/managed-by" .Release.Service "app.kubernetes.io/instance" .Release.Name }}
{{- $kept := .Values.keep | ternary (dict "helm.sh/resource-policy" "keep") (dict) -}}
labels:
  {{- include "fairlead-crds.joined" (list $own .Values.labels $fixed) | nindent 2 }}
{{- if or .Values.keep .Values.annotations }}
annotations:
  {{- include "fairlead-crds.joined" (list .Values.annotations $kept) | nindent 2 }}
{{- end }}
{{- end }}
