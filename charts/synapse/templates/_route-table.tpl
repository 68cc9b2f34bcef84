{{/*
The gateway's configuration, rendered from what is enabled.

  synapse.routeTable  {root}  the whole file, in the gateway's native format

A model keeps the targets whose backends are there; a model without any is left out. A GPU target
has order 1 and a CPU target order 2 unless its entry says otherwise, so that enabling vLLM beside
Ollama gives a model its GPU first and its CPU fallback second with no other change.
*/}}

{{- define "synapse.routeTable" -}}
{{- $root := .root -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- $config := dict "auth" $root.Values.gateway.auth -}}
{{- $backends := dict -}}
{{- range $name, $entry := $catalog -}}
{{- if $entry.type -}}
{{- $_ := set $backends $name (fromYaml (include "synapse.backend" (dict "root" $root "name" $name "entry" $entry))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config "backends" (merge (deepCopy $root.Values.gateway.backends) $backends) -}}
{{- $_ := set $config "models" (fromYaml (include "synapse.models" (dict "root" $root "catalog" $catalog "backends" $config.backends))) -}}
{{- $_ := set $config "routes" (fromYaml (include "synapse.routes" (dict "root" $root "catalog" $catalog))) -}}
{{- if fromYamlArray (include "synapse.whoDownloads" .) }}{{ $_ := set $config "downloads" (printf "http://%s:8099" (include "synapse.host" (dict "root" $root "service" "model-downloads"))) }}{{ end -}}
{{- with $root.Values.gateway.auto }}{{ $_ := set $config "auto" . }}{{ end -}}
{{- /* With anonymous callers, too: who has a key gets what its entry says. */ -}}
{{- $keys := dict -}}
{{- range $caller, $limits := $root.Values.gateway.keys.callers -}}
{{- $_ := set $keys $caller (merge (dict "file" (printf "/etc/synapse/keys/%s" $caller)) (deepCopy ($limits | default dict))) -}}
{{- end -}}
{{- $_ := set $config "keys" $keys -}}
{{- $limits := merge (deepCopy $root.Values.gateway.limits) (dict "shutdown_grace" $root.Values.gateway.drainSeconds) -}}
{{- with $root.Values.gateway.anonymousLimits }}{{ $_ := set $limits "anonymous" . }}{{ end -}}
{{- $room := include "synapse.bytes" (dict "quantity" $root.Values.gateway.spool.size) | int64 -}}
{{- $limits = merge $limits (dict "spool" (dict "max_bytes" (mul 2 (div $room 3)))) -}}
{{- $_ := set $config "limits" $limits -}}
{{- if $root.Values.gateway.voices.allowStandard }}{{ $_ := set $config "voices" (dict "allow_standard" true) }}{{ end -}}
{{- toYaml $config -}}
{{- end }}

{{- define "synapse.backend" -}}
{{- $entry := .entry -}}
{{- $backend := dict "url" (include "synapse.engineUrl" .) "type" $entry.type "device" ($entry.external.device | default $entry.device) -}}
{{- with $entry.health }}{{ $_ := set $backend "health" . }}{{ end -}}
{{- with $entry.external.health }}{{ $_ := set $backend "health" . }}{{ end -}}
{{- with $entry.slots }}{{ $_ := set $backend "slots" (int .) }}{{ end -}}
{{- $targets := fromYaml (include "synapse.targets" (dict "root" .root "backend" .name)) -}}
{{- $awake := 0 -}}
{{- $asleep := 0 -}}
{{- with $entry.vram -}}
{{- $awake = include "synapse.bytes" (dict "quantity" .awake) | int64 -}}
{{- $asleep = include "synapse.bytes" (dict "quantity" .asleep) | int64 -}}
{{- end -}}
{{- range $targets -}}
{{- if .sequences }}{{ $_ := set $backend "slots" (int .sequences) }}{{ end -}}
{{- with .vram -}}
{{- $awake = max $awake (include "synapse.bytes" (dict "quantity" .awake) | int64) -}}
{{- $asleep = max $asleep (include "synapse.bytes" (dict "quantity" .asleep) | int64) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $backend.device "gpu") (gt (int64 $awake) 0) -}}
{{- $_ := set $backend "vram" (dict "awake" $awake "asleep" $asleep) -}}
{{- end -}}
{{- if $entry.external.apiKeySecret -}}
{{- $_ := set $backend "api_key_file" (printf "/etc/synapse/backends/%s" .name) -}}
{{- else if eq $entry.key "litellm" -}}
{{- $_ := set $backend "api_key_env" "LITELLM_MASTER_KEY" -}}
{{- end -}}
{{- with $entry.external.tls -}}
{{- $tls := dict -}}
{{- if .caSecret }}{{ $_ := set $tls "ca_file" (printf "/etc/synapse/backends/%s.crt" $.name) }}{{ end -}}
{{- with .serverName }}{{ $_ := set $tls "server_name" . }}{{ end -}}
{{- $_ := set $backend "tls" $tls -}}
{{- end -}}
{{- toYaml $backend -}}
{{- end }}

{{- define "synapse.models" -}}
{{- $backends := .backends -}}
{{- $models := dict -}}
{{- range $name, $model := fromYaml (include "synapse.activeModels" .) -}}
{{- $targets := list -}}
{{- range $backendName, $own := $model.targets -}}
{{- $target := $own | default dict -}}
{{- $backend := get $backends $backendName | default dict -}}
{{- if $backend -}}
{{- $order := $target.order | default (ternary 1 2 (or (eq ($backend.device | default "cpu") "gpu") (not (eq $model.service "llm")))) -}}
{{- $rendered := dict "backend" $backendName "order" (int $order) -}}
{{- with include "synapse.modelAt" (dict "backend" $backend "target" $target "name" $name) }}{{ $_ := set $rendered "model" . }}{{ end -}}
{{- with $target.weight }}{{ $_ := set $rendered "weight" . }}{{ end -}}
{{- with $target.weights }}{{ $_ := set $rendered "weights" . }}{{ end -}}
{{- with $target.maxInFlight }}{{ $_ := set $rendered "max_in_flight" (int .) }}{{ end -}}
{{- $targets = append $targets (dict "key" (printf "%03d/%s" (int $order) $backendName) "value" $rendered) -}}
{{- end -}}
{{- end -}}
{{- if $targets -}}
{{- $sorted := dict -}}
{{- range $targets }}{{ $_ := set $sorted .key .value }}{{ end -}}
{{- $list := list -}}
{{- range keys $sorted | sortAlpha }}{{ $list = append $list (get $sorted .) }}{{ end -}}
{{- $list = include "synapse.closeOrders" (dict "targets" $list) | fromYamlArray -}}
{{- $rendered := dict "targets" $list "service" $model.service -}}
{{- with $model.aliases }}{{ $_ := set $rendered "aliases" . }}{{ end -}}
{{- with $model.policy }}{{ $_ := set $rendered "policy" . }}{{ end -}}
{{- with $model.fallbacks }}{{ $_ := set $rendered "fallbacks" . }}{{ end -}}
{{- with $model.contextFallback }}{{ $_ := set $rendered "context_fallback" . }}{{ end -}}
{{- with $model.timeouts }}{{ $_ := set $rendered "timeouts" . }}{{ end -}}
{{- $_ := set $models $name $rendered -}}
{{- end -}}
{{- end -}}
{{- /* A model that stands in for another may be one whose engines are all off. */ -}}
{{- $names := list -}}
{{- range $name, $model := $models }}{{ $names = concat $names (list $name) ($model.aliases | default list) }}{{ end -}}
{{- range $name, $model := $models -}}
{{- $there := list -}}
{{- range $model.fallbacks }}{{ if has . $names }}{{ $there = append $there . }}{{ end }}{{ end -}}
{{- $_ := set $model "fallbacks" $there -}}
{{- if not $there }}{{ $_ := unset $model "fallbacks" }}{{ end -}}
{{- if not (has ($model.context_fallback | default "") $names) }}{{ $_ := unset $model "context_fallback" }}{{ end -}}
{{- end -}}
{{- toYaml $models -}}
{{- end }}

{{- /* Orders without gaps: with only the CPU engine there, its order is 1. */}}
{{- define "synapse.closeOrders" -}}
{{- $seen := list -}}
{{- $result := list -}}
{{- range .targets -}}
{{- if not (has (int .order) $seen) }}{{ $seen = append $seen (int .order) }}{{ end -}}
{{- $result = append $result (merge (dict "order" (len $seen)) (omit . "order")) -}}
{{- end -}}
{{- toYaml $result -}}
{{- end }}

{{- /* The model's name at a backend; empty where it is the caller's. */}}
{{- define "synapse.modelAt" -}}
{{- $source := .target.source | default "" -}}
{{- if .target.name -}}
{{ .target.name }}
{{- else if and (eq .backend.type "ollama") $source (not (regexMatch "^(https?|hf|file|packaged):" $source)) -}}
{{ $source }}
{{- else if and (eq .backend.type "speaches") $source -}}
{{ $source }}
{{- else if has .backend.type (list "faster-whisper" "piper") -}}
{{- /* Servers of one model, which they know by this name whatever its weights are. */ -}}
{{ ternary "whisper" "piper" (eq .backend.type "faster-whisper") }}
{{- end -}}
{{- end }}

{{- define "synapse.routes" -}}
{{- $catalog := .catalog -}}
{{- $routes := dict -}}
{{- $first := dict
  "/v1/audio/transcriptions" (list "whisper-stt" "speaches")
  "/v1/audio/translations" (list "whisper-stt" "speaches")
  "/v1/audio/speech" (list "piper-tts" "chatterbox-tts" "openvoice")
  "models/*" (list "llama-router")
-}}
{{- range $path, $names := $first -}}
{{- range $names -}}
{{- if and (hasKey $catalog .) (not (hasKey $routes $path)) }}{{ $_ := set $routes $path . }}{{ end -}}
{{- end -}}
{{- end -}}
{{- range $path, $backend := .root.Values.gateway.routes }}{{ $_ := set $routes $path $backend }}{{ end -}}
{{- toYaml $routes -}}
{{- end }}
