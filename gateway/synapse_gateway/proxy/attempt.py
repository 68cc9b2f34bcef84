"""One attempt: a request on one connection, from sending it to the end of the answer.

The head is held back until there is real content, so an attempt that fails before can be followed
by another unseen. Everything here runs in callbacks of the connection, so a chunk is on its way to
the caller before any task wakes; the exchange only waits for `done`.
"""

from __future__ import annotations

import enum
from time import monotonic
from typing import TYPE_CHECKING

from synapse_gateway.errors import Unavailable
from synapse_gateway.proxy.connection import Broken
from synapse_gateway.proxy.events import FIELD_BYTES, EventCutter, LineCutter, framed_event
from synapse_gateway.proxy.readers import Edges, SoundReader, StreamReader, WholeBody
from synapse_gateway.routing.outcome import Outcome, of_status

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from synapse_gateway.config.defaults import ResolvedTimeouts
    from synapse_gateway.config.settings import Limits
    from synapse_gateway.proxy.body import Body
    from synapse_gateway.proxy.caller import Caller
    from synapse_gateway.proxy.connection import Headers, UpstreamConnection
    from synapse_gateway.proxy.deadlines import Deadlines
    from synapse_gateway.proxy.request import Form, ProxyRequest
    from synapse_gateway.telemetry.record import AttemptRecord

AFTER_END = 1.0
"""Seconds that a body may take to end once its stream has said that it has."""

PASSED_ON = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"content-language",
        b"content-disposition",
        b"cache-control",
        b"request-id",
        b"openai-processing-ms",
    }
)
"""Headers of a backend that the caller sees: none of them tells where the backend is."""


VOICE = b"x-synapse-voice"
"""Header that says which voice speaks."""
_MAY_BE_EMPTY = frozenset({b"text/plain", b"application/x-subrip"})
_STREAMED = frozenset({b"text/event-stream", b"application/x-ndjson"})


class _Phase(enum.Enum):
    HEAD = 0
    REFUSED = 1
    """An error answer is being collected."""
    STREAM = 2
    WHOLE = 3
    """The body is held until it is whole."""
    OPAQUE = 4
    """The body is passed on as it is."""


class Attempt:
    """Receives the answer of one backend.

    Args:
        request: What is asked.
        form: How this backend is asked.
        caller: Who gets the answer.
        record: Filled as things happen.
        timeouts: Deadlines of this attempt.
        limits: Bounds.
        deadlines: Whoever looks at them.
        head: Makes the headers that go on the answer in front of the backend's.
    """

    def __init__(
        self,
        request: ProxyRequest,
        form: Form,
        caller: Caller,
        record: AttemptRecord,
        timeouts: ResolvedTimeouts,
        limits: Limits,
        deadlines: Deadlines,
        head: Callable[[], Headers],
    ) -> None:
        self.done: asyncio.Future[Outcome] = deadlines.loop.create_future()
        self._request = request
        self.form = form
        self._caller = caller
        self._record = record
        self._timeouts = timeouts
        self._limits = limits
        self._deadlines = deadlines
        self._head = head
        self._connection: UpstreamConnection | None = None
        self._phase = _Phase.HEAD
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._may_be_empty = False
        self._paused = False
        self._last = 0.0
        self.committed = False
        """Whether the caller has seen the head."""
        self.reader: StreamReader | SoundReader | None = None
        self.status = 0
        self.headers: Headers = []
        self.stale = False
        """Whether an idle connection turned out to be dead; nothing was asked then."""
        self.oversized = False
        """Whether an error answer was too large to be kept whole."""
        self._edges: Edges | None = None
        self._plain: Callable[[bytes], bool] | None = None
        """Reads an event that came alone, where events pass on as they are."""
        self._send: Callable[[bytes], None] | None = None
        """Sends such an event in the chunk that it came in, once the head is sent."""
        self._deadline = request.deadline

    @property
    def body(self) -> bytes:
        """What was held back: an error answer, for one."""
        return b"".join(self._held)

    def begin(self, connection: UpstreamConnection, head: bytes, body: bytes | Body) -> None:
        """Send the request."""
        self._connection = connection
        self._last = monotonic()
        self._deadline = min(self._deadline, self._record.started + self._timeouts.overall)
        self._caller.on_flow(self._pause, self._resume)
        connection.send(head, body, self)
        if not self.done.done():
            self._deadlines.add(self)

    def abandon(self) -> None:
        """Cancel the request at the backend: the caller has gone."""
        # `done` cannot tell whether there is something to cancel: cancelling who waits for a
        # future cancels the future
        self._release(whole=False)

    # the connection's callbacks

    def on_head(self, status: int, headers: Headers) -> None:
        """Decide how the body is read."""
        self._record.head = monotonic()
        self._record.status = self.status = status
        self.headers = headers
        if status >= 300:
            self._phase = _Phase.REFUSED
            return
        kind = b""
        for name, value in headers:
            if name == b"content-type":
                kind = value.partition(b";")[0].strip().lower()
            elif name == b"content-encoding" and value.lower() != b"identity":
                # it was asked not to: whoever takes it as it is may know what to do with it
                self._phase = _Phase.OPAQUE
                if self.form.refused is not None:
                    self._settle(Outcome.MALFORMED)
                return
        if self.form.media and not kind.startswith(self.form.media):
            self._settle(Outcome.MALFORMED)
            return
        # a recording in which nobody speaks has an empty transcript
        self._may_be_empty = status == 204 or kind in _MAY_BE_EMPTY
        self._phase = self._phase_of(kind)

    def _phase_of(self, kind: bytes) -> _Phase:
        form = self.form
        if form.sound is not None:
            self.reader = form.sound(0 if self._request.stream else self._limits.hold_bytes)
            return _Phase.STREAM
        # a stream that the translation did not ask for is not what it can translate
        readable = self._request.stream or form.refused is None
        if kind in _STREAMED and form.dialect is not None and readable:
            dialect = form.dialect()
            largest = self._limits.max_event_bytes
            if form.reader is not None:
                self.reader = form.reader(dialect, largest)
            else:
                cutter = EventCutter if kind == b"text/event-stream" else LineCutter
                reader = StreamReader(cutter(largest), dialect, strip_usage=form.strip_usage)
                self.reader = reader
                if cutter is EventCutter:
                    self._plain = reader.plain
            return _Phase.STREAM
        if form.expects_json or kind == b"application/json":
            return _Phase.WHOLE
        return _Phase.OPAQUE

    def on_body(self, data: bytes) -> None:
        """Take a part of the body."""
        if self._phase is _Phase.STREAM:
            self._on_stream(data)
            return
        self._last = monotonic()
        if self.committed:
            if self._edges is not None:
                self._edges.feed(data)
            self._record_bytes(data)
            self._caller.write(data)
        else:
            self._hold(data)
            self._look_at_held()

    def _look_at_held(self) -> None:
        """Pass on what need not be held, and what would be too much to hold."""
        too_much = self._held_bytes > self._limits.hold_bytes
        if self._phase is _Phase.REFUSED:
            if too_much:
                self.oversized = True
                self._settle(of_status(self.status))
        elif self._phase is _Phase.OPAQUE:
            if too_much or self._held_bytes > self.form.hold:
                self._commit()
        elif too_much and self.form.whole is None:
            self._phase = _Phase.OPAQUE
            self._edges = Edges(self.body)
            self._commit()

    def relay(self, raw: bytes) -> bool:
        """Pass on a read that is one event of content, as nearly every read of a stream is.

        It is what `on_chunks` comes to for such a read, at half the price.
        """
        if self._send is None or self._plain is None:
            return False
        data = framed_event(raw)
        if data is None or not self._plain(data):
            return False
        self._last = monotonic()
        self._request.record.bytes_out += FIELD_BYTES + len(data)
        self._send(raw)
        return True

    def on_chunks(self, raw: bytes, chunks: list[bytes]) -> None:
        """Take whole chunks of the body; those that pass as they are keep their framing."""
        reader = self.reader
        if reader is None or not self.committed:
            for chunk in chunks:
                if not self.done.done():
                    self.on_body(chunk)
            return
        passed: list[bytes] = []
        for chunk in chunks:
            passed.append(reader.feed(chunk))
            if reader.failure is not None:
                break
        if not reader.quiet:
            self._last = monotonic()
        self._request.record.bytes_out += sum(map(len, passed))
        if passed == chunks:
            self._caller.pass_on(raw, chunks)
        else:
            for out in filter(None, passed):
                self._caller.write(out)
            if reader.failure is not None:
                self._settle(reader.failure)

    def _on_stream(self, data: bytes) -> None:
        reader = self.reader
        assert reader is not None  # noqa: S101 - the phase says so
        out = reader.feed(data)
        if not reader.quiet:
            self._last = monotonic()
        if self.committed:
            if out:
                self._record_bytes(out)
                self._caller.write(out)
        elif out:
            self._hold(out)
        if reader.failure is not None:
            self._settle(self._failure_of(reader.failure))
        elif reader.content and not self.committed:
            self._commit()
        elif self._held_bytes > self._limits.max_event_bytes:
            self._settle(Outcome.MALFORMED)

    def on_end(self) -> None:
        """Take the end of a whole answer."""
        if self._phase is _Phase.STREAM:
            self._end_stream()
        elif self._phase is _Phase.REFUSED:
            self._settle(of_status(self.status))
        elif self.committed:
            if self._edges is not None:
                usage = self._edges.usage()
                self._request.record.tokens_in = usage.input
                self._request.record.tokens_out = usage.output
            self._caller.finish()
            self._settle(Outcome.OK)
        else:
            self._end_whole()

    def _end_stream(self) -> None:
        reader = self.reader
        assert reader is not None  # noqa: S101 - the phase says so
        rest = reader.end()
        if reader.failure is not None:
            self._settle(Outcome.CUT if self.committed else Outcome.EMPTY)
            return
        if not self.committed:
            self._commit()
        if rest:
            self._caller.write(rest)
        self._caller.finish()
        self._settle(Outcome.OK)

    def _end_whole(self) -> None:
        body = self.body
        request = self._request
        record = request.record
        if not body and not self._may_be_empty:
            self._settle(Outcome.EMPTY)
            return
        if self._phase is _Phase.WHOLE and body:
            whole = WholeBody(body)
            if whole.failure is not None:
                self._settle(whole.failure)
                return
            record.tokens_in = whole.tokens_in
            record.tokens_out = whole.tokens_out
            if self.form.whole is not None:
                try:
                    body = self.form.whole(body)
                except ValueError:
                    self._settle(Outcome.MALFORMED)
                    return
        now = monotonic()
        self._record.first_content = record.first_content = now
        record.bytes_out = len(body)
        self.committed = True
        self._caller.whole(self.status, self._answer_headers(), body)
        self._settle(Outcome.OK)

    def on_broken(self, why: Broken) -> None:
        """Take the news that the answer will never be whole."""
        if self._phase is _Phase.REFUSED:
            # the status is what the backend had to say; the rest of its page does not matter
            self._settle(of_status(self.status))
        elif self._said_all:
            self._end_stream()
        elif self.committed:
            self._settle(Outcome.CUT)
        elif why is Broken.MALFORMED:
            self._settle(Outcome.MALFORMED)
        elif why is Broken.UNREADABLE:
            self._release(whole=False)
            self.done.set_exception(
                Unavailable("The gateway cannot read its copy of the upload.", retry_after=1)
            )
        else:
            self.stale = why is Broken.STALE
            self._settle(Outcome.RESET if self._phase is _Phase.HEAD else Outcome.EMPTY)

    # inside

    @property
    def _said_all(self) -> bool:
        """Whether a stream has come to its end, if not its body."""
        return self.committed and self.reader is not None and self.reader.ended

    def _failure_of(self, failure: Outcome) -> Outcome:
        if self.committed:
            return failure
        return Outcome.ERROR_FIRST if failure is Outcome.ERROR_EVENT else Outcome.MALFORMED

    def _hold(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)

    def _record_bytes(self, data: bytes) -> None:
        self._request.record.bytes_out += len(data)

    def _commit(self) -> None:
        now = monotonic()
        record = self._request.record
        self._record.first_content = now
        record.first_content = record.first_content or now
        self.committed = True
        body = self.body
        self._held = []
        record.bytes_out += len(body)
        length = None
        if self._phase is _Phase.OPAQUE:
            for name, value in self.headers:
                if name == b"content-length":
                    length = int(value)
        self._caller.start(self.status, self._answer_headers(), length, body)
        if self._plain is not None:
            self._send = self._caller.sender()

    def _answer_headers(self) -> Headers:
        headers = self._head()
        changed = self.form.content_type
        voice = self.form.voice
        for pair in self.headers:
            if pair[0] in PASSED_ON and (changed is None or pair[0] != b"content-type"):
                headers.append(pair)
            elif pair[0] == VOICE and voice is None:
                voice = pair[1]
        if changed is not None:
            headers.append((b"content-type", changed))
        if voice is not None:
            headers.append((VOICE, voice))
        if self._phase is _Phase.STREAM and self._request.stream:
            # nginx and others in front would collect chunks otherwise
            headers.append((b"x-accel-buffering", b"no"))
        return headers

    def _pause(self) -> None:
        if not self._paused and self._connection is not None and not self.done.done():
            self._paused = True
            self._connection.pause(self)

    def _resume(self) -> None:
        if self._paused and self._connection is not None and not self.done.done():
            self._paused = False
            self._last = monotonic()
            self._connection.resume(self)

    def _due(self) -> float:
        """Return when the next deadline is over, as things stand."""
        timeouts = self._timeouts
        if self._paused:
            # a slow caller is no slow backend
            return self._deadline
        if self.committed:
            due = self._last + (AFTER_END if self._said_all else timeouts.between_tokens)
        elif self._request.stream:
            due = self._record.started + timeouts.first_token
        else:
            due = self._record.started + timeouts.first_byte
            if self._held_bytes:
                due = self._last + timeouts.between_tokens
        return min(due, self._deadline)

    def check(self, now: float) -> None:
        """End the attempt if it is overdue."""
        if now < self._due():
            return
        if self._phase is _Phase.REFUSED:
            # the status is known, and a refusal of the caller's request stays one
            self._settle(of_status(self.status))
        elif self._said_all:
            self._end_stream()
            self._leave()
        elif now >= self._request.deadline:
            self._settle(Outcome.DEADLINE)
        elif self.committed:
            self._settle(Outcome.DEADLINE if now >= self._deadline else Outcome.STALLED)
        else:
            self._settle(Outcome.FIRST_TOKEN_TIMEOUT)

    def _settle(self, outcome: Outcome) -> None:
        if self.done.done():
            return
        self._release(whole=outcome is Outcome.OK)
        self.done.set_result(outcome)

    def _release(self, *, whole: bool) -> None:
        self._record.ended = monotonic()
        self._record.last_byte = self._last
        self._deadlines.discard(self)
        if not whole:
            self._leave()

    def _leave(self) -> None:
        if self._connection is not None:
            self._connection.leave(self)
