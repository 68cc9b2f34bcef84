{{/*
Volumes that outlive the release.

  synapse.pvc        {root, name, component, storage}   a whole PersistentVolumeClaim, kept when
                                                        the release is removed
  synapse.claim      {name, storage}                    the claim's name (the existing one if named)
*/}}
{{- /* {root, storage}: "true" where several pods may use the volume at a time. */}}
{{- define "synapse.shareable" -}}
{{- or (eq .storage.accessMode "ReadWriteMany") (and (eq .storage.accessMode "ReadWriteOnce") .root.Values.singleNode) -}}
{{- end }}

{{- define "synapse.claim" -}}
{{ .storage.existingClaim | default .name }}
{{- end }}

{{- define "synapse.pvc" -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: {{ .name }}
  labels: {{- include "synapse.labels" . | nindent 4 }}
  annotations:
    helm.sh/resource-policy: keep
    # Argo CD keeps by that word what an Application leaves behind, but not what Git no longer names.
    argocd.argoproj.io/sync-options: Prune=false,Delete=false
    argocd.argoproj.io/compare-options: IgnoreExtraneous
spec:
  accessModes: [{{ .storage.accessMode }}]
  {{- with .storage.className | default .root.Values.storage.className }}
  storageClassName: {{ . | quote }}
  {{- end }}
  resources:
    requests:
      storage: {{ .storage.size | quote }}
{{- end }}

{{- define "synapse.service" -}}
{{- /* {root, name, component, ports: [{name, port, targetPort}], metrics: {port, path}, selector}
     A whole Service. Where the Prometheus operator is absent it carries scrape annotations: on
     the Service and not on the pods, so that switching monitoring on restarts nothing. */ -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .name }}
  labels: {{- include "synapse.labels" . | nindent 4 }}
  {{- with include "synapse.scrapeAnnotations" . }}
  annotations: {{- . | nindent 4 }}
  {{- end }}
spec:
  type: ClusterIP
  selector: {{- include "synapse.selectorLabels" (dict "root" .root "name" (.selector | default .name)) | nindent 4 }}
  ports:
    {{- range .ports }}
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .targetPort | default .name }}
    {{- end }}
{{- end }}

{{- define "synapse.scrapeAnnotations" -}}
{{- if and .metrics .root.Values.monitoring.scrape (ne (include "synapse.hasPrometheusOperator" .) "true") -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .metrics.port | quote }}
prometheus.io/path: {{ .metrics.path | quote }}
{{- end }}
{{- end }}

{{- define "synapse.hasPrometheusOperator" -}}
{{- if eq .root.Values.monitoring.prometheusOperator "auto" -}}
{{- .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}
{{- else -}}
{{- eq .root.Values.monitoring.prometheusOperator "yes" -}}
{{- end -}}
{{- end }}
