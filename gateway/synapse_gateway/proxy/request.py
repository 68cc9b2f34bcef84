"""A request as the proxy needs it: parsed, allowed, and resolved to a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_gateway.backends.base import Capability
    from synapse_gateway.proxy.body import Body
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.proxy.readers import SoundReader, StreamReader
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.outcome import Outcome
    from synapse_gateway.routing.table import Candidate, ModelRoute, Plan
    from synapse_gateway.telemetry.record import RequestRecord


class Form(msgspec.Struct, weakref=False):
    """How a request is put to a backend, and how its answer is read."""

    path: str
    """The gateway's path; the adapter knows the backend's."""
    body_for: Callable[[str], bytes | Body]
    """Body for a model's name at a backend (empty: as the caller wrote it)."""
    dialect: Callable[[], Dialect] | None
    """Of a streamed answer; None passes any stream on as it is."""
    expects_json: bool = True
    """Whether an answer that is not streamed is JSON."""
    sound: Callable[[int], SoundReader] | None = None
    """Makes the reader of an answer that is a WAV file of which the caller gets the samples, from
    the bytes that are held back while a cut can still be followed by another attempt."""
    reader: Callable[[Dialect, int], StreamReader] | None = None
    """Makes the reader of a streamed answer from its dialect and the largest event allowed, where
    it is not the plain one."""
    whole: Callable[[bytes], bytes] | None = None
    """Changes an answer that is not streamed."""
    refused: Callable[[int, bytes], bytes] | None = None
    """Changes the body of a backend's error answer."""
    error_event: Callable[[dict[str, Any]], bytes] | None = None
    """Renders an error in band, where it is not the dialect's way."""
    content_type: bytes | None = None
    """Of the answer, where it is not the backend's."""
    voice: bytes | None = None
    """Voice that speaks, where the backend's own header is not to tell it."""
    media: tuple[bytes, ...] = ()
    """What the content type of a good answer begins with; any will do where there is none."""
    hold: int = 0
    """Bytes of an answer of other kinds than JSON and events that are held back until there are
    more, so that one that breaks off before can still be followed by another."""
    strip_usage: bool = False


class ProxyRequest(msgspec.Struct, weakref=False):
    """One request."""

    record: RequestRecord
    capability: Capability
    route: ModelRoute
    form: Form
    headers: bytes
    """Header lines that are passed on, each with its CRLF, the content type among them."""
    stream: bool
    deadline: float
    """Monotonic seconds when the caller gets a time-out."""
    priority: int = 5
    affinity: int | None = None
    session: bool = False
    plan: Plan | None = None
    """Candidates, where they are not all those of the route that can do it."""
    particular: bool = False
    """Whether no other target of the route will do, however long those of the plan are busy."""
    choose_form: Callable[[BackendState], Form] | None = None
    """How a backend is asked, where not all are asked as `form` says."""
    provide: Callable[[Candidate], Awaitable[Outcome]] | None = None
    """Gives a backend the voice that it says it lacks; what went wrong where that failed."""
    extra_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Put on the answer."""
    otherwise: bytes | None = None
    """The answer where no backend can give one: what was asked for is so without it."""

    def form_for(self, candidate: Candidate) -> Form:
        """Return how this candidate is asked."""
        if self.choose_form is None:
            return self.form
        return self.choose_form(candidate.state.backend)
