{{/* Names: release "fairlead" gives fairlead-operator and fairlead-redis. */}}
{{- define "fairlead.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "fairlead.fullname" -}}
{{- $name := include "fairlead.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "fairlead.operator.fullname" -}}
{{ include "fairlead.fullname" . }}-operator
{{- end }}

{{- define "fairlead.redis.fullname" -}}
{{ include "fairlead.fullname" . }}-redis
{{- end }}

{{- define "fairlead.ledger.fullname" -}}
{{ include "fairlead.fullname" . }}-ledger
{{- end }}

{{- define "fairlead.postgres.fullname" -}}
{{ include "fairlead.fullname" . }}-postgres
{{- end }}

{{- define "fairlead.operator.serviceAccountName" -}}
{{- $account := .Values.operator.serviceAccount }}
{{- if $account.create }}
{{- default (include "fairlead.operator.fullname" .) $account.name }}
{{- else }}
{{- default "default" $account.name }}
{{- end }}
{{- end }}

{{/* Maps of texts as one, each key once: of two with the same key the later one holds. */}}
{{- define "fairlead.joined" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- $_ := set $all $key $value }}
{{- end }}
{{- end }}
{{- toYaml $all }}
{{- end }}

{{/* What selectors go by: (list $ COMPONENT). */}}
{{- define "fairlead.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "fairlead.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* All labels: (list $ COMPONENT MORE...). More labels hold over common ones, these over the chart's, selectors' over all. */}}
{{- define "fairlead.labels" -}}
{{- $root := index . 0 }}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $own := dict "app.kubernetes.io/version" $root.Chart.AppVersion "app.kubernetes.io/part-of" "fairlead" "helm.sh/chart" $chart }}
{{- $fixed := include "fairlead.selectorLabels" . | fromYaml }}
{{- $_ := set $fixed "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- include "fairlead.joined" (concat (list $own $root.Values.commonLabels) (slice . 2) (list $fixed)) }}
{{- end }}

{{/* Images: (list $ IMAGE). */}}
{{- define "fairlead.repository" -}}
{{- $root := index . 0 }}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ (index . 1).repository }}
{{- end }}

{{- define "fairlead.image" -}}
{{- $image := index . 1 }}
{{- include "fairlead.repository" . }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ default (index . 0).Chart.AppVersion $image.tag }}{{ end }}
{{- end }}

{{- define "fairlead.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* The restricted pod security standard. */}}
{{- define "fairlead.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "fairlead.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where pods run: a group of values. */}}
{{- define "fairlead.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* The namespaces that the operator works in; empty for all. */}}
{{- define "fairlead.operator.childNamespaces" -}}
{{- if .Values.operator.namespaces }}
{{- append .Values.operator.namespaces .Values.operator.settings.gatewayNamespace | uniq | sortAlpha | toJson }}
{{- else }}
{{- list | toJson }}
{{- end }}
{{- end }}

{{/* Names of the ledger's Secrets: the chart's own, unless others are given. */}}
{{- define "fairlead.ledger.keys" -}}
{{- default (printf "%s-keys" (include "fairlead.ledger.fullname" .)) .Values.ledger.keys.secretName }}
{{- end }}

{{- define "fairlead.ledger.apiKeys" -}}
{{- default (printf "%s-api-keys" (include "fairlead.ledger.fullname" .)) .Values.ledger.apiKeys.secretName }}
{{- end }}

{{- define "fairlead.ledger.url" -}}
http://{{ include "fairlead.ledger.fullname" . }}.{{ .Release.Namespace }}.svc:8080
{{- end }}

{{/* Not empty if the ledger keeps what it knows in the bundled PostgreSQL. */}}
{{- define "fairlead.ledger.bundled" -}}
{{- if and .Values.postgres.enabled (not .Values.ledger.database.secretName) }}bundled{{ end }}
{{- end }}

{{/* The container of the ledger's image: (dict "root" $ "name" NAME "args" LIST); what it mounts is the caller's. */}}
{{- define "fairlead.ledger.container" -}}
{{- $ledger := .root.Values.ledger }}
name: {{ .name }}
image: {{ include "fairlead.image" (list .root $ledger.image) }}
imagePullPolicy: {{ $ledger.image.pullPolicy }}
args:
  {{- toYaml .args | nindent 2 }}
env:
  - name: FAIRLEAD_LEDGER_DATABASE
    valueFrom:
      secretKeyRef:
        {{- if include "fairlead.ledger.bundled" .root }}
        name: {{ include "fairlead.postgres.fullname" .root }}
        key: url
        {{- else }}
        name: {{ $ledger.database.secretName }}
        key: {{ $ledger.database.secretKey }}
        {{- end }}
  {{- with $ledger.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml $ledger.resources | nindent 2 }}
securityContext:
  {{- include "fairlead.containerSecurity" .root | nindent 2 }}
terminationMessagePolicy: FallbackToLogsOnError
{{- end }}

{{- define "fairlead.ledger.migrate" -}}
{{- include "fairlead.ledger.container" (dict "root" . "name" "migrate" "args" (list "migrate" "--wait=60")) }}
volumeMounts:
  - name: scratch
    mountPath: /tmp
  {{- with .Values.ledger.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
