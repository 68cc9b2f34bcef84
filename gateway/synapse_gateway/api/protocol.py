"""The server's side of a connection: uvicorn's protocol with a short cut for the hot path.

Requests of the paths in `HOT_PATHS` never become ASGI messages; every other goes on to the
application. The rest of HTTP (parsing, keep-alive, pipelining, shutdown) stays uvicorn's.
"""

from __future__ import annotations

from operator import itemgetter
from time import monotonic
from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from synapse_gateway.api.call import LINGER, LINGER_MOST, Call, header_lines
from synapse_gateway.api.gateway import HOT_PATHS, UPLOAD_PATHS
from synapse_gateway.errors import InvalidRequest, RequestError, RequestTimeout

if TYPE_CHECKING:
    import asyncio

    from synapse_gateway.api.gateway import Gateway
    from synapse_gateway.proxy.outbox import Outbox

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers of a request."""
MAX_PIPELINE = 8
"""Requests of one connection that may wait for the one before; those behind are not looked at."""
_HOT_PATHS = frozenset(map(str.encode, HOT_PATHS))
_NAME = itemgetter(0)
_UPGRADING = frozenset({b"upgrade", b"http2-settings"})
_LATE = RequestTimeout("The request did not arrive in time.")


class IdleConnections:
    """Closes callers' connections that bring no request, or do not bring one to its end.

    A timer a connection, set and cancelled with every request, costs more than all else that
    keep-alive does; this is one timer for all.

    Args:
        seconds: How long a connection may be idle, the head of a request on its way, and a body
            stand still, give or take a quarter.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._idle: dict[SynapseProtocol, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, connection: SynapseProtocol, since: float | None = None) -> None:
        """Close this one when it has been idle for long enough.

        Args:
            connection: Which one.
            since: Monotonic seconds; now, if not given.
        """
        self._idle[connection] = monotonic() if since is None else since
        if self._timer is None:
            self._timer = connection.loop.call_later(self._seconds / 4, self._tick)

    def discard(self, connection: SynapseProtocol) -> None:
        """It is busy, or gone."""
        self._idle.pop(connection, None)

    def _tick(self) -> None:
        self._timer = None
        oldest = monotonic() - self._seconds
        for connection, since in list(self._idle.items()):
            if since <= oldest:
                del self._idle[connection]
                connection.on_idle()
            elif self._timer is None:
                self._timer = connection.loop.call_later(self._seconds / 4, self._tick)


class SynapseProtocol(HttpToolsProtocol):
    """One caller's connection."""

    gateway: Gateway
    """Set on the subclass that a server is given."""
    outbox: Outbox
    """Likewise."""
    idle: IdleConnections
    """Likewise."""
    cycle: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._hot: Call | None = None
        """Whose body is being received."""
        self.serving: Call | None = None
        """Who is being answered; with pipelining not always the one received last."""
        self._head_bytes = 0
        self._deaf = False
        """Whether what the caller still sends is not even looked at."""
        self._receiving = False
        """Whether a request has begun and is not whole."""
        self._incomplete: Any = None
        """The cycle whose body is being received."""
        self._begun = 0.0
        """When the head of the request that is being received began."""
        self.heard = False
        """Whether something of what was refused has come since `linger` looked last."""
        self._lingering: asyncio.TimerHandle | None = None

    def head(self, status: int) -> bytes:
        """Return the start of a response: status line and the server's own headers."""
        return STATUS_LINE[status] + header_lines(self.server_state.default_headers)

    def write(self, data: bytes) -> None:
        """Send bytes of a response."""
        self.outbox.post(self.transport, data)

    def close(self) -> None:
        """Close the connection when everything is sent."""
        self.outbox.flush()
        self.transport.close()

    def linger(self, until: float | None = None) -> None:
        """Close behind an answer when its caller sends nothing more, or has sent for long enough.

        Many callers read the answer only when they have sent everything.

        Args:
            until: Monotonic seconds; some time from now, if not given.
        """
        self.heard = False
        end = monotonic() + LINGER_MOST if until is None else until

        def look() -> None:
            if self.heard and monotonic() < end:
                self.linger(end)
            else:
                # what the outbox keeps comes first: after a stall this may be due before the flush
                self.close()

        self._lingering = self.loop.call_later(LINGER, look)

    def on_response_complete(self) -> None:
        """Begin the next request of the pipeline, or wait for one."""
        self.serving = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        elif self._deaf:
            self.close()
        else:
            self.idle.add(self)

    # httptools

    def data_received(self, data: bytes) -> None:
        """Parse; a head that does not end is refused."""
        self.idle.discard(self)
        if self._deaf:
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("The request is not HTTP.")
        except httptools.HttpParserUpgrade as upgrade:
            self._decline_upgrade(data[upgrade.args[0] :])
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self._deaf:
                self.send_400_response("The request's headers are too large.")
        if self._receiving and not self._deaf:
            self.idle.add(self, self._begun if self._head_bytes >= 0 else None)

    def _decline_upgrade(self, rest: bytes) -> None:
        """Read a request as if it had not asked for another protocol (RFC 9110, 7.8).

        Java's HTTP client asks for h2c with every first request, its body included; the parser
        takes that body for the other protocol's.
        """
        method = self.parser.get_method()
        if method == b"CONNECT":
            self.send_400_response("CONNECT: this is no proxy.")
            return
        lines = [b"%b %b HTTP/%b\r\n" % (method, self.url, self.parser.get_http_version().encode())]
        for name, value in self.headers:
            if name == b"connection":
                value = b"close" if b"close" in value.lower() else b"keep-alive"  # noqa: PLW2901
            if name not in _UPGRADING:
                lines.append(b"%b: %b\r\n" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(b"".join(lines) + b"\r\n" + rest)

    def on_message_begin(self) -> None:
        """Begin a request; ASGI's scope is only made for those that need it."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._hot = None
        self._head_bytes = 0
        self._receiving = True
        self._begun = monotonic()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header; a name is compared in lower case everywhere."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Take the short cut if there is one."""
        self._head_bytes = -1
        if self._deaf or self.parser.should_upgrade():
            return
        hosts = tuple(map(_NAME, self.headers)).count(b"host")
        if hosts != 1 and self.parser.get_http_version() != "1.0":
            self.send_400_response("Host: must be there, once.")
            return
        if len(self.pipeline) >= MAX_PIPELINE:
            self._take_no_more()
            return
        if not self.url.startswith(b"/"):
            # RFC 9112, 3.2.2: as a proxy would be asked
            self.url = httptools.parse_url(self.url).path or b"/"
        path, _, _ = self.url.partition(b"?")
        if self.parser.get_method() == b"POST" and path in _HOT_PATHS:
            self._begin_hot(path.decode("ascii"))
            return
        url, headers = self.url, self.headers
        super().on_message_begin()
        self.url = url
        self.headers.extend(headers)
        for name, value in headers:
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
        super().on_headers_complete()
        self._incomplete = self.cycle
        if self.gateway.draining:
            self.cycle.keep_alive = False
        # uvicorn stops reading behind a request that waits, and so would not see the caller leave
        self.flow.resume_reading()

    def _take_no_more(self) -> None:
        """Answer the requests that are here, then close; read on, but only to see the caller leave.

        RFC 9112, 9.3.2: whoever sends several requests at once repeats those without an answer.
        """
        self._deaf = True
        if self.pipeline and self.pipeline[0][0] is self._incomplete:
            self.pipeline.popleft()
        last = self.pipeline[0][0] if self.pipeline else self.serving
        if last is not None:
            last.keep_alive = False

    def _begin_hot(self, path: str) -> None:
        headers = dict(self.headers)
        version_1_0 = self.parser.get_http_version() == "1.0"
        uploads = path in UPLOAD_PATHS
        before = self.cycle
        waits = before is not None and not before.response_complete
        call = Call(
            self,
            path,
            headers,
            keep_alive=not (version_1_0 or self.gateway.draining)
            and self.parser.should_keep_alive(),
            takes_chunks=not version_1_0,
            uploads=uploads,
        )
        self._hot = self.cycle = self._incomplete = call
        if waits:
            call.wait_in_pipeline()
            self.pipeline.appendleft((call, self.app))  # type: ignore[arg-type]
            if uploads:
                # its body waits for its turn where it is, not here
                self.flow.pause_reading()
        else:
            self.serving = call
        try:
            self.gateway.authenticate(call)
            self.gateway.check_length(call, int(headers.get(b"content-length", b"0")))
        except RequestError as error:
            self._refuse(call, error)
            return
        if waits:
            return
        if uploads:
            # who may not send it, or finds no room for it, shall hear so before
            self._serve(call)
        elif b"expect" in headers:
            call.ask_for_body()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body, within the limit."""
        if self._deaf:
            return
        call = self._hot
        if call is None:
            super().on_body(body)
            if self.pipeline and self.flow.read_paused:
                # a large body behind a request that takes its time
                self.flow.resume_reading()
                self._take_no_more()
            return
        call.take_body(body)
        if call.refusal is None and (
            call.received > call.limit or self.gateway.kept_bytes > call.room
        ):
            self._refuse(call, self.gateway.too_much(call, call.received))

    def on_message_complete(self) -> None:
        """Serve the request."""
        self._receiving = False
        self._incomplete = None
        if self._deaf or self.parser.should_upgrade():
            return
        call = self._hot
        if call is None:
            super().on_message_complete()
        elif call.response_complete:
            # refused before its end, which the caller may not have noticed
            self.close()
        elif call.body_complete():
            self._serve(call)

    def _serve(self, call: Call) -> None:
        task: asyncio.Task[None] = self.loop.create_task(call.handle())
        call.task = task
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _refuse(self, call: Call, error: RequestError) -> None:
        call.keep_alive = False
        call.refuse_body(error)
        if self.serving is call and call.task is None:
            self.gateway.refuse_early(call, error)
            self.linger()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, in the shape of every other error."""
        if self._is_answering():
            # these bytes would be taken for the rest of the answer that is under way
            self._take_no_more()
        else:
            self._send_error(InvalidRequest(msg, code="invalid_http"))

    def on_idle(self) -> None:
        """Nothing has come for a while."""
        call = self._hot
        if self._is_answering():
            self.idle.add(self)
        elif not self._receiving:
            self.transport.close()
        elif call is not None:
            self._refuse(call, _LATE)
        else:
            self._send_error(_LATE)

    def _send_error(self, error: RequestError) -> None:
        """Answer what is not, or not yet, a request."""
        self._deaf = True
        self.gateway.refuse_bad_http(self.client, error)
        status, headers, body = self.gateway.render(error, "/")
        end = b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.write(self.head(status) + header_lines(headers) + end + body)
        self.outbox.flush()
        self.transport.write_eof()
        self.loop.call_later(LINGER, self.close)

    def _is_answering(self) -> bool:
        """Say whether a request before the one that is being received has its answer to come."""
        cycle = self.cycle
        return (
            bool(self.pipeline)
            or (self.serving is not None and self.serving.task is not None)
            or (
                cycle is not None
                and not isinstance(cycle, Call)
                and cycle.response_started
                and not cycle.response_complete
            )
        )

    # asyncio

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request before long."""
        super().connection_made(transport)
        self.idle.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what is being served: nobody will read it."""
        call = self.serving
        if call is not None and not call.response_complete and call.task is not None:
            call.disconnected = True
            call.task.cancel()
        self.idle.discard(self)
        if self._lingering is not None:
            # it would keep this in memory
            self._lingering.cancel()
            self._lingering = None
        super().connection_lost(exc)
        for waiting in (self._hot, *(cycle for cycle, _ in self.pipeline)):
            if isinstance(waiting, Call) and waiting.task is None:
                waiting.let_go()
        # they refer back to this, and so only the collector could free them
        self.cycle = self._hot = self.serving = None
        self.pipeline.clear()

    def pause_writing(self) -> None:
        """Pass the back-pressure on."""
        super().pause_writing()
        if self.serving is not None:
            self.serving.pause_writing()

    def resume_writing(self) -> None:
        """Pass the relief on."""
        super().resume_writing()
        if self.serving is not None:
            self.serving.resume_writing()
