{{- /* Edges that a policy could not be made for: {root} -> YAML list of sentences. */}}
{{- define "synapse.validate.network" -}}
{{- $v := .root.Values -}}
{{- $errors := list -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- range $name, $entry := $catalog -}}
{{- if and $entry.external.url (not (or ($entry.external.network | default dict).namespace ($entry.external.network | default dict).cidrs)) -}}
{{- $errors = append $errors (printf "%s: its `external.network` is missing; say by namespace or cidrs where it is, or the network policy closes the way to it." $name) -}}
{{- end -}}
{{- end -}}
{{- $ways := 0 -}}
{{- range $v.networkPolicy.extra }}{{ if eq (.from.component | default "") "synapse-gateway" }}{{ $ways = add1 $ways }}{{ end }}{{ end -}}
{{- if and $v.gateway.enabled $v.gateway.backends (eq (int $ways) 0) -}}
{{- $errors = append $errors (printf "gateway.backends.%s: no edge of networkPolicy.extra leads from synapse-gateway to it, so the network policy closes the way." (keys $v.gateway.backends | sortAlpha | first)) -}}
{{- end -}}
{{- if and $v.gateway.enabled $v.gateway.otlp.endpoint (not (or $v.gateway.otlp.network.namespace $v.gateway.otlp.network.cidrs)) -}}
{{- $errors = append $errors "gateway.otlp.network: is missing; say by namespace or cidrs where the collector is, or the network policy closes the way to it." -}}
{{- end -}}
{{- if has .root.Release.Namespace (list "kube-system" "kube-public" "kube-node-lease") -}}
{{- $errors = append $errors (printf "namespace %s: the chart closes the whole namespace that it is installed into; give it one of its own." .root.Release.Namespace) -}}
{{- end -}}
{{- range $v.networkPolicy.directAccess -}}
{{- $entry := get $catalog . | default dict -}}
{{- if or (not $entry) ($entry.external | default dict).url (not $entry.type) -}}
{{- $errors = append $errors (printf "networkPolicy.directAccess: `%s` is no backend that runs here." .) -}}
{{- end -}}
{{- end -}}
{{- $pods := list -}}
{{- range $name, $entry := $catalog }}{{ if not $entry.external.url }}{{ $pods = append $pods $name }}{{ end }}{{ end -}}
{{- if eq (include "synapse.keysJob" .) "true" }}{{ $pods = append $pods "synapse-keys" }}{{ end -}}
{{- if eq (include "synapse.pulls" .) "true" }}{{ $pods = append $pods "ollama-pull" }}{{ end -}}
{{- range $index, $extra := $v.networkPolicy.extra -}}
{{- $components := 0 -}}
{{- range list $extra.from $extra.to -}}
{{- if .component -}}
{{- $components = add1 $components -}}
{{- if not (has .component $pods) -}}
{{- $errors = append $errors (printf "networkPolicy.extra[%d]: `%s` is no pod of this release; there are %s." $index .component (sortAlpha $pods | join ", ")) -}}
{{- end -}}
{{- else if not (or .namespace .cidrs) -}}
{{- $errors = append $errors (printf "networkPolicy.extra[%d]: an end is empty; give it a component, a namespace or cidrs." $index) -}}
{{- end -}}
{{- end -}}
{{- if eq (int $components) 0 -}}
{{- $errors = append $errors (printf "networkPolicy.extra[%d]: one end must be a component of this release." $index) -}}
{{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}
