"""Ollama's API for models whose backend speaks OpenAI's.

Pure translation, no I/O: `to_openai` turns a request, `from_openai` and `StreamTranslator` turn the
answer, `catalog` lists the models. Follows Ollama 0.17.4, its docs/api.md and what it was recorded
to answer (gateway/tests/exchanges/).
"""

from synapse_gateway.ollama_api.errors import (
    OllamaRequestError,
    UntranslatableReply,
    error_body,
    error_from_openai,
    error_line,
    unknown_model,
)
from synapse_gateway.ollama_api.requests import OnlyOllamaCan, Reply, Translated, to_openai
from synapse_gateway.ollama_api.responses import (
    JSON,
    NDJSON,
    Clock,
    StreamTranslator,
    from_openai,
    immediate_reply,
)

__all__ = [
    "JSON",
    "NDJSON",
    "Clock",
    "OllamaRequestError",
    "OnlyOllamaCan",
    "Reply",
    "StreamTranslator",
    "Translated",
    "UntranslatableReply",
    "error_body",
    "error_from_openai",
    "error_line",
    "from_openai",
    "immediate_reply",
    "to_openai",
    "unknown_model",
]
