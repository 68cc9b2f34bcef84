{{- /* The gateway and what it needs: {root} -> YAML list of sentences. */}}
{{- define "synapse.validate.gateway" -}}
{{- $v := .root.Values -}}
{{- $g := $v.gateway -}}
{{- $errors := list -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- $router := index $v "llama-router" -}}
{{- $most := ternary $g.autoscaling.maxReplicas $g.replicas $g.autoscaling.enabled -}}
{{- $least := ternary $g.autoscaling.minReplicas $g.replicas $g.autoscaling.enabled -}}
{{- if not $g.enabled -}}
{{- range $field, $on := dict "ingress" $g.ingress.enabled "httpRoute" $g.httpRoute.enabled "reconfigure" $g.reconfigure.enabled "workers" $g.workers.enabled -}}
{{- if $on -}}
{{- $errors = append $errors (printf "gateway.%s.enabled: there is no gateway; set gateway.enabled: true or this to false." $field) -}}
{{- end -}}
{{- end -}}
{{- else -}}
{{- if and (gt (int $most) 1) (not (hasKey $catalog "terminal-feed-redis")) -}}
{{- $errors = append $errors (printf "gateway.replicas: %d pods share limits and health through Redis; enable terminal-feed-redis, name one with terminal-feed-redis.external.url, or run one pod." (int $most)) -}}
{{- end -}}
{{- if and $g.voices.enabled (gt (int $most) 1) (ne (include "synapse.shareable" (dict "root" .root "storage" $g.voices.storage)) "true") -}}
{{- $errors = append $errors (printf "gateway.voices.storage.accessMode: %s does not serve %d gateway pods; use ReadWriteMany, ReadWriteOnce with singleNode: true, or run one pod." $g.voices.storage.accessMode (int $most)) -}}
{{- end -}}
{{- if and (gt (int $least) 1) (ge (int $g.minAvailable) (int $least)) -}}
{{- $errors = append $errors (printf "gateway.minAvailable: %d of %d pods would keep a node from ever being drained; it must be lower." (int $g.minAvailable) (int $least)) -}}
{{- end -}}
{{- if and $g.autoscaling.enabled (gt (int $g.autoscaling.minReplicas) (int $g.autoscaling.maxReplicas)) -}}
{{- $errors = append $errors (printf "gateway.autoscaling.minReplicas: %d is more than maxReplicas (%d)." (int $g.autoscaling.minReplicas) (int $g.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- if and $g.autoscaling.inFlight.enabled (not $g.autoscaling.enabled) -}}
{{- $errors = append $errors "gateway.autoscaling.inFlight.enabled: needs gateway.autoscaling.enabled: true." -}}
{{- end -}}
{{- if and $g.autoscaling.enabled (not (($g.resources.requests | default dict).cpu)) -}}
{{- $errors = append $errors "gateway.autoscaling.enabled: the CPU target is a share of gateway.resources.requests.cpu, which is missing." -}}
{{- end -}}
{{- if and $g.ingress.enabled (not $g.ingress.host) -}}
{{- $errors = append $errors "gateway.ingress.host: is missing; an Ingress without a host would take every name of the cluster." -}}
{{- end -}}
{{- if and $g.httpRoute.enabled (not $g.httpRoute.parentRefs) -}}
{{- $errors = append $errors "gateway.httpRoute.parentRefs: is empty; name the Gateway that the route attaches to." -}}
{{- end -}}
{{- if and (eq $g.auth "anonymous") (or $g.ingress.enabled $g.httpRoute.enabled) (not $g.anonymousLimits) -}}
{{- $errors = append $errors "gateway.auth: `anonymous` behind an Ingress or HTTPRoute opens every model to everybody; set gateway.anonymousLimits, or gateway.auth: keys." -}}
{{- end -}}
{{- if and $g.reconfigure.enabled (not $router.enabled) -}}
{{- $errors = append $errors "gateway.reconfigure.enabled: patches the Deployment llama-router, which is not enabled." -}}
{{- end -}}
{{- if and $g.ollamaService.holdBack (not $v.ollama.enabled) -}}
{{- $errors = append $errors "gateway.ollamaService.holdBack: leaves the Service ollama to the engine, which is not enabled." -}}
{{- end -}}
{{- if hasKey $g.keys.callers "anonymous" -}}
{{- $errors = append $errors "gateway.keys.callers.anonymous: the name means callers without a key (gateway.anonymousLimits); take another." -}}
{{- end -}}
{{- range $path, $backend := $g.routes -}}
{{- if not (or (hasKey $catalog $backend) (hasKey $g.backends $backend)) -}}
{{- $errors = append $errors (printf "gateway.routes.%s: `%s` is no enabled backend." $path $backend) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $g.backends -}}
{{- if hasKey $catalog $name -}}
{{- $errors = append $errors (printf "gateway.backends.%s: the chart renders a backend of that name; choose another, or use the component's `external`." $name) -}}
{{- end -}}
{{- end -}}
{{- $routed := dict -}}
{{- range $name, $model := (fromYaml (include "synapse.routeTable" .)).models -}}
{{- range prepend ($model.aliases | default list) $name }}{{ $_ := set $routed . true }}{{ end -}}
{{- end -}}
{{- $named := dict "gateway.auto.default" ($g.auto.default | default "") "test.chatModel" $v.test.chatModel "test.embeddingModel" $v.test.embeddingModel -}}
{{- range $index, $rule := $g.auto.rules }}{{ $_ := set $named (printf "gateway.auto.rules[%d].model" $index) $rule.model }}{{ end -}}
{{- range $where, $name := $named -}}
{{- if and $name (not (hasKey $routed $name)) -}}
{{- $errors = append $errors (printf "%s: `%s` is no model that an enabled backend serves; there are %s." $where $name (keys $routed | sortAlpha | join ", " | default "none")) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and (eq $g.keys.source "externalSecret") (not $g.keys.externalSecret.storeName) -}}
{{- $errors = append $errors "gateway.keys.externalSecret.storeName: is missing; name the SecretStore that holds the keys." -}}
{{- end -}}
{{- if eq $g.keys.secretName $g.keys.internalSecretName -}}
{{- $errors = append $errors "gateway.keys.internalSecretName: must differ from secretName; every entry of that one is a caller's key." -}}
{{- end -}}
{{- toYaml $errors -}}
{{- end }}
