{{/*
Where a pod runs.

  synapse.scheduling  {root, values, gpu}   pull secrets, priority, node selector, tolerations,
                                            affinity; with `gpu` also the runtime class and what
                                            `gpu.nodeSelector` and `gpu.tolerations` add
  synapse.resources   {root, values, gpu}   the container's resources, with its share of the GPU
                                            in requests and limits (Kubernetes wants both equal)
*/}}
{{- define "synapse.scheduling" -}}
{{- $gpu := .root.Values.gpu -}}
{{- with .root.Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- if and .gpu $gpu.runtimeClassName }}
runtimeClassName: {{ $gpu.runtimeClassName | quote }}
{{- end }}
{{- $selector := merge (deepCopy .values.nodeSelector) (ternary (deepCopy $gpu.nodeSelector) dict (.gpu | default false)) }}
{{- with $selector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $tolerations := concat .values.tolerations (ternary $gpu.tolerations list (.gpu | default false)) }}
{{- with $tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "synapse.resources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if .gpu -}}
{{- $share := dict .root.Values.gpu.resource (.count | default 1 | int) -}}
{{- $_ := set $resources "requests" (merge ($resources.requests | default dict) $share) -}}
{{- $_ := set $resources "limits" (merge ($resources.limits | default dict) $share) -}}
{{- end -}}
{{ toYaml $resources }}
{{- end }}
