"""A server on loopback that answers rightly, or wrongly in the way that a test asks for.

::

    async with FaultyUpstream() as upstream:
        upstream.queue(scripts.status(503), scripts.answer())
        ...                                   # a client calls upstream.url twice
        assert [seen.path for seen in upstream.requests] == ["/v1/chat/completions"] * 2

A *script* says what a request gets: a function from the request to a list of steps, of which
`synapse_gateway.testing.scripts` has one for every fault. Requests take scripts from the queue;
when it is empty, the standing script (`upstream.script`, at first a right answer) serves. `GET`s of
a probe (`/health`, `/v1/models`, ...) are answered from `upstream.probes` and neither use the queue
nor are counted among `requests`, so that probing in the background disturbs no test.

It reads HTTP/1.1 itself and writes what the steps say byte by byte, so it can break any rule. It is
not a proxy, checks no request, and listens on 127.0.0.1 only.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from synapse_gateway.testing import scripts
from synapse_gateway.testing.scripts import Close, Hold, Reset, Send, Stall, Wait

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from types import TracebackType

    from synapse_gateway.testing.scripts import Script, Step

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with a timeout of zero: closing sends RST."""


@dataclass
class Connection:
    """What was seen of one connection."""

    number: int
    requests: int = 0
    closed_by_peer: asyncio.Event = field(default_factory=asyncio.Event)
    """Set as soon as the peer's FIN or RST is there."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is gone, whoever ended it."""


@dataclass
class Request:
    """What was seen of one request."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: list[tuple[str, str]]
    """In order, names in lower case."""
    body: bytes
    connection: Connection
    number: int = 0
    """Place among the requests of this server, from 1."""
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when its script has run to the end, or the connection is gone."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    def header(self, name: str) -> str | None:
        """Return the first header of a name (in lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """Return the body's JSON, an empty mapping where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def model(self) -> str:
        """The body's model, or empty."""
        body = self.json()
        return str(body.get("model", "")) if isinstance(body, dict) else ""

    @property
    def stream(self) -> bool:
        """Whether a stream of events is asked for, by the body (JSON or a form) or the path."""
        body = self.json()
        if self.path == "/stream" or b'name="stream"\r\n\r\ntrue\r\n' in self.body:
            return True
        return isinstance(body, dict) and body.get("stream") is True


class FaultyUpstream:
    """The server; see the module.

    Attributes:
        script: What a request gets when the queue is empty.
        probes: Script of each path that is answered apart from the queue.
        requests: What was seen, probes left out, in order of arrival.
        probed: Probes that were seen.
        connections: What was seen, in order of arrival.
        on_connect: A step taken on a connection before anything is read (`Reset()`, `Stall()`).
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self.script: Script = scripts.answer()
        self.probes: dict[str, Script] = {
            "/health": scripts.probe(),
            "/v1/models": scripts.models("m"),
        }
        self.requests: list[Request] = []
        self.probed: list[Request] = []
        self.connections: list[Connection] = []
        self.on_connect: Step | None = None
        self.port = 0
        self._tls = tls
        self._host = host
        self._queue: deque[Script] = deque()
        self._gates: dict[str, asyncio.Event] = {}
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None
        self._open: set[_Wire] = set()

    async def __aenter__(self) -> Self:
        """Start to listen."""
        self._reserve()
        await self.accept()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close everything."""
        await self.refuse(drop=True)
        if self._reserved is not None:
            self._reserved.close()

    @property
    def url(self) -> str:
        """Base URL, without a trailing slash."""
        return f"{'https' if self._tls else 'http'}://{self._host}:{self.port}"

    def queue(self, *items: Script) -> None:
        """Add scripts for the next requests."""
        self._queue.extend(items)

    def when(self, choose: Callable[[Request], Script]) -> None:
        """Let a function of the request choose the script, once the queue is empty."""
        self.script = lambda request: choose(request)(request)

    def gate(self, name: str) -> asyncio.Event:
        """Return the event that `Hold(name)` waits for; set it to let those requests go on."""
        return self._gates.setdefault(name, asyncio.Event())

    async def refuse(self, *, drop: bool = False) -> None:
        """Refuse further connections; the port stays taken.

        Args:
            drop: Reset the open ones too.
        """
        if self._server is not None:
            self._server.close()
            self._server = None
        if drop:
            wires = list(self._open)
            for wire in wires:
                wire.reset()
            await asyncio.gather(*(wire.gone() for wire in wires))
        self._reserve()

    async def accept(self) -> None:
        """Accept connections (again)."""
        if self._reserved is not None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(
                lambda: _Wire(self), sock=self._reserved, ssl=self._tls, backlog=1024
            )
            self._reserved = None

    async def seen(self, count: int, timeout: float = 10.0) -> list[Request]:
        """Wait until so many requests have arrived whole.

        Raises:
            TimeoutError: They have not, within `timeout` seconds.
        """
        async with asyncio.timeout(timeout), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= count)
        return self.requests

    def next_script(self, request: Request) -> Script:
        """Choose what a request gets, and note it."""
        probe = self.probes.get(request.path) if request.method == "GET" else None
        if probe is not None:
            self.probed.append(request)
            return probe
        self.requests.append(request)
        request.number = len(self.requests)
        return self._queue.popleft() if self._queue else self.script

    async def announce(self) -> None:
        """Wake those who wait for requests."""
        async with self._changed:
            self._changed.notify_all()

    def entered(self, wire: _Wire) -> Connection:
        """Note a new connection."""
        self._open.add(wire)
        connection = Connection(number=len(self.connections) + 1)
        self.connections.append(connection)
        return connection

    def left(self, wire: _Wire) -> None:
        """Note that a connection is gone."""
        self._open.discard(wire)

    def _reserve(self) -> None:
        """Bind without listening: connections are refused, and nobody else takes the port."""
        if self._reserved is None:
            self._reserved = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind((self._host, self.port))
            self._reserved.setblocking(False)
            self.port = self._reserved.getsockname()[1]


class _Wire(asyncio.Protocol):
    """One connection: reads requests one after the other and takes the steps of their scripts."""

    def __init__(self, upstream: FaultyUpstream) -> None:
        self._upstream = upstream
        self._buffer = bytearray()
        self._more = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a stream server's is
        self._transport = transport
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = self._upstream.entered(self)
        self._task = asyncio.get_running_loop().create_task(self._run(self._connection))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._more.set()

    def eof_received(self) -> bool:
        self._gone(by_peer=True)
        # our side stays open: only what the peer did shall show (TLS has no half-closed state)
        return self._transport is not None and not self._transport.get_extra_info("sslcontext")

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._gone(by_peer=True)
        if self._connection is not None:
            self._connection.closed.set()
        self._gone(by_peer=False)
        self._upstream.left(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # -- what a script may do

    def reset(self) -> None:
        """Close with RST."""
        if self._transport is not None and not self._transport.is_closing():
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()

    async def gone(self) -> None:
        """Wait until the connection is gone."""
        if self._connection is not None:
            await self._connection.closed.wait()

    def _gone(self, *, by_peer: bool) -> None:
        if self._connection is not None and by_peer:
            self._connection.closed_by_peer.set()
        self._more.set()
        self._writable.set()

    async def _run(self, connection: Connection) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            if self._upstream.on_connect is not None:
                await self._take(self._upstream.on_connect, connection)
            while not await self._serve(connection):
                pass
        if self._transport is not None:
            self._transport.close()

    async def _serve(self, connection: Connection) -> bool:
        """Serve one request; True if the connection ends with it."""
        request = await self._read_request(connection)
        connection.requests += 1
        script = self._upstream.next_script(request)
        await self._upstream.announce()
        try:
            for step in script(request):
                if await self._take(step, connection):
                    return True
        finally:
            request.finished.set()
        return False

    async def _take(self, step: Step, connection: Connection) -> bool:
        """Take a step; True if it ended the connection."""
        match step:
            case Send():
                await self._send(step, connection)
            case Wait():
                await asyncio.sleep(step.seconds)
            case Hold():
                await self._until(self._upstream.gate(step.gate), connection)
            case Stall():
                await connection.closed_by_peer.wait()
                return True
            case Reset():
                self.reset()
                return True
            case Close():
                if self._transport is not None:
                    self._transport.close()
                return True
        return False

    async def _send(self, step: Send, connection: Connection) -> None:
        size = step.pieces or len(step.data) or 1
        for start in range(0, len(step.data), size):
            if self._transport is None or connection.closed.is_set():
                raise ConnectionError
            self._transport.write(step.data[start : start + size])
            await self._writable.wait()
            if step.pieces:
                await asyncio.sleep(0)

    async def _until(self, gate: asyncio.Event, connection: Connection) -> None:
        waits = [
            asyncio.ensure_future(gate.wait()),
            asyncio.ensure_future(connection.closed_by_peer.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if connection.closed_by_peer.is_set():
            raise ConnectionError

    # -- reading

    async def _read_request(self, connection: Connection) -> Request:
        head = (await self._read_until(b"\r\n\r\n", connection)).decode("latin-1")
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ", 2)
        headers = []
        for line in lines:
            name, _, value = line.partition(":")
            headers.append((name.strip().lower(), value.strip()))
        request = Request(method, target, headers, b"", connection)
        if (request.header("transfer-encoding") or "").lower() == "chunked":
            request.body = await self._read_chunked(connection)
        else:
            length = int(request.header("content-length") or 0)
            request.body = await self._read_exactly(length, connection)
        return request

    async def _read_chunked(self, connection: Connection) -> bytes:
        body = b""
        while True:
            size = int((await self._read_until(b"\r\n", connection)).split(b";")[0], 16)
            chunk = await self._read_exactly(size, connection)
            await self._read_until(b"\r\n", connection)
            if not size:
                return body
            body += chunk

    async def _read_until(self, mark: bytes, connection: Connection) -> bytes:
        while (at := self._buffer.find(mark)) < 0:
            await self._read_more(connection)
        return self._cut(at + len(mark))

    async def _read_exactly(self, length: int, connection: Connection) -> bytes:
        while len(self._buffer) < length:
            await self._read_more(connection)
        return self._cut(length)

    async def _read_more(self, connection: Connection) -> None:
        if connection.closed_by_peer.is_set() or connection.closed.is_set():
            raise asyncio.IncompleteReadError(bytes(self._buffer), None)
        self._more.clear()
        await self._more.wait()

    def _cut(self, length: int) -> bytes:
        taken = bytes(self._buffer[:length])
        del self._buffer[:length]
        return taken
