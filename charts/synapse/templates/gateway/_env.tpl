{{/*
  synapse.gatewayEnv  {root, catalog}  environment of the gateway's container: what its ConfigMap
                                       cannot hold, because it is read once at start
*/}}
{{- define "synapse.gatewayEnv" -}}
{{- $g := .root.Values.gateway -}}
{{- $redis := get .catalog "terminal-feed-redis" -}}
- {name: HOME, value: /tmp}
- {name: SYNAPSE_GATEWAY_CONFIG_PATH, value: /config/backends.yaml}
- {name: SYNAPSE_SPOOL_DIR, value: /spool}
- {name: SYNAPSE_VOICE_LIBRARY_DIR, value: /data/voices}
- {name: SYNAPSE_MODEL_PROFILES_PATH, value: /data/voices/model-profiles.json}
- {name: SYNAPSE_LOG_LEVEL, value: {{ $g.logLevel }}}
- {name: SYNAPSE_TERMINAL_FEED_MODE, value: {{ $g.terminalFeed }}}
- {name: SYNAPSE_LLAMA_ROUTER_DEPLOYMENT_NAMESPACE, value: {{ .root.Release.Namespace | quote }}}
- {name: SYNAPSE_LLAMA_ROUTER_DEPLOYMENT_NAME, value: llama-router}
- {name: SYNAPSE_LLAMA_ROUTER_CONTAINER_NAME, value: llama-server}
- {name: SYNAPSE_RUNTIME_RECONFIGURE_TIMEOUT_SECONDS, value: {{ $g.reconfigure.timeoutSeconds | quote }}}
- name: SYNAPSE_INSTANCE_ID
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: SYNAPSE_DASHBOARD_ACCESS_TOKEN
  valueFrom: {secretKeyRef: {name: {{ $g.keys.internalSecretName | quote }}, key: dashboard-token, optional: true}}
- {name: SYNAPSE_DASHBOARD_COOKIE_SECURE, value: {{ or (ne $g.ingress.tlsSecret "") $g.httpRoute.enabled | quote }}}
- name: LITELLM_MASTER_KEY
  valueFrom: {secretKeyRef: {name: {{ $g.keys.internalSecretName | quote }}, key: litellm-master-key, optional: true}}
{{- if $redis }}
- {name: SYNAPSE_TERMINAL_FEED_BUS_MODE, value: redis}
{{- $secret := dict "name" $g.keys.internalSecretName "key" "redis-password" }}
{{- $url := $redis.external.url | default (printf "redis://%s:6379/0" $redis.service) }}
{{- if $redis.external.url }}{{ $secret = $redis.external.apiKeySecret }}{{ end }}
{{- with $secret }}
{{- $url = replace "://" "://:$(REDIS_PASSWORD)@" $url }}
- name: REDIS_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | default "redis-password" | quote }}}}
{{- end }}
- {name: SYNAPSE_REDIS_URL, value: {{ $url | quote }}}
- {name: SYNAPSE_TERMINAL_FEED_REDIS_URL, value: {{ $url | quote }}}
{{- end }}
{{- with $g.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- include "synapse.extraEnv" $g.extraEnv }}
{{- end }}

{{- define "synapse.extraEnv" -}}
{{- range $name, $value := . }}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
