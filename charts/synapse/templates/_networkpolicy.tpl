{{/*
The table of edges: who may call whom, on which port, why.

  synapse.edges  {root}  YAML list of {from, to, port, protocol, why}

`from` and `to` are either a pod name of this release (its label app.kubernetes.io/name) or a peer
outside it, written `@kind` or `@kind:detail`:

  @applications      namespaces that may use Synapse       @ingress     the ingress controller
  @prometheus        the monitoring namespace              @dns         cluster DNS
  @api-server        the Kubernetes API                    @downloads   model hosts
  @external:BACKEND  a backend outside the release         @otlp        the OpenTelemetry collector
  @peer:INDEX        the peer of an entry of networkPolicy.extra
  *                  every pod of the release

network/policies.yaml makes the policies from it, the annotation synapse.io/edges of the policy
`default-deny` carries it, and hack/chart-edges.py writes docs/network.md from that.
*/}}

{{- define "synapse.edges" -}}
{{- $root := .root -}}
{{- $v := $root.Values -}}
{{- $catalog := fromYaml (include "synapse.catalog" .) -}}
{{- $edges := list (dict "from" "*" "to" "@dns" "port" 53 "why" "names of Services and hosts") -}}
{{- $llm := list "ollama" "vllm" "sglang" "tensorrt-llm" "llama-embed" "llama-router" -}}
{{- range $name, $entry := $catalog -}}
{{- if and $entry.type $v.gateway.enabled -}}
{{- if $entry.external.url -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" (printf "@external:%s" $name) "port" (include "synapse.urlPort" (dict "url" $entry.external.url) | int) "why" "requests to a backend outside the release") -}}
{{- else -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" $name "port" (int $entry.containerPort) "why" "requests, probes and lifecycle calls") -}}
{{- end -}}
{{- end -}}
{{- if and $v.litellm.enabled (has $entry.component $llm) -}}
{{- if $entry.external.url -}}
{{- $edges = append $edges (dict "from" "litellm-proxy" "to" (printf "@external:%s" $name) "port" (include "synapse.urlPort" (dict "url" $entry.external.url) | int) "why" "requests to a backend outside the release") -}}
{{- else -}}
{{- $edges = append $edges (dict "from" "litellm-proxy" "to" $name "port" (int $entry.containerPort) "why" "LiteLLM serves the routes to language models in front of the same engines") -}}
{{- end -}}
{{- end -}}
{{- if not $entry.external.url -}}
{{- $held := and (eq $name "ollama") $v.gateway.enabled $v.gateway.ollamaService.holdBack -}}
{{- if or $held (has $name $v.networkPolicy.directAccess) -}}
{{- $edges = append $edges (dict "from" "@applications" "to" $name "port" (int $entry.containerPort) "why" "the engine that applications used before the gateway came") -}}
{{- end -}}
{{- if and $entry.metrics $v.monitoring.scrape -}}
{{- $edges = append $edges (dict "from" "@prometheus" "to" $name "port" (int $entry.metrics.port) "why" "metrics") -}}
{{- end -}}
{{- range fromYamlArray (include "synapse.downloadPorts" (dict "root" $root "name" $name "entry" $entry)) -}}
{{- $edges = append $edges (dict "from" $name "to" "@downloads" "port" (int .) "why" "model weights") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $v.gateway.enabled -}}
{{- $edges = append $edges (dict "from" "@applications" "to" "synapse-gateway" "port" 8000 "why" "the OpenAI-compatible API") -}}
{{- if $v.gateway.ollamaService.enabled -}}
{{- $edges = append $edges (dict "from" "@applications" "to" "synapse-gateway" "port" 11434 "why" "Ollama's API, by the Service ollama") -}}
{{- end -}}
{{- if or $v.gateway.ingress.enabled $v.gateway.httpRoute.enabled -}}
{{- $edges = append $edges (dict "from" "@ingress" "to" "synapse-gateway" "port" 8000 "why" "applications outside the cluster") -}}
{{- end -}}
{{- $redis := get $catalog "terminal-feed-redis" -}}
{{- if $redis -}}
{{- if $redis.external.url -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" "@external:terminal-feed-redis" "port" (include "synapse.urlPort" (dict "url" $redis.external.url) | int) "why" "state shared by the replicas") -}}
{{- else -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" "terminal-feed-redis" "port" 6379 "why" "state shared by the replicas") -}}
{{- end -}}
{{- end -}}
{{- if $v.gateway.reconfigure.enabled -}}
{{- range $v.networkPolicy.apiServer.ports -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" "@api-server" "port" (int .) "why" "runtime reconfiguration of llama-router") -}}
{{- end -}}
{{- end -}}
{{- if $v.gateway.workers.enabled -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" "synapse-gateway" "port" 8000 "why" "requests for a worker that is connected to another replica") -}}
{{- end -}}
{{- if $v.gateway.otlp.endpoint -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" "@otlp" "port" (include "synapse.urlPort" (dict "url" $v.gateway.otlp.endpoint) | int) "why" "traces and metrics") -}}
{{- end -}}
{{- range fromYamlArray (include "synapse.whoDownloads" .) -}}
{{- $edges = append $edges (dict "from" "synapse-gateway" "to" . "port" 8099 "why" "how far its downloads are, for /health") -}}
{{- end -}}
{{- $edges = append $edges (dict "from" "synapse-test" "to" "synapse-gateway" "port" 8000 "why" "helm test") -}}
{{- end -}}
{{- if eq (include "synapse.keysJob" .) "true" -}}
{{- range $v.networkPolicy.apiServer.ports -}}
{{- $edges = append $edges (dict "from" "synapse-keys" "to" "@api-server" "port" (int .) "why" "Secrets that are missing are made once") -}}
{{- end -}}
{{- end -}}
{{- if $v.litellm.enabled -}}
{{- range $v.networkPolicy.apiServer.ports -}}
{{- $edges = append $edges (dict "from" "litellm-roll" "to" "@api-server" "port" (int .) "why" "the daily roll of LiteLLM") -}}
{{- end -}}
{{- end -}}
{{- if eq (include "synapse.pulls" .) "true" -}}
{{- $edges = append $edges (dict "from" "ollama-pull" "to" "ollama" "port" 11434 "why" "brings the models") -}}
{{- range fromYamlArray (include "synapse.pullPorts" .) -}}
{{- $edges = append $edges (dict "from" "ollama-pull" "to" "@downloads" "port" (int .) "why" "GGUF files") -}}
{{- end -}}
{{- end -}}
{{- range $index, $extra := $v.networkPolicy.extra -}}
{{- $from := $extra.from.component | default (printf "@peer:%d" $index) -}}
{{- $to := $extra.to.component | default (printf "@peer:%d" $index) -}}
{{- $edges = append $edges (dict "from" $from "to" $to "port" (int $extra.port) "why" $extra.why) -}}
{{- end -}}
{{- toYaml $edges -}}
{{- end }}

{{- /* Port of a URL. */}}
{{- define "synapse.urlPort" -}}
{{- $host := (urlParse .url).host -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- $port | default (ternary 443 80 (hasPrefix "https" .url)) -}}
{{- end }}

{{- /* {root, sources}: YAML list of the URLs that sources are downloaded from, short of their paths. */}}
{{- define "synapse.downloadHosts" -}}
{{- $urls := list -}}
{{- range .sources -}}
{{- if hasPrefix "hf://" . }}{{ $urls = append $urls $.root.Values.huggingFace.endpoint -}}
{{- else if regexMatch "^https?://" . }}{{ $urls = append $urls (printf "%s://%s" (urlParse .).scheme (urlParse .).host) }}{{ end -}}
{{- end -}}
{{- toYaml (uniq $urls) -}}
{{- end }}

{{- /* {root, name, entry}: YAML list of what a pod downloads; none if its weights are in its image. */}}
{{- define "synapse.downloadUrls" -}}
{{- $hub := list "hf://" -}}
{{- $sources := list -}}
{{- if .entry.downloads -}}
{{- if eq .entry.component "ollama" -}}
{{- range fromYaml (include "synapse.targets" (dict "root" .root "backend" .name)) -}}
{{- if not (regexMatch "^(https?|hf|file|packaged):" (.source | default "")) }}{{ $sources = list "https://registry.ollama.ai" }}{{ end -}}
{{- end -}}
{{- else if has .entry.component (list "speaches" "chatterbox-tts") -}}
{{- $sources = $hub -}}
{{- else -}}
{{- range fromYamlArray (include "synapse.fetchList" (dict "root" .root "backend" .name)) }}{{ $sources = append $sources .source }}{{ end -}}
{{- end -}}
{{- end -}}
{{- include "synapse.downloadHosts" (dict "root" .root "sources" $sources) -}}
{{- end }}

{{- define "synapse.downloadPorts" -}}
{{- $ports := list -}}
{{- range fromYamlArray (include "synapse.downloadUrls" .) }}{{ $ports = append $ports (include "synapse.urlPort" (dict "url" .) | int) }}{{ end -}}
{{- toYaml (uniq $ports) -}}
{{- end }}

{{- /* {root}: the same for the Job that brings Ollama's models, as far as it downloads itself. */}}
{{- define "synapse.pullUrls" -}}
{{- $sources := list -}}
{{- range fromYaml (include "synapse.targets" (dict "root" .root "backend" "ollama")) }}{{ $sources = append $sources (.source | default "") }}{{ end -}}
{{- include "synapse.downloadHosts" (dict "root" .root "sources" $sources) -}}
{{- end }}

{{- define "synapse.pullPorts" -}}
{{- $ports := list -}}
{{- range fromYamlArray (include "synapse.pullUrls" .) }}{{ $ports = append $ports (include "synapse.urlPort" (dict "url" .) | int) }}{{ end -}}
{{- toYaml (uniq $ports) -}}
{{- end }}

{{- /* {root, peer, port}: YAML list of NetworkPolicy peers of an edge's end. */}}
{{- define "synapse.peers" -}}
{{- $n := .root.Values.networkPolicy -}}
{{- if eq .peer "*" -}}
- podSelector: {matchLabels: {app.kubernetes.io/instance: {{ .root.Release.Name | quote }}, app.kubernetes.io/part-of: synapse}}
{{- else if not (hasPrefix "@" .peer) -}}
- podSelector:
    matchLabels: {{- include "synapse.selectorLabels" (dict "root" .root "name" .peer) | nindent 6 }}
{{- else if eq .peer "@applications" -}}
- namespaceSelector: {matchLabels: {synapse.io/access: "true"}}
{{- with $n.applicationNamespaces }}
- namespaceSelector:
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
{{- end }}
{{- else if eq .peer "@ingress" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $n.ingressNamespace | quote }}}}
{{- range $n.ingressCidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- else if eq .peer "@prometheus" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .root.Values.monitoring.namespace | quote }}}}
{{- else if eq .peer "@dns" -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $n.dns.namespace | quote }}}}
  podSelector: {matchLabels: {{ toJson $n.dns.podLabels }}}
{{- range $n.dns.cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- else if eq .peer "@api-server" -}}
{{- range $n.apiServer.cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- else if eq .peer "@downloads" -}}
{{- range $cidr := $n.downloads.cidrs }}
{{- $except := list }}
{{- range $n.downloads.exceptCidrs }}
{{- if eq (contains ":" .) (contains ":" $cidr) }}{{ $except = append $except . }}{{ end }}
{{- end }}
- ipBlock:
    cidr: {{ $cidr | quote }}
    {{- with $except }}
    except: {{ toJson . }}
    {{- end }}
{{- end }}
{{- else if eq .peer "@otlp" -}}
{{- include "synapse.networkPeer" .root.Values.gateway.otlp.network }}
{{- else if hasPrefix "@external:" .peer -}}
{{- $entry := get (fromYaml (include "synapse.catalog" .)) (trimPrefix "@external:" .peer) -}}
{{- include "synapse.networkPeer" $entry.external.network }}
{{- else if hasPrefix "@peer:" .peer -}}
{{- $extra := index $n.extra (trimPrefix "@peer:" .peer | int) -}}
{{- include "synapse.networkPeer" (ternary (omit $extra.to "component") (omit $extra.from "component") (hasKey $extra.from "component")) }}
{{- end -}}
{{- end }}

{{- /* A peer of values: {namespace, podLabels} or {cidrs}. */}}
{{- define "synapse.networkPeer" -}}
{{- if .namespace -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace | quote }}}}
  {{- with .podLabels }}
  podSelector: {matchLabels: {{ toJson . }}}
  {{- end }}
{{- end }}
{{- range .cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end }}
