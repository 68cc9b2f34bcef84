"""One backend, as the gateway sees it and, for engines that tell, as it sees itself."""

from __future__ import annotations

from .overview import BACKENDS
from .page import (
    NAMESPACE,
    NAMESPACES,
    Page,
    Panel,
    Query,
    Row,
    Threshold,
    per_second,
    quantile,
)

THIS = 'backend="$backend"'

HEALTH = Row(
    "Health",
    (
        Panel(
            "Up",
            "Whether the backend answered the last probe.",
            "none",
            (Query(f"max(synapse_backend_up{{{NAMESPACE}, {THIS}}})"),),
            kind="stat",
            width=4,
            thresholds=(Threshold(0, "red"), Threshold(1, "green")),
            names=((0, "down"), (1, "up")),
        ),
        Panel(
            "Breaker",
            "0 closed, 1 half-open, 2 open; the worst replica's view of each model.",
            "none",
            (Query(f"max by (model) (synapse_breaker_state{{{NAMESPACE}, {THIS}}})", "{{model}}"),),
            width=10,
            top=2,
            names=((0, "closed"), (1, "half-open"), (2, "open")),
        ),
        Panel(
            "Attempts by outcome",
            "How the gateway's attempts here ended.",
            "reqps",
            (Query(per_second("synapse_attempts_total", "outcome", THIS), "{{outcome}}"),),
            width=10,
            stacked=True,
        ),
        Panel(
            "Configuration errors",
            "Models it does not know, and the gateway's own key refused.",
            "reqps",
            (
                Query(per_second("synapse_misrouted_total", "model", THIS), "{{model}} not known"),
                Query(
                    per_second("synapse_backend_auth_failures_total", "backend", THIS),
                    "key refused",
                ),
            ),
        ),
        Panel(
            "Cut streams",
            "Streams that ended early, with an error in band.",
            "reqps",
            (
                Query(
                    per_second("synapse_cut_streams_total", "model, reason", THIS),
                    "{{model}}: {{reason}}",
                ),
            ),
        ),
        Panel(
            "Models",
            "How many are hot (loaded), warm (asleep) and cold (not loaded).",
            "none",
            (
                Query(
                    "sum by (state) (max by (model, state) "
                    f"(synapse_model_state{{{NAMESPACE}, {THIS}}}))",
                    "{{state}}",
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
            "Under way",
            "Requests of all replicas at this backend, by model.",
            "none",
            (Query(f"sum by (model) (synapse_in_flight{{{NAMESPACE}, {THIS}}})", "{{model}}"),),
            stacked=True,
        ),
        Panel(
            "Its own queue",
            "Requests that wait inside the backend, where it tells.",
            "none",
            (Query(f"max(synapse_backend_waiting{{{NAMESPACE}, {THIS}}})", "waiting"),),
        ),
        Panel(
            "Requests by model",
            "Requests that this backend answered last.",
            "reqps",
            (Query(per_second("synapse_requests_total", "model", THIS), "{{model}}"),),
            stacked=True,
        ),
        Panel(
            "Duration",
            "The slowest request in twenty, by model.",
            "s",
            (
                Query(
                    quantile(0.95, "synapse_request_duration_seconds", "model", THIS),
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Time to first token",
            "The slowest stream in twenty, by model.",
            "s",
            (
                Query(
                    quantile(0.95, "synapse_time_to_first_token_seconds", "model", THIS),
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Tokens",
            "in: prompts; out: answers.",
            "suffix: tokens/s",
            (
                Query(
                    per_second("synapse_tokens_total", "model, direction", THIS),
                    "{{model}} {{direction}}",
                ),
            ),
        ),
    ),
)

LLAMA_CPP = Row(
    "llama.cpp servers (all of the namespace)",
    (
        Panel(
            "Slots and queue",
            "Requests in a slot, and those that wait for one.",
            "none",
            (
                Query(
                    f"sum by (pod) (llamacpp:requests_processing{{{NAMESPACE}}})", "{{pod}} slots"
                ),
                Query(
                    f"sum by (pod) (llamacpp:requests_deferred{{{NAMESPACE}}})", "{{pod}} waiting"
                ),
            ),
        ),
        Panel(
            "Tokens computed",
            "Prompt tokens read and tokens predicted.",
            "suffix: tokens/s",
            (
                Query(per_second("llamacpp:prompt_tokens_total", "pod"), "{{pod}} prompt"),
                Query(per_second("llamacpp:tokens_predicted_total", "pod"), "{{pod}} predicted"),
            ),
        ),
        Panel(
            "Busy slots",
            "Slots that are decoded together, on average.",
            "none",
            (Query(f"avg by (pod) (llamacpp:n_busy_slots_per_decode{{{NAMESPACE}}})", "{{pod}}"),),
        ),
    ),
)

AUDIO = Row(
    "Speech and audio servers of the namespace",
    (
        Panel(
            "Requests",
            "By server and status; probes of /health are left out.",
            "reqps",
            (
                Query(
                    per_second(
                        "synapse_backend_requests_total", "service, status", 'route!="/health"'
                    ),
                    "{{service}}: {{status}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Duration by route",
            "The slowest request in twenty, by server and route.",
            "s",
            (
                Query(
                    quantile(0.95, "synapse_backend_request_duration_seconds", "service, route"),
                    "{{service}} {{route}}",
                ),
            ),
            width=6,
        ),
        Panel(
            "Under way and queued",
            "Requests being answered or waiting, and those of them that wait for a slot.",
            "none",
            (
                Query(
                    f"sum by (service) (synapse_backend_requests_in_flight{{{NAMESPACE}}})",
                    "{{service}} under way",
                ),
                Query(
                    f"sum by (service) (synapse_backend_requests_queued{{{NAMESPACE}}})",
                    "{{service}} queued",
                ),
            ),
            width=6,
        ),
        Panel(
            "Refused",
            "Requests refused because every slot and the queue were full.",
            "reqps",
            (
                Query(
                    per_second("synapse_backend_requests_rejected_total", "service"),
                    "{{service}}",
                ),
            ),
            width=6,
        ),
    ),
)

LITELLM = Row(
    "LiteLLM, where it is an engine",
    (
        Panel(
            "Deployment state",
            "0 healthy, 1 partial outage, 2 complete outage.",
            "none",
            (
                Query(
                    "max by (litellm_model_name, api_base) "
                    f"(litellm_deployment_state{{{NAMESPACE}}})",
                    "{{litellm_model_name}} at {{api_base}}",
                ),
            ),
            width=12,
            top=2,
            names=((0, "healthy"), (1, "partial outage"), (2, "complete outage")),
        ),
        Panel(
            "Calls and failures",
            "LiteLLM's calls to its deployments.",
            "reqps",
            (
                Query(
                    per_second("litellm_deployment_total_requests_total", "litellm_model_name"),
                    "{{litellm_model_name}} calls",
                ),
                Query(
                    per_second("litellm_deployment_failure_responses_total", "litellm_model_name"),
                    "{{litellm_model_name}} failures",
                ),
            ),
            width=12,
        ),
    ),
)

PAGE = Page(
    "synapse-backend",
    "Synapse / Backend",
    "One backend: health, load and speed.",
    (HEALTH, LOAD, LLAMA_CPP, AUDIO, LITELLM),
    (NAMESPACES, BACKENDS),
)
