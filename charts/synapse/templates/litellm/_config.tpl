{{/*
  synapse.litellmConfig  {root}  LiteLLM's configuration: every language model and embedding of the
                                 route table that an engine other than LiteLLM serves
*/}}
{{- define "synapse.litellmConfig" -}}
{{- $root := .root -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- $list := list -}}
{{- range $name, $model := fromYaml (include "synapse.activeModels" .) -}}
{{- if has $model.service (list "llm" "embeddings") -}}
{{- range $backend, $own := $model.targets -}}
{{- $entry := get $catalog $backend | default dict -}}
{{- if and $entry (ne $backend "litellm-proxy") -}}
{{- $target := $own | default dict -}}
{{- $at := include "synapse.modelAt" (dict "backend" $entry "target" $target "name" $name) | default $name -}}
{{- $url := include "synapse.engineUrl" (dict "root" $root "entry" $entry) -}}
{{- $ollama := eq $entry.type "ollama" -}}
{{- $order := $target.order | default (ternary 1 2 (eq $entry.device "gpu")) -}}
{{- $params := dict "model" (printf "%s/%s" (ternary "ollama" "openai" $ollama) $at) "api_base" (ternary $url (printf "%s/v1" (trimSuffix "/v1" $url)) $ollama) "order" (int $order) -}}
{{- if not $ollama }}{{ $_ := set $params "api_key" "none" }}{{ end -}}
{{- if $entry.external.apiKeySecret }}{{ $_ := set $params "api_key" (printf "os.environ/%s" (include "synapse.litellmKeyName" (dict "backend" $backend))) }}{{ end -}}
{{- range prepend ($model.aliases | default list) $name -}}
{{- $list = append $list (dict "model_name" . "litellm_params" $params) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "model_list" $list "litellm_settings" (dict "num_retries" 2 "request_timeout" 300 "callbacks" (list "prometheus")) "general_settings" (dict "master_key" "os.environ/LITELLM_MASTER_KEY")) -}}
{{- end }}

{{- /* {backend}: environment variable with the key of an engine that runs elsewhere. */}}
{{- define "synapse.litellmKeyName" -}}
API_KEY_{{ .backend | upper | replace "-" "_" }}
{{- end }}
