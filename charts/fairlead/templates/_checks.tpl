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
{{- end }}
