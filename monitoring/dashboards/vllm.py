"""vLLM by its own metrics; sleep states as the gateway counts them too."""

from __future__ import annotations

from .page import NAMESPACE, NAMESPACES, Page, Panel, Query, Row, Threshold, Variable, per_second

THIS = 'model_name=~"$served"'
SERVED = Variable(
    "served",
    "Model",
    f"label_values(vllm:num_requests_running{{{NAMESPACE}}}, model_name)",
    many=True,
)


def _quantiles(histogram: str) -> tuple[Query, ...]:
    rate = per_second(f"{histogram}_bucket", "le", THIS)
    return tuple(
        Query(f"histogram_quantile({share:g}, {rate})", f"p{share * 100:.0f}")
        for share in (0.5, 0.95, 0.99)
    )


def _gauge(name: str) -> str:
    return f"sum by (model_name) (vllm:{name}{{{NAMESPACE}, {THIS}}})"


SPEED = Row(
    "Speed",
    (
        Panel(
            "Tokens",
            "Prompt tokens read and tokens generated.",
            "suffix: tokens/s",
            (
                Query(
                    per_second("vllm:generation_tokens_total", "model_name", THIS),
                    "{{model_name}} generated",
                ),
                Query(
                    per_second("vllm:prompt_tokens_total", "model_name", THIS),
                    "{{model_name}} prompt",
                ),
            ),
        ),
        Panel(
            "Time to first token",
            "As vLLM measures it: without the gateway's queue.",
            "s",
            _quantiles("vllm:time_to_first_token_seconds"),
        ),
        Panel(
            "Between tokens",
            "Time from one token to the next.",
            "s",
            _quantiles("vllm:inter_token_latency_seconds"),
        ),
        Panel(
            "Whole requests",
            "From arrival to the last token.",
            "s",
            _quantiles("vllm:e2e_request_latency_seconds"),
        ),
        Panel(
            "Time in its queue",
            "Before a request was scheduled.",
            "s",
            _quantiles("vllm:request_queue_time_seconds"),
        ),
        Panel(
            "Finished requests",
            "By why they finished.",
            "reqps",
            (
                Query(
                    per_second("vllm:request_success_total", "finished_reason", THIS),
                    "{{finished_reason}}",
                ),
            ),
            stacked=True,
        ),
    ),
)

LOAD = Row(
    "Load",
    (
        Panel(
            "Running and waiting",
            "Requests in a batch, and those that wait for one.",
            "none",
            (
                Query(_gauge("num_requests_running"), "{{model_name}} running"),
                Query(_gauge("num_requests_waiting"), "{{model_name}} waiting"),
            ),
        ),
        Panel(
            "KV cache",
            "Share in use. Near 1 requests are preempted.",
            "percentunit",
            (
                Query(
                    f"max by (model_name) (vllm:kv_cache_usage_perc{{{NAMESPACE}, {THIS}}})",
                    "{{model_name}}",
                ),
            ),
            top=1,
            thresholds=(Threshold(0.95, "red"),),
        ),
        Panel(
            "Preemptions",
            "Requests that lost their KV cache and are computed again.",
            "reqps",
            (
                Query(
                    per_second("vllm:num_preemptions_total", "model_name", THIS),
                    "{{model_name}}",
                ),
            ),
        ),
        Panel(
            "Prefix cache",
            "Share of prompt tokens that were found in the cache.",
            "percentunit",
            (
                Query(
                    f"{per_second('vllm:prefix_cache_hits_total', 'model_name', THIS)} / "
                    f"{per_second('vllm:prefix_cache_queries_total', 'model_name', THIS)}",
                    "{{model_name}}",
                ),
            ),
            top=1,
        ),
        Panel(
            "Awake",
            "1: awake; 0: asleep, whatever the level.",
            "none",
            (
                Query(
                    "max by (model_name) (vllm:engine_sleep_state"
                    f'{{{NAMESPACE}, {THIS}, sleep_state="awake"}})',
                    "{{model_name}}",
                ),
            ),
            top=1,
        ),
        Panel(
            "State",
            "hot: awake; warm: asleep with weights in memory; cold: unloaded (as the gateway sees "
            "every model of the namespace).",
            "none",
            (
                Query(
                    f"max by (backend, model, state) (synapse_model_state{{{NAMESPACE}}}) == 1",
                    "{{model}} on {{backend}}: {{state}}",
                ),
            ),
        ),
    ),
)

PAGE = Page(
    "synapse-vllm",
    "Synapse / vLLM",
    "Tokens, latencies, queue, cache and sleep.",
    (SPEED, LOAD),
    (NAMESPACES, SERVED),
)
