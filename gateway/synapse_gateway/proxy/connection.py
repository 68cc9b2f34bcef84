"""One HTTP/1.1 connection to a backend (RFC 9112), driven by callbacks.

The parser is llhttp in its strict mode: both a length and a transfer coding, a bad chunk size or a
second message behind the first end the connection instead of being guessed at.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import TYPE_CHECKING, Protocol, cast

import httptools

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.proxy.body import Body
    from synapse_gateway.proxy.outbox import Outbox

_log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024
"""Status line and headers of a response; a larger head is malformed."""

Headers = list[tuple[bytes, bytes]]
"""Names in lower case."""


class Broken(enum.Enum):
    """Why a response will never be whole."""

    STALE = "an idle connection was closed as it was taken; the request was not read"
    RESET = "closed before the first byte of the response"
    CUT = "closed within the response"
    MALFORMED = "not HTTP"
    UNREADABLE = "the request's own body could not be read"


class Receiver(Protocol):
    """What an exchange on a connection calls; nothing is called after `on_end` or `on_broken`."""

    def on_head(self, status: int, headers: Headers) -> None:
        """Take the head of the final response."""

    def on_body(self, data: bytes) -> None:
        """Take the next bytes of the body, as they arrived."""

    def relay(self, raw: bytes) -> bool:
        """Take a read of the body that begins at the beginning of a chunk, if that is simple.

        Returns:
            Whether it was; if not, what is in the read comes by the other callbacks.
        """

    def on_chunks(self, raw: bytes, chunks: list[bytes]) -> None:
        """Take the next bytes of the body, as they arrived in whole chunks.

        Args:
            raw: The chunks as they came, with their framing.
            chunks: What is in them.
        """

    def on_end(self) -> None:
        """The response is whole."""

    def on_broken(self, why: Broken) -> None:
        """The response will never be whole."""


class UpstreamConnection(asyncio.Protocol):
    """A connection, idle or with one request under way.

    Args:
        on_idle: Called when it can take another request.
        on_closed: Called when it is gone.
        outbox: Writes the requests.
    """

    __slots__ = (
        "_chunk_over",
        "_finished",
        "_head_bytes",
        "_head_complete",
        "_headers",
        "_informational",
        "_keep_alive",
        "_on_closed",
        "_on_idle",
        "_outbox",
        "_parser",
        "_paused",
        "_poisoned",
        "_posted",
        "_receiver",
        "_seen",
        "_sending",
        "_transport",
        "_until_eof",
        "_writable",
        "closed",
        "idle_since",
        "used",
    )

    def __init__(
        self,
        on_idle: Callable[[UpstreamConnection], None],
        on_closed: Callable[[UpstreamConnection], None],
        outbox: Outbox,
    ) -> None:
        self._on_idle = on_idle
        self._on_closed = on_closed
        self._outbox = outbox
        self._posted = 0
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set when made
        self._receiver: Receiver | None = None
        self.closed = False
        self.used = False
        self.idle_since = 0.0
        self._reset()
        self._paused = False
        self._poisoned = False
        self._headers: Headers = []
        self._sending: asyncio.Task[None] | None = None
        self._writable: asyncio.Event | None = None

    def _reset(self) -> None:
        self._seen = False
        self._head_bytes = 0
        self._head_complete = False
        self._informational = False
        self._keep_alive = False
        self._until_eof = False
        self._finished = False
        self._chunk_over = False

    # what an exchange calls

    @property
    def usable(self) -> bool:
        """Whether a request can be sent on it, as far as this side knows."""
        return not self.closed and not self._transport.is_closing()

    def send(self, head: bytes, body: bytes | Body, receiver: Receiver) -> None:
        """Send a request; the receiver hears of the response.

        Args:
            head: Request line and headers, the empty line included.
            body: As many bytes as the head promises.
            receiver: Called back until the response has ended in some way.
        """
        self._receiver = receiver
        self._reset()
        self._headers = []
        self._posted = self._outbox.turn
        if not isinstance(body, bytes):
            self._outbox.post(self._transport, head)
            self._writable = asyncio.Event()
            self._writable.set()
            # its first step comes after the flush of this turn
            self._sending = asyncio.get_running_loop().create_task(self._send_pieces(body))
        elif len(body) < 65536:
            self._outbox.post(self._transport, head + body)
        else:
            self._outbox.post(self._transport, head)
            self._outbox.post(self._transport, body)

    def abort(self) -> None:
        """Close at once, whatever is under way; the receiver hears nothing more."""
        self._receiver = None
        self._shut()

    def leave(self, receiver: Receiver) -> None:
        """Give up this receiver's request if it is under way.

        A connection whose answer was read whole stays open, and may be another's by now.
        """
        if self._receiver is receiver:
            self.abort()

    def pause(self, receiver: Receiver) -> None:
        """Stop reading, so that the backend feels a slow caller.

        A connection whose answer was read whole goes on: it may be another's by now.
        """
        if self._receiver is receiver and not self.closed:
            self._paused = True
            self._transport.pause_reading()

    def resume(self, receiver: Receiver) -> None:
        """Read on."""
        if self._receiver is receiver and not self.closed:
            self._read_on()

    def _read_on(self) -> None:
        self._paused = False
        self._transport.resume_reading()

    async def _send_pieces(self, body: Body) -> None:
        """Write a body, never more of it than the backend takes."""
        writable = self._writable
        assert writable is not None  # noqa: S101 - set with the task
        at, length = 0, body.length
        try:
            while at < length:
                piece = await body.read(at)
                at += len(piece)
                self._transport.write(piece)
                await writable.wait()
        except OSError:
            _log.exception("the body of a request could not be read")
            self._sending = None
            self._break(Broken.UNREADABLE)
        else:
            self._sending = None

    # asyncio.Protocol

    def pause_writing(self) -> None:
        """The backend takes a body slower than it is sent."""
        if self._writable is not None:
            self._writable.clear()

    def resume_writing(self) -> None:
        """The backend has caught up."""
        if self._writable is not None:
            self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Parse; finish the exchange only when nothing follows the response."""
        receiver = self._receiver
        if receiver is None:
            self._shut()
            return
        if self._chunk_over:
            if receiver.relay(data):
                return
            chunks = whole_chunks(data)
            if chunks is not None:
                receiver.on_chunks(data, chunks)
                return
        elif not self._seen:
            if self._posted == self._outbox.turn:
                # the request has not left yet: whatever this answers, it is not that
                self._break(Broken.STALE if self.used else Broken.MALFORMED)
                return
            self._seen = True
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._poisoned = True
        except httptools.HttpParserUpgrade:
            self._finished = False
            self._poisoned = True
        if self._chunk_over and not data.endswith(b"\r\n"):
            # the read ends within the next chunk's size
            self._chunk_over = False
        if self._finished:
            self._finish()
        elif self._poisoned:
            self._break(Broken.MALFORMED)
        elif not self._head_complete:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._break(Broken.MALFORMED)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say what that means for the response under way."""
        self.closed = True
        self._stop_sending()
        # it refers back to this, and so only the collector could free the two
        del self._parser
        receiver = self._receiver
        if receiver is not None:
            self._receiver = None
            if self._head_complete and self._until_eof and exc is None:
                receiver.on_end()
            elif self._seen:
                receiver.on_broken(Broken.CUT)
            else:
                receiver.on_broken(Broken.STALE if self.used else Broken.RESET)
        self._on_closed(self)

    # httptools

    def on_message_begin(self) -> None:
        """Notice a message behind the end of the response."""
        if self._finished:
            self._poisoned = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header (or a trailer, which nobody reads)."""
        if not self._head_complete:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Hand over the head, unless it is an interim response (RFC 9110, 15.2)."""
        if self._finished:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._informational = True
            return
        self._head_complete = True
        self._keep_alive = self._parser.should_keep_alive()
        if not self._keep_alive:
            self._until_eof = not any(
                name in (b"content-length", b"transfer-encoding") for name, _ in self._headers
            )
        if self._receiver is not None:  # pragma: no branch - nobody leaves before the head
            self._receiver.on_head(status, self._headers)

    def on_body(self, body: bytes) -> None:
        """Hand over a part of the body."""
        if self._receiver is not None and not self._finished:
            self._receiver.on_body(body)

    def on_chunk_header(self) -> None:
        """Note that the parser is within a chunk."""
        self._chunk_over = False

    def on_chunk_complete(self) -> None:
        """Note that it is behind one, its CRLF included."""
        self._chunk_over = True

    def on_message_complete(self) -> None:
        """Note the end of the response; `data_received` acts on it when the read is parsed."""
        if self._informational:
            self._informational = False
            self._headers = []
        else:
            self._finished = True

    # endings

    def _finish(self) -> None:
        receiver = self._receiver
        self._receiver = None
        self.used = True
        if (
            self._keep_alive
            and not self._poisoned
            and not self.closed
            # answered before it was read whole: what is left would stand before the next request
            and self._sending is None
            and not self._transport.get_write_buffer_size()
        ):
            if self._paused:
                # the last bytes were more than the caller took at once; the next one may be faster
                self._read_on()
            self._on_idle(self)
        else:
            self._shut()
        if receiver is not None:
            receiver.on_end()

    def _break(self, why: Broken) -> None:
        receiver = self._receiver
        self._receiver = None
        self._shut()
        if receiver is not None:
            receiver.on_broken(why)

    def _shut(self) -> None:
        self._stop_sending()
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def _stop_sending(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None


def whole_chunks(data: bytes) -> list[bytes] | None:
    """Take apart a read that is whole chunks, each with its size as most write it: in lower case,
    without zeros in front, without an extension.

    Args:
        data: What begins at the beginning of a chunk.

    Returns:
        What is in them; None if it is anything else, the last chunk included, or may be.
    """
    parts = data.split(b"\r\n")
    if len(parts) % 2 == 0 or parts.pop():
        return None
    chunks = parts[1::2]
    for size, chunk in zip(parts[::2], chunks, strict=True):
        # a CRLF within a chunk makes it seem shorter than its size
        if not chunk or size != b"%x" % len(chunk):
            return None
    return chunks
