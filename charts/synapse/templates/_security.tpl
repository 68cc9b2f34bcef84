{{/*
Security contexts: the Pod Security Standard "restricted" for everything that can bear it.

  synapse.podSecurity        {uid}    of a pod: non-root, one group for its volumes
  synapse.containerSecurity  {}       of a container: read-only root, no capability
  synapse.rootPodSecurity    {}       of the few third-party images that only work as root;
                                      README.md lists them with the reason
*/}}
{{- define "synapse.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .uid | default 10001 }}
runAsGroup: {{ .uid | default 10001 }}
fsGroup: {{ .uid | default 10001 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "synapse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "synapse.rootPodSecurity" -}}
runAsUser: 0
seccompProfile:
  type: RuntimeDefault
{{- end }}
