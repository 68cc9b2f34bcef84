"""Ollama, which has no metrics of its own: what the gateway reads from its /api/ps."""

from __future__ import annotations

from .page import NAMESPACE, NAMESPACES, Page, Panel, Query, Row, Variable, per_second, quantile

THIS = 'backend=~"$backend"'
OLLAMAS = Variable(
    "backend",
    "Ollama",
    f"label_values(synapse_backend_model_bytes{{{NAMESPACE}}}, backend)",
    many=True,
)
SIZE = f"max by (backend, model) (synapse_backend_model_bytes{{{NAMESPACE}, {THIS}}})"
VRAM = f"max by (backend, model) (synapse_backend_model_vram_bytes{{{NAMESPACE}, {THIS}}})"

MEMORY = Row(
    "Loaded models",
    (
        Panel(
            "Loaded",
            "Models in memory now.",
            "none",
            (Query(f"count by (backend) ({SIZE})", "{{backend}}"),),
            kind="stat",
            width=4,
        ),
        Panel(
            "Memory by model",
            "Weights and context of each loaded model.",
            "bytes",
            (Query(SIZE, "{{model}} on {{backend}}"),),
            width=10,
            stacked=True,
        ),
        Panel(
            "Share in VRAM",
            "1: all on the GPU; 0: all on the CPU; between: split, and about as slow as the CPU.",
            "percentunit",
            (Query(f"{VRAM} / {SIZE}", "{{model}} on {{backend}}"),),
            width=10,
            top=1,
        ),
        Panel(
            "State",
            "Models that are hot (loaded) and cold (on disk only).",
            "none",
            (
                Query(
                    "sum by (backend, state) (max by (backend, model, state) "
                    f"(synapse_model_state{{{NAMESPACE}, {THIS}}}))",
                    "{{backend}} {{state}}",
                ),
            ),
            width=12,
        ),
        Panel(
            "Loads and unloads",
            "How often models changed their state in the last hour: many changes mean that they "
            "push each other out of memory.",
            "none",
            (
                Query(
                    "sum by (backend) (max by (backend, model) (changes("
                    f'synapse_model_state{{{NAMESPACE}, {THIS}, state="hot"}}[1h])))',
                    "{{backend}}",
                ),
            ),
            width=12,
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Panel(
            "Requests by model",
            "Requests that Ollama answered.",
            "reqps",
            (
                Query(
                    per_second("synapse_requests_total", "backend, model", THIS),
                    "{{model}} on {{backend}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            "Time to first token",
            "The slowest stream in twenty; includes loading the model.",
            "s",
            (
                Query(
                    quantile(0.95, "synapse_time_to_first_token_seconds", "backend, model", THIS),
                    "{{model}} on {{backend}}",
                ),
            ),
        ),
        Panel(
            "Tokens out",
            "Tokens of answers.",
            "suffix: tokens/s",
            (
                Query(
                    per_second(
                        "synapse_tokens_total", "backend, model", f'{THIS}, direction="out"'
                    ),
                    "{{model}} on {{backend}}",
                ),
            ),
        ),
    ),
)

PAGE = Page(
    "synapse-ollama",
    "Synapse / Ollama",
    "Loaded models, their memory, and how much of it is on the GPU.",
    (MEMORY, TRAFFIC),
    (NAMESPACES, OLLAMAS),
)
