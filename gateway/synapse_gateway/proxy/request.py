"""A request as the proxy needs it: parsed, allowed, and resolved to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.backends.base import Capability
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.proxy.readers import StreamReader
    from synapse_gateway.routing.table import ModelRoute
    from synapse_gateway.telemetry.record import RequestRecord


class Handling(msgspec.Struct, frozen=True):
    """How answers of one kind of route are read."""

    capability: Capability
    path: str
    """OpenAI path that backends are asked with (Ollama's for those that are passed through)."""
    dialect: Callable[[], Dialect] | None
    """Of a streamed answer; None passes any stream on as it is."""
    expects_json: bool = True
    """Whether an answer that is not streamed is JSON."""


class ProxyRequest(msgspec.Struct, weakref=False):
    """One request."""

    record: RequestRecord
    handling: Handling
    route: ModelRoute
    body_for: Callable[[str], bytes]
    """Body for a model's name at a backend (empty: as the caller wrote it)."""
    headers: bytes
    """Header lines that are passed on, each with its CRLF, the content type among them."""
    stream: bool
    deadline: float
    """Monotonic seconds when the caller gets a time-out."""
    priority: int = 5
    affinity: int | None = None
    session: bool = False
    reader: Callable[[Dialect], StreamReader] | None = None
    """Makes the reader of a streamed answer, where it is not the plain one."""
    whole: Callable[[bytes], bytes] | None = None
    """Changes an answer that is not streamed."""
    refused: Callable[[int, bytes], bytes] | None = None
    """Changes the body of a backend's error answer."""
    error_event: Callable[[dict[str, Any]], bytes] | None = None
    """Renders an error in band, where it is not the dialect's way."""
    strip_usage: bool = False
    extra_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Put on the answer."""
