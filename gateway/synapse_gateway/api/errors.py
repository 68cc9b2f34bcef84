"""The one place where an error becomes an answer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from synapse_gateway.errors import RequestError
    from synapse_gateway.proxy.connection import Headers


def render(error: RequestError, path: str) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of an error answer.

    Args:
        error: What happened.
        path: Which API the caller speaks: Ollama's clients read a string, Anthropic's a `type`
            beside the object that OpenAI's read.
    """
    headers: Headers = [(b"content-type", b"application/json")]
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % math.ceil(error.retry_after)))
    return error.status, headers, msgspec.json.encode(error_body(error, path))


def error_body(error: RequestError, path: str) -> dict[str, Any]:
    """Return the body of an error answer as plain values."""
    if path.startswith("/api/"):
        return {"error": error.message}
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": error.as_object()}
    return {"error": error.as_object()}
