{{/*
Weights: where they are, and how they come there.

  synapse.ggufPath         {name, source}    where a GGUF file of llama.cpp is: on the volume
                                             `synapse-models`, mounted at /models
  synapse.weightsFolder    {source}          where vLLM, SGLang and TensorRT-LLM find a model: a folder
                                             of their own volume, mounted at /cache
  synapse.fetchList        {root, backend}   YAML list [{model, source, path}] of what is downloaded
  synapse.fetch            {root, backend, volume, at}
                                             the init container that does it; empty if nothing is
  synapse.downloadLabel    {root, backend}   the label by which the gateway finds who downloads
  synapse.usesModelVolume  {root}            "true" where some pod reads `synapse-models`
*/}}
{{- define "synapse.ggufPath" -}}
{{- if hasPrefix "file://" .source -}}
{{ trimPrefix "file://" .source }}
{{- else -}}
/models/{{ regexReplaceAll "[^A-Za-z0-9._-]" .name "_" }}.gguf
{{- end -}}
{{- end }}

{{- define "synapse.weightsFolder" -}}
{{- if hasPrefix "/" .source }}{{ .source }}{{ else }}/cache/models/{{ .source }}{{ end -}}
{{- end }}

{{- define "synapse.fetchList" -}}
{{- $files := list -}}
{{- $component := (get (fromYaml (include "synapse.catalog" .)) .backend | default dict).component | default "" -}}
{{- if has $component (list "llama-embed" "llama-router" "vllm" "sglang" "tensorrt-llm") -}}
{{- range $name, $target := fromYaml (include "synapse.targets" .) -}}
{{- $source := $target.source | default "" -}}
{{- if hasPrefix "llama-" $component -}}
{{- if regexMatch "^(hf|https?)://" $source -}}
{{- $files = append $files (dict "model" $name "source" $source "path" (include "synapse.ggufPath" (dict "name" $name "source" $source))) -}}
{{- end -}}
{{- else if and $source (not (hasPrefix "/" $source)) -}}
{{- $files = append $files (dict "model" $name "source" (printf "hf://%s" $source) "path" (include "synapse.weightsFolder" (dict "source" $source))) -}}
{{- end -}}
{{- end -}}
{{- else if eq $component "whisper-stt" -}}
{{- $source := index .root.Values "whisper-stt" "model" -}}
{{- if hasPrefix "hf://" $source -}}
{{- $files = append $files (dict "model" "whisper" "source" $source "path" (printf "/cache/models/%s" (trimPrefix "hf://" $source))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end }}

{{- define "synapse.fetch" -}}
{{- $files := fromYamlArray (include "synapse.fetchList" .) -}}
{{- if $files -}}
# Downloads what is missing, resumes what was cut; what is whole is left alone, and needs no network.
- name: fetch
  {{- include "synapse.imageFields" (dict "root" .root "image" .root.Values.downloads.image) | nindent 2 }}
  securityContext: {{- include "synapse.containerSecurity" dict | nindent 4 }}
  command: [python3, /scripts/fetch_files.py]
  env:
    - {name: BACKEND, value: {{ .backend | quote }}}
    - {name: FILES, value: {{ toJson $files | quote }}}
    # A router serves the models that it has; the others have one.
    - {name: NEED, value: {{ ternary "any" "all" (eq .backend "llama-router") }}}
    - {name: PROGRESS_PORT, value: "8099"}
    {{- include "synapse.huggingFaceEnv" (dict "root" .root) | nindent 4 }}
  ports:
    - {name: progress, containerPort: 8099}
  resources: {{- toYaml .root.Values.downloads.resources | nindent 4 }}
  volumeMounts:
    - {name: scripts, mountPath: /scripts, readOnly: true}
    - {name: {{ .volume }}, mountPath: {{ .at }}}
{{- end -}}
{{- end }}

{{- define "synapse.downloadLabel" -}}
{{- if fromYamlArray (include "synapse.fetchList" .) -}}
synapse.io/downloads: "true"
{{- end -}}
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
{{- if eq (include "synapse.pullReadsVolume" .) "true" }}{{ $used = true }}{{ end -}}
{{- $used -}}
{{- end }}
