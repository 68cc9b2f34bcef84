{{/*
Model files of llama.cpp on the volume `synapse-models`, mounted at /models.

  synapse.ggufPath   {name, source}   where a model's file is
  synapse.fetchList  {root, backend}  YAML list [{url, path}] of what has to be downloaded
  synapse.usesModelVolume {root}      "true" where some component reads that volume
*/}}
{{- define "synapse.ggufPath" -}}
{{- if hasPrefix "file://" .source -}}
{{ trimPrefix "file://" .source }}
{{- else -}}
/models/{{ regexReplaceAll "[^A-Za-z0-9._-]" .name "_" }}.gguf
{{- end -}}
{{- end }}

{{- define "synapse.fetchList" -}}
{{- $files := list -}}
{{- range $name, $target := fromYaml (include "synapse.targets" .) -}}
{{- $source := $target.source | default "" -}}
{{- $path := include "synapse.ggufPath" (dict "name" $name "source" $source) -}}
{{- if hasPrefix "hf://" $source -}}
{{- $parts := splitn "/" 3 (trimPrefix "hf://" $source) -}}
{{- $files = append $files (dict "path" $path "url" (printf "https://huggingface.co/%s/%s/resolve/main/%s" $parts._0 $parts._1 $parts._2)) -}}
{{- else if regexMatch "^https?://" $source -}}
{{- $files = append $files (dict "path" $path "url" $source) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end }}

{{- define "synapse.usesModelVolume" -}}
{{- $root := .root -}}
{{- $used := false -}}
{{- range $backend := list "llama-embed" "llama-router" -}}
{{- if index $root.Values $backend "enabled" -}}
{{- $packaged := false -}}
{{- range fromYaml (include "synapse.targets" (dict "root" $root "backend" $backend)) -}}
{{- if hasPrefix "packaged:" (.source | default "") }}{{ $packaged = true }}{{ end -}}
{{- end -}}
{{- if not $packaged }}{{ $used = true }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $used -}}
{{- end }}
