{{/*
Names and labels.

Every helper of this chart takes one dict whose `root` is the top-level context. Object names are
the ones that applications already use (`ollama`, `vllm-inference`, `llama-router`, ...), so they
carry no release prefix: one release to a namespace.

  synapse.labels          {root, name, component}   all labels of an object
  synapse.selectorLabels  {root, name}              the immutable part
  synapse.host            {root, service}           the Service's full DNS name
*/}}

{{- define "synapse.selectorLabels" -}}
app.kubernetes.io/name: {{ .name | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{- define "synapse.labels" -}}
{{ include "synapse.selectorLabels" . }}
app.kubernetes.io/component: {{ .component | default .name }}
app.kubernetes.io/part-of: synapse
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- /* Labels of a pod: without the chart's version, so that a new chart rolls nothing by itself. */}}
{{- define "synapse.podLabels" -}}
{{ include "synapse.selectorLabels" . }}
app.kubernetes.io/component: {{ .component | default .name }}
app.kubernetes.io/part-of: synapse
{{- end }}

{{- define "synapse.host" -}}
{{ .service }}.{{ .root.Release.Namespace }}.svc.{{ .root.Values.clusterDomain }}
{{- end }}
