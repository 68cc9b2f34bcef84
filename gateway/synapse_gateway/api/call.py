"""One request on the hot path: what the caller sent, and the way back to him."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from synapse_gateway.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from synapse_gateway.api.protocol import SynapseProtocol
    from synapse_gateway.auth.keys import Caller as Authenticated
    from synapse_gateway.proxy.connection import Headers


_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of zero."""
LINGER = 5.0
"""Seconds that a caller may pause within what was refused before he is cut off: closed at once, the
answer could be lost to a reset."""
LINGER_MOST = 30.0
"""Seconds that he may go on sending it in all."""


def header_lines(headers: Headers) -> bytes:
    """Return headers as they stand in a message, each with its CRLF."""
    return b"\r\n".join([*map(b": ".join, headers), b""])


def _nothing() -> None:
    pass


class _Unused:
    """Stands for uvicorn's message event, which only ASGI's `receive` waits for."""

    def set(self) -> None:
        pass


_UNUSED = _Unused()


class Call:
    """A request and the connection that it came on (`proxy.caller.Caller`).

    It takes the place of uvicorn's own cycle in the server's protocol, so its attributes without a
    docstring are the ones that uvicorn reads.

    Args:
        protocol: The caller's connection.
        path: Of the URL, without the query.
        headers: By name in lower case; the last of several of one name.
        keep_alive: Whether the connection can serve another request afterwards.
        takes_chunks: Whether the caller knows chunked bodies; one of HTTP/1.0 does not.
        uploads: Whether the body is taken as it arrives, by `receive`, and not kept here.
    """

    __slots__ = (
        "_body",
        "_chunked",
        "_complete",
        "_discard",
        "_ended",
        "_kept",
        "_pause",
        "_received",
        "_resume",
        "_started",
        "_take",
        "caller",
        "disconnected",
        "headers",
        "keep_alive",
        "limit",
        "message_event",
        "path",
        "protocol",
        "received",
        "refusal",
        "response_complete",
        "room",
        "status",
        "takes_chunks",
        "task",
        "uploads",
        "waiting_for_100_continue",
    )

    def __init__(
        self,
        protocol: SynapseProtocol,
        path: str,
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
        takes_chunks: bool = True,
        uploads: bool = False,
    ) -> None:
        self.protocol = protocol
        self.path = path
        self.headers = headers
        self.keep_alive = keep_alive
        self.takes_chunks = takes_chunks
        self.caller: Authenticated | None = None
        """Whose key it is, once that is known."""
        self.disconnected = False
        self.response_complete = False
        self.message_event = _UNUSED
        self.waiting_for_100_continue = False
        self.task: asyncio.Task[None] | None = None
        self.status = 0
        self.refusal: RequestError | None = None
        """Why the body was not read to its end."""
        self.received = 0
        """Bytes of the body so far."""
        self.limit = 0
        """Most bytes that its body may have."""
        self.room = 0
        """Most bytes that all bodies in memory may have together."""
        self.uploads = uploads
        self._body: bytes | bytearray = b""
        self._kept = 0
        self._take: Callable[[bytes], None] | None = None
        self._received: asyncio.Future[None] | None = None
        self._ended = False
        self._complete: asyncio.Event | None = None
        self._started = False
        self._discard = False
        self._chunked = True
        self._pause: Callable[[], None] = _nothing
        self._resume: Callable[[], None] = _nothing

    # the request

    @property
    def body(self) -> bytes:
        """The whole body."""
        return bytes(self._body)

    def take_body(self, data: bytes) -> None:
        """Keep a part of the body, or pass it on."""
        if self._discard:
            self.protocol.heard = True
            return
        self.received += len(data)
        if self._take is None:
            self._keep(data)
            if self.uploads:
                self.protocol.flow.pause_reading()
            return
        try:
            self._take(data)
        except RequestError as error:
            self.refuse_body(error)

    def _keep(self, data: bytes) -> None:
        if not self._body:
            self._body = data
        elif isinstance(self._body, bytearray):
            self._body += data
        else:
            self._body = bytearray(self._body) + data
        self._kept += len(data)
        self.protocol.gateway.kept_bytes += len(data)

    def refuse_body(self, error: RequestError) -> None:
        """Keep nothing more of the body; the answer will be this error."""
        self.refusal = error
        self._discard = True
        self._drop_body()
        if self._received is not None and not self._received.done():
            self._received.set_exception(error)

    async def receive(self, take: Callable[[bytes], None]) -> None:
        """Pass the body on as it arrives, and wait for its end.

        Args:
            take: Gets every part.

        Raises:
            RequestError: By which `take` or another refused a part.
        """
        self.ask_for_body()
        self._take = take
        first = self.body
        self._drop_body()
        if first:
            take(first)
        # also behind a body that is here already: who leaves is only seen by reading
        self.protocol.flow.resume_reading()
        if not self._ended:
            self._received = asyncio.get_running_loop().create_future()
            await self._received

    def pause_body(self) -> None:
        """Read no more of the body for now."""
        if not self._ended:
            self.protocol.flow.pause_reading()

    def resume_body(self) -> None:
        """Read on."""
        self.protocol.flow.resume_reading()

    def ask_for_body(self) -> None:
        """Tell a caller who waits for it to send the body (RFC 9110, 10.1.1)."""
        if self.headers.get(b"expect", b"").lower() == b"100-continue":
            self.protocol.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def wait_in_pipeline(self) -> None:
        """Note that the request before this one on the connection is still being answered."""
        self._complete = asyncio.Event()

    def body_complete(self) -> bool:
        """Note the end of the body; True if the request can be served at once."""
        self._ended = True
        if self.uploads:
            # it is being served since its head was there
            if self._received is not None and not self._received.done():
                self._received.set_result(None)
            return False
        if self._complete is None:
            return True
        self._complete.set()
        return False

    async def run_asgi(self, _app: object) -> None:
        """Serve a pipelined request when its turn has come."""
        self.task = asyncio.current_task()
        self.protocol.serving = self
        if self._complete is not None and not self.uploads:
            if not self._complete.is_set() and self.refusal is None:
                self.ask_for_body()
            await self._complete.wait()
        if not self.response_complete:
            await self.handle()

    def handle(self) -> Coroutine[None, None, None]:
        """Serve the request."""
        return self.protocol.gateway.handle(self)

    # proxy.caller.Caller

    def start(self, status: int, headers: Headers, length: int | None, first: bytes) -> None:
        """Send the head and the first bytes of the body."""
        if self.gone:
            return
        self._started = True
        self.status = status
        parts = [self.protocol.head(status), header_lines(headers)]
        if length is not None:
            self._chunked = False
            parts.append(b"content-length: %d\r\n" % length)
        elif self.takes_chunks:
            parts.append(b"transfer-encoding: chunked\r\n")
        else:
            self._chunked = False
            self.keep_alive = False
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        if first:
            parts.append(b"%x\r\n%b\r\n" % (len(first), first) if self._chunked else first)
        self.protocol.write(b"".join(parts))

    def write(self, data: bytes) -> None:
        """Send bytes of the body."""
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self.protocol.write(data)

    def pass_on(self, raw: bytes, chunks: list[bytes]) -> None:
        """Send bytes of the body in the chunks that they came in."""
        self.protocol.write(raw if self._chunked else b"".join(chunks))

    def sender(self) -> Callable[[bytes], None] | None:
        """Return what sends bytes that are in chunks already; None if the answer is not."""
        return self.protocol.write if self._chunked else None

    def finish(self) -> None:
        """End the body properly."""
        if self.gone:
            return
        if self._chunked:
            self.protocol.write(b"0\r\n\r\n")
        self._end()

    def break_off(self) -> None:
        """Close the connection within the body: no last chunk, or fewer bytes than promised.

        A caller of HTTP/1.0, who takes the connection's end for the body's, sees a reset.
        """
        self.response_complete = True
        self._pause = self._resume = _nothing
        if self.takes_chunks:
            self.protocol.close()
        else:
            self.protocol.outbox.flush()
            transport = self.protocol.transport
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""
        if self.gone:
            return
        if self._unread:
            self._leave_rest()
        self._started = True
        self.status = status
        self.protocol.write(
            b"%b%bcontent-length: %d\r\n%b\r\n%b"
            % (
                self.protocol.head(status),
                header_lines(headers),
                len(body),
                b"" if self.keep_alive else b"connection: close\r\n",
                body,
            )
        )
        self._end()

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Say whom to tell of a slow caller."""
        self._pause = pause
        self._resume = resume
        if self.protocol.flow.write_paused:
            # he has not even read the answer before
            pause()

    def let_go(self) -> None:
        """Forget the body and who served it, at the end: together they would wait for the
        collector.
        """
        self._drop_body()
        self.task = None
        self._pause = self._resume = _nothing

    def _drop_body(self) -> None:
        self.protocol.gateway.kept_bytes -= self._kept
        self._kept = 0
        self._body = b""

    # what the protocol tells

    @property
    def gone(self) -> bool:
        """Whether the connection is closed, or about to be."""
        return self.protocol.transport.is_closing()

    @property
    def started(self) -> bool:
        """Whether the caller has got anything."""
        return self._started

    def pause_writing(self) -> None:
        """The caller reads slower than he is written to."""
        self._pause()

    def resume_writing(self) -> None:
        """The caller has caught up."""
        self._resume()

    @property
    def _unread(self) -> bool:
        """Whether the caller has more to send than was wanted."""
        return self.uploads and not self._ended

    def _leave_rest(self) -> None:
        """Take no notice of what is still being sent."""
        self.keep_alive = False
        self._discard = True
        self.protocol.flow.resume_reading()
        self.protocol.linger()

    def _end(self) -> None:
        self.response_complete = True
        self._pause = self._resume = _nothing
        # after a refusal the caller may still be sending: the protocol closes when he has done
        if not (self.keep_alive or self._unread) and (
            self.refusal is None or self.uploads or self._complete is not None
        ):
            self.protocol.close()
        self.protocol.on_response_complete()
