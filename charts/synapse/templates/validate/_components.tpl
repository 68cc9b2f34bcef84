{{- /* Components by themselves: {root} -> YAML list of sentences. */}}
{{- define "synapse.validate.components" -}}
{{- $v := .root.Values -}}
{{- $errors := list -}}
{{- $single := list "ollama" "sglang" "tensorrt-llm" "llama-embed" "llama-router" "litellm" "speaches" "whisper-stt" "piper-tts" "openvoice" "chatterbox-tts" "pyannote-speaker" "deepfilter-audio" "terminal-feed-redis" -}}
{{- range $name := $single -}}
{{- $c := index $v $name -}}
{{- $url := ($c.external | default dict).url -}}
{{- if and $c.enabled $url -}}
{{- $errors = append $errors (printf "%s: both `enabled` and `external.url` are set; it runs either here or elsewhere, so remove one." $name) -}}
{{- end -}}
{{- if and $url (hasPrefix "redis" $url | ne (eq $name "terminal-feed-redis")) -}}
{{- $errors = append $errors (printf "%s.external.url: must start with %s (got %s)." $name (ternary "redis:// or rediss://" "http:// or https://" (eq $name "terminal-feed-redis")) $url) -}}
{{- end -}}
{{- end -}}
{{- range $name := append $single "dcgm-exporter" -}}
{{- with index $v $name -}}
{{- if regexMatch "^latest(-.*)?$" .image.tag -}}
{{- $errors = append $errors (printf "%s.image.tag: `%s` names another image every day; write the version that was tested." $name .image.tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $image := dict "gateway" $v.gateway.image "downloads" $v.downloads.image "vllm" $v.vllm.image "ollama.pull" $v.ollama.pull.image -}}
{{- if regexMatch "^latest(-.*)?$" $image.tag -}}
{{- $errors = append $errors (printf "%s.image.tag: `%s` names another image every day; write the version that was tested." $name $image.tag) -}}
{{- end -}}
{{- end -}}
{{- range $instance, $own := fromYaml (include "synapse.vllmInstances" .) -}}
{{- $url := (($own | default dict).external | default dict).url -}}
{{- if and $url (hasPrefix "redis" $url) -}}
{{- $errors = append $errors (printf "vllm.instances.%s.external.url: must start with http:// or https:// (got %s)." $instance $url) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.speaches.device "gpu") $v.speaches.enabled (contains "-cpu" $v.speaches.image.tag) -}}
{{- $errors = append $errors (printf "speaches.device: `gpu` needs the image's -cuda tag (got %s)." $v.speaches.image.tag) -}}
{{- end -}}
{{- $router := index $v "llama-router" -}}
{{- if and $router.enabled (eq $router.device "gpu") (regexMatch "^server-b" $router.image.tag) -}}
{{- $errors = append $errors (printf "llama-router.device: `gpu` needs an image that computes on it, such as server-cuda-bBUILD (got %s)." $router.image.tag) -}}
{{- end -}}
{{- if and $v.litellm.enabled (not (or $v.ollama.enabled $v.ollama.external.url $v.vllm.enabled $v.sglang.enabled (index $v "tensorrt-llm" "enabled") $router.enabled)) -}}
{{- $errors = append $errors "litellm.enabled: there is no engine behind it; enable ollama, vllm, sglang, tensorrt-llm or llama-router." -}}
{{- end -}}
{{- if and $v.monitoring.rules (eq $v.monitoring.prometheusOperator "no") -}}
{{- $errors = append $errors "monitoring.rules: rules are objects of the Prometheus operator; set monitoring.prometheusOperator to `auto` or `yes`, or rules to false." -}}
{{- end -}}
{{- $readers := list -}}
{{- range $backend := list "llama-embed" "llama-router" -}}
{{- if and (index $v $backend "enabled") (ne (index $v $backend "image" "repository") "synapse-llama-cpp") }}{{ $readers = append $readers $backend }}{{ end -}}
{{- end -}}
{{- if eq (include "synapse.pullReadsVolume" .) "true" }}{{ $readers = append $readers "ollama-pull" }}{{ end -}}
{{- if and (gt (len $readers) 1) (ne (include "synapse.shareable" (dict "root" .root "storage" $v.modelStorage)) "true") -}}
{{- $errors = append $errors (printf "modelStorage.accessMode: %s share the volume, and %s does not serve them together; use ReadWriteMany, or ReadWriteOnce with singleNode: true." ($readers | join " and ") $v.modelStorage.accessMode) -}}
{{- end -}}
{{- if $v.budget.memoryBytes -}}
{{- $sum := include "synapse.memoryLimits" . | int64 -}}
{{- if gt $sum (int64 $v.budget.memoryBytes) -}}
{{- $errors = append $errors (printf "budget.memoryBytes: the memory limits of all services sum up to %.1f GB, over the budget of %.1f GB; lower a limit or switch a service off." (divf (float64 $sum) 1000000000.0) (divf (float64 $v.budget.memoryBytes) 1000000000.0)) -}}
{{- end -}}
{{- end -}}
{{- if and $v.decommission.enabled (not $v.decommission.subjects) -}}
{{- $errors = append $errors "decommission.subjects: is empty, so nobody would have the rights; name who runs `synapse decommission`." -}}
{{- end -}}
{{- range $index, $subject := $v.decommission.subjects -}}
{{- if and (eq $subject.kind "ServiceAccount") (not $subject.namespace) -}}
{{- $errors = append $errors (printf "decommission.subjects[%d].namespace: is missing; a ServiceAccount has one." $index) -}}
{{- end -}}
{{- end -}}
{{- $errors = concat $errors (fromYamlArray (include "synapse.validate.environment" .)) -}}
{{- toYaml $errors -}}
{{- end }}

{{- /* {root}: a variable that appears twice is refused by server-side apply. */}}
{{- define "synapse.validate.environment" -}}
{{- $root := .root -}}
{{- $errors := list -}}
{{- range $component, $values := $root.Values -}}
{{- if and (kindIs "map" $values) (hasKey $values "extraEnv") $values.enabled -}}
{{- $file := printf "%s/%s/%s.yaml" $root.Template.BasePath $component (ternary "daemonset" "deployment" (eq $component "dcgm-exporter")) -}}
{{- range $document := splitList "\n---" (include $file $root) -}}
{{- $pod := dig "spec" "template" "spec" dict (fromYaml $document) -}}
{{- $seen := list -}}
{{- range (first ($pod.containers | default (list dict))).env -}}
{{- if has .name $seen -}}
{{- $errors = append $errors (printf "%s.extraEnv: the chart sets %s itself; leave it out, and use the value that is there for it." $component .name) -}}
{{- end -}}
{{- $seen = append $seen .name -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (uniq $errors) -}}
{{- end }}

{{- /* {root}: sum in bytes of the memory limits of all long-running containers, replicas included. */}}
{{- define "synapse.memoryLimits" -}}
{{- $v := .root.Values -}}
{{- $sum := 0 -}}
{{- range $name, $entry := fromYaml (include "synapse.catalog" .) -}}
{{- if not $entry.external.url -}}
{{- $c := index $v $entry.key -}}
{{- $replicas := $c.replicas | default 1 -}}
{{- if eq $entry.key "gateway" }}{{ $replicas = ternary $c.autoscaling.maxReplicas $c.replicas $c.autoscaling.enabled }}{{ end -}}
{{- if eq $entry.key "vllm" }}{{ $c = fromYaml (include "synapse.vllm" (dict "root" $.root "instance" $entry.instance)) }}{{ end -}}
{{- $bytes := include "synapse.bytes" (dict "quantity" $c.resources.limits.memory) | int64 -}}
{{- $sum = add $sum (mul $bytes (int $replicas)) -}}
{{- if and (eq $entry.key "terminal-feed-redis") $c.exporter.enabled -}}
{{- $sum = add $sum (include "synapse.bytes" (dict "quantity" $c.exporter.resources.limits.memory) | int64) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $sum -}}
{{- end }}
