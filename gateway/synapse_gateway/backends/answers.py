"""What adapters share: sending a probe's requests, and reading the JSON of answers and errors.

Nothing here raises on what a backend sends: a field that is missing or of another type is as good
as none.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from synapse_gateway.backends.base import DiscoveredModel, Probe, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_gateway.backends.base import Http, Reply

MAX_MODELS = 2000
"""Models of one backend that are taken over; a list without end must not fill the memory."""
EXTRA_TIMEOUT = 1.5
"""Seconds that a probe waits for what it can do without."""
MAX_TEXT = 200
"""Characters of a backend's own words that are kept."""


class Unreachable(Exception):
    """The backend gave no answer; the text is fit to be shown and names no address."""


async def ask(http: Http, path: str, *, timeout: float = 5.0) -> Reply:
    """Send a GET.

    Raises:
        Unreachable: No answer came.
    """
    try:
        return await http.request("GET", path, timeout=timeout)
    except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
        raise Unreachable(describe(error)) from error


async def ask_if_there(http: Http, path: str) -> Reply | None:
    """Send a GET for something that the backend may not have; None unless it answers 200."""
    try:
        reply = await ask(http, path, timeout=EXTRA_TIMEOUT)
    except Unreachable:
        return None
    return reply if reply.status == 200 else None


def describe(error: BaseException) -> str:
    """Say in a few words why there was no answer."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    return "connection failed"


_WORDS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "connection refused"),
    (ConnectionResetError, "connection reset"),
    (BrokenPipeError, "connection reset"),
    (asyncio.IncompleteReadError, "connection closed in the middle of the answer"),
    (TimeoutError, "no answer in time"),
    (socket.gaierror, "name does not resolve"),
    (ssl.SSLError, "TLS failed"),
)


def down(reply: Reply) -> Probe:
    """Return the probe of a backend whose health path did not answer 200."""
    said = error_of(reply.body).message
    words = "refuses the gateway's key" if reply.status in (401, 403) else "answers"
    detail = f"{words} with status {reply.status}"
    return Probe(up=False, status=reply.status, detail=f"{detail}: {said}" if said else detail)


def parse(body: bytes) -> Any:
    """Decode JSON; None if it is none."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def mapping(value: Any) -> dict[str, Any]:
    """Return the value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of a list."""
    if not isinstance(value, list):
        return []
    return [item for item in value[:MAX_MODELS] if isinstance(item, dict)]


def number(value: Any) -> int | None:
    """Return a JSON number that is a count, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**62:
        return None
    return int(value)


def text(value: Any) -> str:
    """Return a short JSON string, else an empty one."""
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def time(value: Any) -> str:
    """Return a JSON string that is a time in RFC 3339, else an empty one."""
    try:
        datetime.fromisoformat(text(value))
    except ValueError:
        return ""
    return text(value)


def openai_models(body: bytes, context: str = "") -> tuple[DiscoveredModel, ...]:
    """Read an OpenAI list of models.

    Args:
        body: The answer of `/v1/models`.
        context: Field of each model that holds its context in tokens, if the backend has one.
    """
    return tuple(
        DiscoveredModel(
            id=item["id"],
            context=number(item.get(context)) if context else None,
        )
        for item in items(mapping(parse(body)).get("data"))
        if isinstance(item.get("id"), str) and item["id"]
    )


class BackendError(NamedTuple):
    """The fields of an error body, as far as there are any."""

    message: str
    kind: str
    code: str


def error_of(body: bytes) -> BackendError:
    """Read an error body in any of the shapes that backends use.

    `{"error": {"message", "type", "code"}}` (OpenAI), `{"error": "text"}` (Ollama),
    `{"object": "error", "message", "type", "code"}` (older vLLM, SGLang),
    `{"detail": "text"}` (FastAPI).
    """
    whole = mapping(parse(body))
    inner = whole.get("error")
    if isinstance(inner, str):
        return BackendError(inner[:4096], "", "")
    fields = inner if isinstance(inner, dict) else whole
    message = fields.get("message") or fields.get("detail")
    return BackendError(
        message[:4096] if isinstance(message, str) else "",
        text(fields.get("type")),
        str(fields.get("code") or "")[:MAX_TEXT],
    )


def common_refusal(error: BackendError) -> Refusal | None:
    """Say what the `code` of OpenAI's own reference means."""
    return _CODES.get(error.code)


def says(error: BackendError, phrases: Iterable[str]) -> bool:
    """Say whether the message holds one of the phrases, letter case ignored."""
    lower = error.message.lower()
    return any(phrase in lower for phrase in phrases)


_CODES = {
    "context_length_exceeded": Refusal.CONTEXT_EXCEEDED,
    "model_not_found": Refusal.MODEL_NOT_FOUND,
    "invalid_api_key": Refusal.CREDENTIALS,
    "voice_not_found": Refusal.VOICE_NOT_FOUND,
}
