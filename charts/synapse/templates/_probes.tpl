{{/*
Probes over HTTP.

  synapse.probes  {path, port, startupSeconds, liveness}

The startup probe bounds how long weights may take to load or download; until it has passed the
others do not run, so a slow start is never taken for a hang. None of the paths generates tokens.
`liveness` names another path where readiness asks for more than being alive.
*/}}
{{- define "synapse.probes" -}}
startupProbe:
  httpGet: {path: {{ .liveness | default .path }}, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ max 1 (div (add (int .startupSeconds) 4) 5) }}
readinessProbe:
  httpGet: {path: {{ .path }}, port: {{ .port }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
livenessProbe:
  httpGet: {path: {{ .liveness | default .path }}, port: {{ .port }}}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 6
{{- end }}
