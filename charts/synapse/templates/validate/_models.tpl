{{- /* Models and their targets: {root} -> YAML list of sentences. */}}
{{- define "synapse.validate.models" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $errors := list -}}
{{- $models := fromYaml (include "synapse.activeModels" .) -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- $known := list "ollama" "sglang" "tensorrt-llm" "llama-embed" "llama-router" "litellm-proxy" "speaches" "whisper-stt" "piper-tts" "openvoice" "chatterbox-tts" -}}
{{- range $instance, $_ := fromYaml (include "synapse.vllmInstances" .) }}{{ $known = append $known (printf "vllm-%s" $instance) }}{{ end -}}
{{- range $name, $_ := $v.gateway.backends }}{{ $known = append $known $name }}{{ end -}}
{{- $services := dict "speaches" (list "stt" "tts") "whisper-stt" (list "stt") "piper-tts" (list "tts") "openvoice" (list "tts") "chatterbox-tts" (list "tts") "llama-embed" (list "embeddings") -}}
{{- $names := dict -}}
{{- range $name, $model := $models -}}
{{- range prepend ($model.aliases | default list) $name -}}
{{- if has . (list "auto" "synapse:auto" "synapse-auto") -}}
{{- $errors = append $errors (printf "models.%s: the name `%s` means automatic choice; take another." $name .) -}}
{{- end -}}
{{- if hasKey $names . -}}
{{- $errors = append $errors (printf "models.%s: the name `%s` belongs to %s already; one name stands for one model." $name . (get $names .)) -}}
{{- end -}}
{{- $_ := set $names . $name -}}
{{- end -}}
{{- end -}}
{{- range $name, $model := $models -}}
{{- $there := list -}}
{{- range $backend, $own := $model.targets -}}
{{- $target := $own | default dict -}}
{{- $at := printf "models.%s.targets.%s" $name $backend -}}
{{- if not (has $backend $known) -}}
{{- $errors = append $errors (printf "%s: there is no such backend; known are %s." $at (join ", " $known)) -}}
{{- end -}}
{{- $fit := get $services $backend | default (list "llm" "embeddings") -}}
{{- if and (has $backend $known) (not (hasKey $v.gateway.backends $backend)) (not (has $model.service $fit)) -}}
{{- $errors = append $errors (printf "%s: %s serves %s, and the model's service is %s." $at $backend (join " and " $fit) $model.service) -}}
{{- end -}}
{{- $entry := get $catalog $backend | default dict -}}
{{- if $entry -}}
{{- $there = append $there (dict "backend" $backend "weights" ($target.weights | default "")) -}}
{{- $errors = concat $errors (fromYamlArray (include "synapse.validate.source" (dict "root" $root "at" $at "entry" $entry "target" $target))) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $model.service "embeddings") (gt (len $there) 1) -}}
{{- $first := index $there 0 -}}
{{- range $there -}}
{{- if or (not .weights) (ne .weights $first.weights) -}}
{{- $errors = append $errors (printf "models.%s: embeddings of two engines may only stand in for each other if they run the same weights; give every target the same `weights`, or keep one." $name) -}}
{{- break -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range concat ($model.fallbacks | default list) (ternary (list $model.contextFallback) list (hasKey $model "contextFallback")) -}}
{{- if not (hasKey $names .) -}}
{{- $errors = append $errors (printf "models.%s: falls back to `%s`, which is no model of this file." $name .) -}}
{{- else if eq (get $names .) $name -}}
{{- $errors = append $errors (printf "models.%s: falls back to itself; name another model." $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $paths := dict -}}
{{- range $backend := list "llama-embed" "llama-router" -}}
{{- range fromYamlArray (include "synapse.fetchList" (dict "root" $root "backend" $backend)) -}}
{{- $other := get $paths .path | default dict -}}
{{- if and $other (ne $other.source .source) -}}
{{- $errors = append $errors (printf "models.%s: its file would be the one of %s (%s), which comes from elsewhere; give it another name." .model $other.model .path) -}}
{{- end -}}
{{- $_ := set $paths .path . -}}
{{- end -}}
{{- end -}}
{{- range $backend, $entry := $catalog -}}
{{- if and (has $entry.component (list "vllm" "sglang" "tensorrt-llm" "llama-embed")) (not $entry.external.url) -}}
{{- $count := len (fromYaml (include "synapse.targets" (dict "root" $root "backend" $backend))) -}}
{{- if ne $count 1 -}}
{{- $errors = append $errors (printf "%s: serves exactly one model, and %d of `models` have a target `%s`." $backend $count $backend) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}

{{- /* {root, at, entry, target}: what `source` may be depends on the engine. */}}
{{- define "synapse.validate.source" -}}
{{- $v := .root.Values -}}
{{- $errors := list -}}
{{- $source := .target.source | default "" -}}
{{- $here := not .entry.external.url -}}
{{- $file := regexMatch "^(https?|hf|file|packaged):" $source -}}
{{- if and $here (not $source) (has .entry.component (list "ollama" "vllm" "sglang" "tensorrt-llm" "llama-embed" "llama-router")) -}}
{{- $errors = append $errors (printf "%s.source: is missing; say where the weights come from." .at) -}}
{{- else if and $here (has .entry.component (list "vllm" "sglang" "tensorrt-llm")) (not (regexMatch "^([^/:]+/[^/:@]+(@[^/:@]+)?|/cache/.+)$" $source)) -}}
{{- $errors = append $errors (printf "%s.source: must be a Hugging Face repository (ORG/REPO or ORG/REPO@REVISION) or a folder of the engine's volume (/cache/...), not `%s`." .at $source) -}}
{{- else if and $here (not $file) (has .entry.component (list "llama-embed" "llama-router")) -}}
{{- $errors = append $errors (printf "%s.source: must be hf://ORG/REPO/FILE.gguf, https://..., file:///models/FILE.gguf or packaged:NAME, not `%s`." .at $source) -}}
{{- else if and $here (hasPrefix "hf://" $source) (not (regexMatch "^hf://[^/]+/[^/]+/.+\\.gguf$" $source)) -}}
{{- $errors = append $errors (printf "%s.source: must be hf://ORG/REPO/FILE.gguf (got `%s`)." .at $source) -}}
{{- end -}}
{{- if and $here (hasPrefix "packaged:" $source) -}}
{{- $image := ternary $v.ollama.pull.image (index $v .entry.key).image (eq .entry.key "ollama") -}}
{{- if ne $image.repository "synapse-llama-cpp" -}}
{{- $errors = append $errors (printf "%s.source: `packaged:` weights are inside the image synapse-llama-cpp; set %s.repository to it." .at (ternary "ollama.pull.image" (printf "%s.image" .entry.key) (eq .entry.key "ollama"))) -}}
{{- end -}}
{{- if and (eq .entry.key "llama-router") (gt (len (fromYaml (include "synapse.targets" (dict "root" .root "backend" "llama-router")))) 1) -}}
{{- $errors = append $errors (printf "%s.source: with `packaged:` weights llama-router serves that one model; move the others to another backend." .at) -}}
{{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}
