{{/*
  synapse.whoDownloads  {root}  YAML list of the pod names that tell how far their downloads are
*/}}
{{- define "synapse.whoDownloads" -}}
{{- $root := .root -}}
{{- $names := list -}}
{{- range $name, $entry := fromYaml (include "synapse.catalog" .) -}}
{{- if and (not $entry.external.url) (fromYamlArray (include "synapse.fetchList" (dict "root" $root "backend" $name))) -}}
{{- $names = append $names $name -}}
{{- end -}}
{{- end -}}
{{- if eq (include "synapse.pulls" .) "true" }}{{ $names = append $names "ollama-pull" }}{{ end -}}
{{- toYaml $names -}}
{{- end }}
