{{/*
  synapse.keysNeeded  {root}  "true" where some pod needs a generated Secret
*/}}
{{- define "synapse.keysNeeded" -}}
{{- $v := .root.Values -}}
{{- or $v.gateway.enabled $v.litellm.enabled (index $v "terminal-feed-redis" "enabled") -}}
{{- end }}

{{- define "synapse.keysJob" -}}
{{- and (eq .root.Values.gateway.keys.source "generated") (eq (include "synapse.keysNeeded" .) "true") -}}
{{- end }}

{{- define "synapse.keysEntries" -}}
{{- /* What the Job makes where it is missing: Secret name -> names of its entries. */ -}}
{{- $k := .root.Values.gateway.keys -}}
{{- $entries := dict $k.internalSecretName (list "dashboard-token" "litellm-master-key" "redis-password") -}}
{{- if .root.Values.gateway.enabled -}}
{{- $_ := set $entries $k.secretName (keys $k.callers | sortAlpha) -}}
{{- end -}}
{{- toJson $entries -}}
{{- end }}
