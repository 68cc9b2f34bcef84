"""Errors of Ollama's API, and errors of other APIs in its words.

Every error of Ollama is `{"error": "sentence"}` with a status (docs/api/errors.mdx of Ollama
0.17.4); in a stream that has begun it is a line of that shape, and no line with `done: true`
follows.
"""

from __future__ import annotations

from typing import Any

import msgspec

_encode = msgspec.json.encode


class OllamaRequestError(ValueError):
    """A request of Ollama's API that cannot be translated.

    Attributes:
        field: Where in the body the fault is, such as `options.temperature`; empty for all of it.
        sentence: What is wrong and what would be right.
        status: HTTP status that Ollama answers.
    """

    def __init__(self, field: str, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.field = field
        self.sentence = sentence
        self.status = status

    @property
    def body(self) -> bytes:
        """The answer's body."""
        return error_body(self.sentence)


class UntranslatableReply(ValueError):
    """An answer or event of a backend that is not what OpenAI's reference describes.

    The gateway's fault table counts it like a malformed event; the text names no backend.
    """


def error_body(message: str) -> bytes:
    """Return `{"error": message}`, the body of every error of Ollama."""
    return _encode({"error": message})


def error_line(message: str) -> bytes:
    """Return the line that ends a stream after a fault."""
    return error_body(message) + b"\n"


def message_of(error: Any) -> str:
    """Return the sentence of the `error` of an OpenAI answer, whatever shape it has."""
    if isinstance(error, dict):
        error = error.get("message")
    return error if isinstance(error, str) and error else "the model failed to answer"


def error_from_openai(body: bytes) -> bytes:
    """Return the body of an error answer in Ollama's shape; the status stays as it is."""
    try:
        value = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        value = None
    return error_body(message_of(value.get("error") if isinstance(value, dict) else None))


def unknown_model(path: str, model: str) -> OllamaRequestError:
    """Return what Ollama answers on `path` for a model that it does not have.

    Recorded: chat_unknown_model, embeddings_unknown_model, embed_unknown_model, show_unknown_model.
    """
    if path in {"/api/embed", "/api/embeddings"}:
        return OllamaRequestError("model", f'model "{model}" not found, try pulling it first', 404)
    return OllamaRequestError("model", f"model '{model}' not found", 404)
