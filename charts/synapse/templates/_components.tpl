{{/*
The catalogue: what is deployed, or reached outside, under which name and port.

  synapse.catalog   {root}            YAML map: backend name -> facts; only what is enabled
  synapse.vllm      {root, instance}  YAML: the values of one vLLM instance over the shared ones
  synapse.bytes     {quantity}        a Kubernetes quantity of memory in bytes
  synapse.engineUrl {root, entry}     where a backend answers

Facts of an entry: key (of values.yaml), component, type (of the gateway's configuration; empty for
what is no backend), service, port (of the Service), containerPort, device, external, slots, metrics
{port, path}, downloads. Route table, network policies, monitors and checks all loop over this map,
so a component that is missing here is missing everywhere, and a test says so.
*/}}

{{- define "synapse.catalog" -}}
{{- $values := .root.Values -}}
{{- $engineService := ternary "ollama-engine" "ollama" $values.gateway.enabled -}}
{{- $llamaType := "llamacpp" -}}
{{- $facts := dict
  "ollama" (dict "type" "ollama" "service" $engineService "port" 11434 "containerPort" 11434 "device" "cpu" "slots" $values.ollama.numParallel "downloads" true)
  "sglang" (dict "type" "sglang" "service" "sglang" "port" 30000 "containerPort" 30000 "device" "gpu" "metrics" "/metrics" "downloads" true)
  "tensorrt-llm" (dict "type" "tensorrt-llm" "service" "tensorrt-llm" "port" 8000 "containerPort" 8000 "device" "gpu" "metrics" "/prometheus/metrics" "downloads" true)
  "llama-embed" (dict "type" $llamaType "service" "llama-embed" "port" 8081 "containerPort" 8081 "device" "cpu" "slots" (index $values "llama-embed" "parallel") "metrics" "/metrics" "downloads" true)
  "llama-router" (dict "type" $llamaType "service" "llama-router" "port" 8082 "containerPort" 8082 "slots" (index $values "llama-router" "parallel") "downloads" true)
  "litellm" (dict "type" "litellm" "service" "litellm-proxy" "port" 8000 "containerPort" 4000 "device" "cpu" "metrics" "/metrics")
  "speaches" (dict "type" "speaches" "service" "speaches" "port" 8000 "containerPort" 8000 "downloads" true)
  "whisper-stt" (dict "type" "faster-whisper" "service" "whisper-stt" "port" 8000 "containerPort" 8000 "device" "cpu" "metrics" "/metrics" "downloads" true)
  "piper-tts" (dict "type" "piper" "service" "piper-tts" "port" 5000 "containerPort" 5000 "device" "cpu" "metrics" "/metrics")
  "openvoice" (dict "type" "openvoice" "service" "openvoice" "port" 8000 "containerPort" 8000 "metrics" "/metrics")
  "chatterbox-tts" (dict "type" "chatterbox" "service" "chatterbox-tts" "port" 8004 "containerPort" 8004 "device" "gpu" "health" "/api/ui/initial-data" "downloads" true)
  "pyannote-speaker" (dict "type" "pyannote" "service" "pyannote-speaker" "port" 8000 "containerPort" 8000 "metrics" "/metrics")
  "deepfilter-audio" (dict "type" "deepfilter" "service" "deepfilter-audio" "port" 8000 "containerPort" 8000 "device" "cpu" "metrics" "/metrics")
  "terminal-feed-redis" (dict "type" "" "service" "terminal-feed-redis" "port" 6379 "containerPort" 6379 "device" "cpu")
  "dcgm-exporter" (dict "type" "" "service" "dcgm-exporter" "port" 9400 "containerPort" 9400 "device" "gpu" "metrics" "/metrics")
-}}
{{- $catalog := dict -}}
{{- if $values.gateway.enabled -}}
{{- $_ := set $catalog "synapse-gateway" (dict "key" "gateway" "component" "gateway" "type" "" "service" "synapse-gateway" "port" 8000 "containerPort" 8000 "device" "cpu" "external" dict "metrics" (dict "port" 8000 "path" "/metrics")) -}}
{{- end -}}
{{- range $key, $fact := $facts -}}
{{- $c := index $values $key -}}
{{- $external := $c.external | default dict -}}
{{- if or $c.enabled $external.url -}}
{{- $name := ternary "litellm-proxy" $key (eq $key "litellm") -}}
{{- $entry := merge (dict "key" $key "component" $key "external" $external "device" ($c.device | default $fact.device)) $fact -}}
{{- if $fact.metrics }}{{ $_ := set $entry "metrics" (dict "port" $fact.containerPort "path" $fact.metrics) }}{{ end -}}
{{- if and (eq $key "terminal-feed-redis") $c.exporter.enabled }}{{ $_ := set $entry "metrics" (dict "port" 9121 "path" "/metrics") }}{{ end -}}
{{- if $c.vram }}{{ $_ := set $entry "vram" $c.vram }}{{ end -}}
{{- $_ := set $catalog $name $entry -}}
{{- end -}}
{{- end -}}
{{- range $instance, $own := fromYaml (include "synapse.vllmInstances" .) -}}
{{- $external := ($own | default dict).external | default dict -}}
{{- if or $values.vllm.enabled $external.url -}}
{{- $_ := set $catalog (printf "vllm-%s" $instance) (dict "key" "vllm" "component" "vllm" "instance" $instance "type" "vllm" "service" (printf "vllm-%s" $instance) "port" 8001 "containerPort" 8000 "device" "gpu" "external" $external "metrics" (dict "port" 8000 "path" "/metrics") "downloads" true) -}}
{{- end -}}
{{- end -}}
{{- toYaml $catalog -}}
{{- end }}

{{- define "synapse.vllmInstances" -}}
{{- /* {root}: YAML map. `helm lint` leaves a null in that the other commands take out. */ -}}
{{- $found := dict -}}
{{- range $instance, $own := .root.Values.vllm.instances -}}
{{- if not (kindIs "invalid" $own) }}{{ $_ := set $found $instance $own }}{{ end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end }}

{{- define "synapse.vllm" -}}
{{- $shared := omit .root.Values.vllm "instances" "enabled" -}}
{{- $own := index .root.Values.vllm.instances .instance | default dict -}}
{{- toYaml (mergeOverwrite (deepCopy $shared) (deepCopy $own)) -}}
{{- end }}

{{- define "synapse.engineUrl" -}}
{{- if .entry.external.url -}}
{{ .entry.external.url }}
{{- else -}}
http://{{ include "synapse.host" (dict "root" .root "service" .entry.service) }}:{{ .entry.port }}
{{- end -}}
{{- end }}

{{- define "synapse.bytes" -}}
{{- $text := toString .quantity -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- $factor := get (dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit -}}
{{- mulf (float64 $number) (float64 $factor) | floor | int64 -}}
{{- end }}

{{- define "synapse.activeModels" -}}
{{- /* {root}: YAML map of the models that are not switched off. */ -}}
{{- $active := dict -}}
{{- range $name, $model := .root.Values.models -}}
{{- if and $model (ne (toString $model.enabled) "false") -}}
{{- $_ := set $active $name (omit $model "enabled") -}}
{{- end -}}
{{- end -}}
{{- toYaml $active -}}
{{- end }}

{{- define "synapse.targets" -}}
{{- /* {root, backend}: YAML map of the models that have a target on a backend: name -> target. */ -}}
{{- $found := dict -}}
{{- $backend := .backend -}}
{{- range $name, $model := fromYaml (include "synapse.activeModels" .) -}}
{{- if hasKey $model.targets $backend -}}
{{- $_ := set $found $name (index $model.targets $backend | default dict) -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end }}
