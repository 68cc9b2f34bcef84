"""One model: how it is asked, how fast it answers, and who serves it."""

from __future__ import annotations

from .overview import MODELS
from .page import (
    NAMESPACE,
    NAMESPACES,
    Page,
    Panel,
    Query,
    Row,
    Threshold,
    per_second,
    percentiles,
    quantile,
)

THIS = 'model="$model"'

SPEED = Row(
    "Speed",
    (
        Panel(
            "Time to first token",
            "From the last byte of the request to the first content of a stream.",
            "s",
            percentiles("synapse_time_to_first_token_seconds", THIS),
            thresholds=(Threshold(5, "red"),),
        ),
        Panel(
            "Time per output token",
            "Between tokens, after the first.",
            "s",
            percentiles("synapse_time_per_output_token_seconds", THIS),
        ),
        Panel(
            "Duration",
            "From the last byte of the request to the last of the answer.",
            "s",
            percentiles("synapse_request_duration_seconds", THIS),
        ),
        Panel(
            "First token by backend",
            "The slowest stream in twenty.",
            "s",
            (
                Query(
                    quantile(0.95, "synapse_time_to_first_token_seconds", "backend", THIS),
                    "{{backend}}",
                ),
            ),
        ),
        Panel(
            "Tokens",
            "in: prompts; out: answers.",
            "suffix: tokens/s",
            (
                Query(
                    per_second("synapse_tokens_total", "backend, direction", THIS),
                    "{{backend}} {{direction}}",
                ),
            ),
        ),
        Panel(
            "Time in the queue",
            "Before a target was free.",
            "s",
            percentiles("synapse_queue_wait_seconds", THIS),
        ),
    ),
)

WHO = Row(
    "Who serves it",
    (
        Panel(
            "Requests by backend",
            "none: no backend was asked.",
            "reqps",
            (Query(per_second("synapse_requests_total", "backend", THIS), "{{backend}}"),),
            stacked=True,
        ),
        Panel(
            "Requests by code",
            "What callers got.",
            "reqps",
            (Query(per_second("synapse_requests_total", "code", THIS), "{{code}}"),),
            stacked=True,
        ),
        Panel(
            "Fallbacks",
            "Why another than the first choice answered.",
            "reqps",
            (
                Query(
                    per_second("synapse_fallbacks_total", "backend, reason", THIS),
                    "{{reason}}, served by {{backend}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Attempts",
            "By backend and how they ended.",
            "reqps",
            (
                Query(
                    per_second("synapse_attempts_total", "backend, outcome", THIS),
                    "{{backend}}: {{outcome}}",
                ),
            ),
        ),
        Panel(
            "Breaker",
            "The worst replica's view.",
            "none",
            (
                Query(
                    f"max by (backend) (synapse_breaker_state{{{NAMESPACE}, {THIS}}})",
                    "{{backend}}",
                ),
            ),
            top=2,
            names=((0, "closed"), (1, "half-open"), (2, "open")),
        ),
        Panel(
            "Under way and waiting",
            "Requests at each backend, and in the gateway's queue.",
            "none",
            (
                Query(
                    f"sum by (backend) (synapse_in_flight{{{NAMESPACE}, {THIS}}})", "{{backend}}"
                ),
                Query(f"sum(synapse_queue_length{{{NAMESPACE}, {THIS}}})", "queue"),
            ),
        ),
        Panel(
            "State",
            "hot: loaded; warm: asleep with its weights in memory; cold: not loaded.",
            "none",
            (
                Query(
                    f"max by (backend, state) (synapse_model_state{{{NAMESPACE}, {THIS}}}) == 1",
                    "{{backend}}: {{state}}",
                ),
            ),
            width=12,
        ),
        Panel(
            "Cut streams",
            "Streams that ended early, with an error in band.",
            "reqps",
            (
                Query(
                    per_second("synapse_cut_streams_total", "backend, reason", THIS),
                    "{{backend}}: {{reason}}",
                ),
            ),
            width=12,
        ),
    ),
)

PAGE = Page(
    "synapse-model",
    "Synapse / Model",
    "One model: speed, failover and who serves it.",
    (SPEED, WHO),
    (NAMESPACES, MODELS),
)
