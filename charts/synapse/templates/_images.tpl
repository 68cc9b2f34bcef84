{{/*
Image references.

  synapse.image  {root, image}   registry/repository:tag@digest

`image.registry` empty means `images.registry` for the images of this project (their repository
starts with `synapse-`); a tag left empty means the chart's appVersion. A digest, once known,
decides what runs; the tag then only tells people which version that was.
*/}}
{{- define "synapse.image" -}}
{{- $image := .image -}}
{{- $ours := hasPrefix "synapse-" $image.repository -}}
{{- $registry := $image.registry -}}
{{- if and $ours (not $registry) }}{{ $registry = .root.Values.images.registry }}{{ end -}}
{{- $tag := $image.tag -}}
{{- if and $ours (not $tag) }}{{ $tag = .root.Chart.AppVersion }}{{ end -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $image.repository }}
{{- with $tag }}:{{ . }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "synapse.imageFields" -}}
image: {{ include "synapse.image" . | quote }}
imagePullPolicy: {{ .root.Values.images.pullPolicy }}
{{- end }}
