{{/*
  synapse.scriptsNeeded  {root}  "true" where some pod mounts the ConfigMap synapse-scripts
*/}}
{{- define "synapse.scriptsNeeded" -}}
{{- $v := .root.Values -}}
{{- or (eq (include "synapse.keysJob" .) "true") $v.gateway.enabled $v.ollama.enabled $v.litellm.enabled (index $v "llama-embed" "enabled") (index $v "llama-router" "enabled") (index $v "whisper-stt" "enabled") $v.vllm.enabled $v.sglang.enabled (index $v "tensorrt-llm" "enabled") -}}
{{- end }}
