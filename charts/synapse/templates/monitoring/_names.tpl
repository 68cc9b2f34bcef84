{{/*
  synapse.metricsPort  {name, entry}  name of the Service's port that carries the metrics
*/}}
{{- define "synapse.metricsPort" -}}
{{- if has .name (list "terminal-feed-redis" "dcgm-exporter") -}}metrics{{- else -}}http{{- end -}}
{{- end }}

{{- /*
  synapse.watchedLabels  {root, name, component}  labels of a monitor or rule: those that the cluster's
                                                  Prometheus selects by, over the chart's own
*/}}
{{- define "synapse.watchedLabels" -}}
{{- toYaml (merge (deepCopy .root.Values.monitoring.labels) (fromYaml (include "synapse.labels" .))) -}}
{{- end }}

{{- /*
  synapse.watched  {subject, catalog}  whether a file of rules concerns what is deployed: files that are
                                       named after a component want it, all others are always shipped
*/}}
{{- define "synapse.watched" -}}
{{- $needs := dict "gateway" "synapse-gateway" "backends" "synapse-gateway" "gpu" "dcgm-exporter" "litellm" "litellm-proxy" "redis" "terminal-feed-redis" "redis-exporter" "terminal-feed-redis" -}}
{{- if hasKey $needs .subject -}}
{{- hasKey .catalog (get $needs .subject) -}}
{{- else if eq .subject "vllm" -}}
{{- $found := false -}}
{{- range $name, $entry := .catalog }}{{ if eq $entry.type "vllm" }}{{ $found = true }}{{ end }}{{ end -}}
{{- $found -}}
{{- else if eq .subject "llama-cpp" -}}
{{- or (hasKey .catalog "llama-embed") (hasKey .catalog "llama-router") -}}
{{- else -}}
true
{{- end -}}
{{- end }}
