{{- /*
Text of a certain form, such as quantities and names. JSON Schema would only say "does not match pattern
^...$", so patterns are checked here, where the sentence can say what would be right.

  synapse.validate.text  {root}                   YAML list of sentences
  synapse.validate.node  {shapes, node, value, at}  the same for one value and what is below it

The tree that is walked is generated from the comments of values.yaml (_patterns.tpl): `must` is a
pattern and a wish, `is` names a shape, `keys`, `each`, `names` and `items` lead further down.
*/}}
{{- define "synapse.validate.text" -}}
{{- $tree := fromYaml (include "synapse.patterns" dict) -}}
{{- include "synapse.validate.node" (dict "shapes" $tree.shapes "node" $tree.values "value" .root.Values "at" "") -}}
{{- end }}

{{- define "synapse.validate.node" -}}
{{- $errors := list -}}
{{- $node := .node -}}
{{- with $node.is }}{{ $node = get $.shapes . }}{{ end -}}
{{- with $node.must -}}
{{- if and (kindIs "string" $.value) (not (regexMatch (index . 0) $.value)) -}}
{{- $errors = append $errors (printf "%s: must be %s (got `%s`)." (trimPrefix "." $.at) (index . 1) ($.value | trunc 80)) -}}
{{- end -}}
{{- end -}}
{{- if kindIs "map" .value -}}
{{- $names := $node.names | default dict -}}
{{- with $names.is }}{{ $names = get $.shapes . }}{{ end -}}
{{- range $key, $value := .value -}}
{{- if and $names.must (not (regexMatch (index $names.must 0) $key)) -}}
{{- $errors = append $errors (printf "%s: the name `%s` must be %s." (trimPrefix "." $.at) $key (index $names.must 1)) -}}
{{- end -}}
{{- $child := get ($node.keys | default dict) $key | default $node.each -}}
{{- if and $child (not (kindIs "invalid" $value)) -}}
{{- $errors = concat $errors (fromYamlArray (include "synapse.validate.node" (dict "shapes" $.shapes "node" $child "value" $value "at" (printf "%s.%s" $.at $key)))) -}}
{{- end -}}
{{- end -}}
{{- else if and (kindIs "slice" .value) $node.items -}}
{{- range $index, $value := .value -}}
{{- $errors = concat $errors (fromYamlArray (include "synapse.validate.node" (dict "shapes" $.shapes "node" $node.items "value" $value "at" (printf "%s[%d]" $.at $index)))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}
