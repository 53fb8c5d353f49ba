{{/* What the owner of the cluster chooses of a definition's metadata. */}}
{{- define "fairlead-crds.metadata" -}}
labels:
  app.kubernetes.io/name: fairlead
  app.kubernetes.io/component: crds
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  app.kubernetes.io/instance: {{ .Release.Name }}
  helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
  {{- with .Values.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .Values.keep .Values.annotations }}
annotations:
  {{- if .Values.keep }}
  helm.sh/resource-policy: keep
  {{- end }}
  {{- with .Values.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}
