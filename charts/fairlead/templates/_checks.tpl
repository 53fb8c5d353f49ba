{{/* What the schema cannot say. Included by the operator's Deployment. */}}
{{- define "fairlead.checks" -}}
{{- $settings := .Values.operator.settings }}
{{- $monitoring := .Values.monitoring }}
{{- if and $monitoring.serviceMonitor.enabled $monitoring.podMonitor.enabled }}
{{- fail "monitoring.serviceMonitor.enabled and monitoring.podMonitor.enabled exclude each other: the operator would be scraped twice" }}
{{- end }}
{{- if not (and (lt (float64 $settings.leaseRetryS) (float64 $settings.leaseRenewDeadlineS)) (lt (float64 $settings.leaseRenewDeadlineS) (float64 $settings.leaseDurationS))) }}
{{- fail "operator.settings: leaseRetryS < leaseRenewDeadlineS < leaseDurationS must hold" }}
{{- end }}
{{- $ledger := .Values.ledger }}
{{- if and $ledger.enabled (not $ledger.database.secretName) (not .Values.postgres.enabled) }}
{{- fail "ledger.enabled needs a database: let ledger.database.secretName name a Secret with its URL, or set postgres.enabled=true to try it out" }}
{{- end }}
{{- if and $ledger.autoscaling.enabled (gt (int $ledger.autoscaling.minReplicas) (int $ledger.autoscaling.maxReplicas)) }}
{{- fail "ledger.autoscaling: minReplicas must not be more than maxReplicas" }}
{{- end }}
{{- if and $ledger.apiKeys.secretName $ledger.apiKeys.more }}
{{- fail "ledger.apiKeys.more goes into the chart's own Secret: with ledger.apiKeys.secretName, write them into that one" }}
{{- end }}
{{- end }}
