{{/*
GPU engines that serve one model: what their arguments are made of.

  synapse.onlyTarget      {root, backend}          YAML {name, target, model}: the one model with a
                                                   target on this backend
  synapse.gpuShare        {root, target, gpus}     share of a card for weights and KV cache, 0.01 to
                                                   0.99; empty where the card or the figure is unknown
  synapse.huggingFaceEnv  {root}                   HF_ENDPOINT, and HF_TOKEN from the Secret
  synapse.engineCacheEnv  {}                       where an engine writes, under one volume
*/}}
{{- define "synapse.onlyTarget" -}}
{{- $backend := .backend -}}
{{- $root := .root -}}
{{- range $name, $target := fromYaml (include "synapse.targets" .) -}}
{{- toYaml (dict "name" $name "target" $target "model" (index (fromYaml (include "synapse.activeModels" (dict "root" $root))) $name)) -}}
{{- break -}}
{{- end -}}
{{- end }}

{{- define "synapse.gpuShare" -}}
{{- $vram := .target.vram | default dict -}}
{{- if and .root.Values.gpu.memory $vram.awake -}}
{{- $card := include "synapse.bytes" (dict "quantity" .root.Values.gpu.memory) | float64 -}}
{{- $awake := include "synapse.bytes" (dict "quantity" $vram.awake) | float64 -}}
{{- printf "%.2f" (divf $awake (mulf $card (float64 .gpus))) -}}
{{- end -}}
{{- end }}

{{- define "synapse.huggingFaceEnv" -}}
{{- if ne .root.Values.huggingFace.endpoint "https://huggingface.co" }}
- {name: HF_ENDPOINT, value: {{ .root.Values.huggingFace.endpoint | quote }}}
{{- end }}
{{- with .root.Values.huggingFace.tokenSecret }}
- name: HF_TOKEN
  valueFrom: {secretKeyRef: {name: {{ . | quote }}, key: {{ $.root.Values.huggingFace.tokenKey | quote }}}}
{{- end }}
{{- end }}

{{- define "synapse.engineCacheEnv" -}}
- {name: HOME, value: /cache}
- {name: USER, value: synapse}
- {name: HF_HOME, value: /cache/huggingface}
- {name: XDG_CACHE_HOME, value: /cache/xdg}
- {name: TRITON_CACHE_DIR, value: /cache/triton}
- {name: TORCHINDUCTOR_CACHE_DIR, value: /cache/inductor}
{{- end }}
