"""The first page to look at: is it up, do callers get answers, who answers them."""

from __future__ import annotations

from .page import (
    NAMESPACE,
    NAMESPACES,
    Page,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
    per_second,
    percentiles,
    quantile,
)

GREEN_UNTIL_ZERO = (Threshold(0, "green"), Threshold(1, "red"))

NOW = Row(
    "Now",
    (
        Panel(
            "Replicas",
            "Gateway processes that Prometheus can scrape.",
            "none",
            (Query(f"count(synapse_config_info{{{NAMESPACE}}}) or vector(0)"),),
            kind="stat",
            width=4,
            thresholds=(Threshold(0, "red"), Threshold(1, "green")),
        ),
        Panel(
            "Requests",
            "Requests that ended, a second.",
            "reqps",
            (Query(f"sum(rate(synapse_requests_total{{{NAMESPACE}}}[$__rate_interval]))"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Failed",
            "Share that ended in a 5xx or a cut stream; the promise is under 0.5 %.",
            "percentunit",
            (Query(f"max(namespace:synapse_requests_errors:ratio_rate5m{{{NAMESPACE}}})"),),
            kind="stat",
            width=4,
            thresholds=(Threshold(0, "green"), Threshold(0.005, "orange"), Threshold(0.05, "red")),
        ),
        Panel(
            "Backends down",
            "Backends that no replica can reach.",
            "none",
            (
                Query(
                    "count(max by (namespace, backend) "
                    f"(synapse_backend_up{{{NAMESPACE}}}) == 0) or vector(0)"
                ),
            ),
            kind="stat",
            width=4,
            thresholds=GREEN_UNTIL_ZERO,
        ),
        Panel(
            "Breakers open",
            "Pairs of backend and model that are left out because they fail.",
            "none",
            (
                Query(
                    "count(max by (namespace, backend, model) "
                    f"(synapse_breaker_state{{{NAMESPACE}}}) == 2) or vector(0)"
                ),
            ),
            kind="stat",
            width=4,
            thresholds=GREEN_UNTIL_ZERO,
        ),
        Panel(
            "Waiting",
            "Requests in the gateway's queues.",
            "none",
            (Query(f"sum(synapse_queue_length{{{NAMESPACE}}}) or vector(0)"),),
            kind="stat",
            width=4,
            thresholds=(Threshold(0, "green"), Threshold(1, "orange")),
        ),
    ),
)

CALLERS = Row(
    "What callers see",
    (
        Panel(
            "Requests by code",
            "499: the caller left before an answer began.",
            "reqps",
            (Query(per_second("synapse_requests_total", "code"), "{{code}}"),),
            stacked=True,
        ),
        Panel(
            "Duration",
            "From the last byte of the request to the last of the answer, all routes.",
            "s",
            percentiles("synapse_request_duration_seconds"),
        ),
        Panel(
            "Time to first token",
            "Streams only. The ceiling on CPU is 5 s.",
            "s",
            percentiles("synapse_time_to_first_token_seconds"),
            thresholds=(Threshold(5, "red"),),
        ),
        Panel(
            "Requests by model",
            "By the name in the route table.",
            "reqps",
            (Query(per_second("synapse_requests_total", "model"), "{{model}}"),),
            stacked=True,
        ),
        Panel(
            "Tokens",
            "in: prompts; out: answers.",
            "suffix: tokens/s",
            (Query(per_second("synapse_tokens_total", "direction"), "{{direction}}"),),
        ),
        Panel(
            "Callers that left",
            "Requests whose caller went away before the end.",
            "reqps",
            (Query(per_second("synapse_client_disconnects_total", "route"), "{{route}}"),),
        ),
    ),
)

FAILOVER = Row(
    "Failover",
    (
        Panel(
            "Answered by a fallback",
            "Share of a model's requests that another than its first choice answered.",
            "percentunit",
            (Query(f"namespace_model:synapse_fallbacks:ratio_rate5m{{{NAMESPACE}}}", "{{model}}"),),
            top=1,
            thresholds=(Threshold(0.1, "red"),),
        ),
        Panel(
            "Fallbacks by reason",
            "Why the first choice did not answer.",
            "reqps",
            (
                Query(
                    per_second("synapse_fallbacks_total", "model, reason"),
                    "{{model}}: {{reason}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Attempts by outcome",
            "Every attempt at a backend. Retries beyond the budget are refused, not made.",
            "reqps",
            (
                Query(per_second("synapse_attempts_total", "outcome"), "{{outcome}}"),
                Query(
                    per_second("synapse_retry_budget_exhausted_total", "namespace"),
                    "refused by the retry budget",
                ),
            ),
        ),
        Panel(
            "Cut streams",
            "Streams that ended early, with an error in band.",
            "reqps",
            (
                Query(
                    per_second("synapse_cut_streams_total", "backend, reason"),
                    "{{backend}}: {{reason}}",
                ),
            ),
        ),
        Panel(
            "Queue",
            "Requests that wait for a target.",
            "none",
            (Query(f"sum by (model) (synapse_queue_length{{{NAMESPACE}}})", "{{model}}"),),
        ),
        Panel(
            "Time in the queue",
            "The slowest request in twenty, by model.",
            "s",
            (Query(quantile(0.95, "synapse_queue_wait_seconds", "model"), "{{model}}"),),
        ),
    ),
)

GATEWAY = Row(
    "The gateway itself",
    (
        Panel(
            "Overhead",
            "What the gateway adds to a request. The ceiling is 20 ms, the aim 1 ms.",
            "s",
            percentiles("synapse_gateway_overhead_seconds"),
            width=6,
        ),
        Panel(
            "Memory",
            "Resident memory of each replica.",
            "bytes",
            (
                Query(
                    f"process_resident_memory_bytes{{{NAMESPACE}}} "
                    "and on (namespace, pod) synapse_config_info",
                    "{{pod}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "CPU",
            "Cores that each replica uses; one process cannot use more than about one.",
            "none",
            (
                Query(
                    f"rate(process_cpu_seconds_total{{{NAMESPACE}}}[$__rate_interval]) "
                    "and on (namespace, pod) synapse_config_info",
                    "{{pod}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Configuration",
            "Which configuration runs, by replicas; and files taken over or refused.",
            "none",
            (
                Query(f"count by (hash) (synapse_config_info{{{NAMESPACE}}})", "{{hash}}"),
                Query(
                    f"sum by (result) (increase(synapse_config_reloads_total{{{NAMESPACE}}}[1h]))",
                    "{{result}} in the last hour",
                ),
            ),
            width=6,
        ),
        Panel(
            "Redis",
            "1 where a replica reaches it.",
            "none",
            (Query(f"synapse_redis_up{{{NAMESPACE}}}", "{{pod}}"),),
            width=6,
            top=1,
        ),
        Panel(
            "Over their limit",
            "Requests refused by a limit of their key.",
            "reqps",
            (Query(per_second("synapse_rate_limited_total", "key, limit"), "{{key}}: {{limit}}"),),
            width=6,
        ),
        Panel(
            "Memory of pods",
            "Share of the memory limit in use, the ten closest to it (from the kubelet).",
            "percentunit",
            (
                Query(
                    "topk(10, max by (pod, container) (container_memory_working_set_bytes"
                    f'{{{NAMESPACE}, container!="", container!="POD"}}) '
                    "/ max by (pod, container) (container_spec_memory_limit_bytes"
                    f'{{{NAMESPACE}, container!="", container!="POD"}} > 0))',
                    "{{pod}}/{{container}}",
                ),
            ),
            width=6,
            top=1,
            thresholds=(Threshold(0.9, "red"),),
        ),
        Panel(
            "CPU of pods",
            "Cores in use, the ten busiest containers (from the kubelet).",
            "none",
            (
                Query(
                    "topk(10, sum by (pod, container) (rate(container_cpu_usage_seconds_total"
                    f'{{{NAMESPACE}, container!="", container!="POD"}}[$__rate_interval])))',
                    "{{pod}}/{{container}}",
                ),
            ),
            width=6,
        ),
    ),
)

PAGE = Page(
    "synapse-overview",
    "Synapse / Overview",
    "Requests, failover and the gateway itself.",
    (NOW, CALLERS, FAILOVER, GATEWAY),
    (NAMESPACES,),
)

MODELS = Variable("model", "Model", f"label_values(synapse_requests_total{{{NAMESPACE}}}, model)")
BACKENDS = Variable(
    "backend", "Backend", f"label_values(synapse_in_flight{{{NAMESPACE}}}, backend)"
)
