{{/*
  synapse.routerPresets  {root}  models.ini of the router: settings of each model that it may load; empty
                                 where it has none, or the one that is packaged
*/}}
{{- define "synapse.routerPresets" -}}
{{- $c := index .root.Values "llama-router" -}}
{{- range $name, $t := fromYaml (include "synapse.targets" (dict "root" .root "backend" "llama-router")) }}
{{- if not (hasPrefix "packaged:" ($t.source | default "")) }}
[{{ $name }}]
model = {{ include "synapse.ggufPath" (dict "name" $name "source" $t.source) }}
ctx-size = {{ mul (int ($t.context | default $c.context)) $c.parallel }}
{{- end }}
{{- end }}
{{- end }}
