{{- /* Video memory and shares of the card: {root} -> YAML list of sentences. */}}
{{- define "synapse.validate.gpu" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $errors := list -}}
{{- $card := 0 -}}
{{- if $v.gpu.memory }}{{ $card = include "synapse.bytes" (dict "quantity" $v.gpu.memory) | int64 }}{{ end -}}
{{- $shares := 0 -}}
{{- $pinned := 0 -}}
{{- $largest := 0 -}}
{{- $table := fromYaml (include "synapse.routeTable" .) -}}
{{- range $name, $entry := fromYaml (include "synapse.catalog" .) -}}
{{- if and $entry.type (eq $entry.device "gpu") (not $entry.external.url) -}}
{{- $gpus := 1 -}}
{{- $evictable := eq $entry.component "llama-router" -}}
{{- if eq $entry.component "vllm" -}}
{{- $values := fromYaml (include "synapse.vllm" (dict "root" $root "instance" $entry.instance)) -}}
{{- $gpus = int $values.gpus -}}
{{- $evictable = $values.sleepMode -}}
{{- else if has $entry.component (list "sglang" "tensorrt-llm") -}}
{{- $gpus = int (index $v $entry.component).gpus -}}
{{- end -}}
{{- $shares = add $shares $gpus -}}
{{- $vram := (get $table.backends $name).vram | default dict -}}
{{- $awake := $vram.awake | default 0 | int64 -}}
{{- $asleep := $vram.asleep | default 0 | int64 -}}
{{- if $card -}}
{{- if and (eq $awake 0) (or (ne $entry.component "llama-router") (fromYaml (include "synapse.targets" (dict "root" $root "backend" $name)))) -}}
{{- $errors = append $errors (printf "%s: says nothing of its video memory (`vram.awake`), so it cannot be fitted on a card of %s." $name $v.gpu.memory) -}}
{{- end -}}
{{- if gt $awake (mul $card $gpus) -}}
{{- $errors = append $errors (printf "%s: needs %s of video memory awake, and %d card(s) of %s have less; shorten the context, quantize, or add cards." $name (include "synapse.gib" $awake) $gpus $v.gpu.memory) -}}
{{- end -}}
{{- end -}}
{{- if $evictable -}}
{{- $pinned = add $pinned $asleep -}}
{{- $largest = max $largest (sub $awake $asleep) -}}
{{- else -}}
{{- $pinned = add $pinned $awake -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $card (gt (add $pinned $largest) (mul $card $v.gpu.cards)) -}}
{{- $errors = append $errors (printf "gpu.memory: what cannot sleep and the largest that can need %s awake at once, over %d card(s) of %s; switch one off, or give it less." (include "synapse.gib" (add $pinned $largest)) (int $v.gpu.cards) $v.gpu.memory) -}}
{{- end -}}
{{- if and $card (gt (int $shares) (mul $v.gpu.cards $v.gpu.timeSlices | int)) -}}
{{- $errors = append $errors (printf "gpu.timeSlices: the enabled services ask for %d shares, and %d card(s) with %d slice(s) have fewer; raise it together with the device plugin's `replicas`." (int $shares) (int $v.gpu.cards) (int $v.gpu.timeSlices)) -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}

{{- define "synapse.gib" -}}
{{ printf "%.1f GiB" (divf (float64 .) 1073741824.0) }}
{{- end }}
