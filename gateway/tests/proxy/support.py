"""Hand-written stand-ins for what an exchange touches: transport, receiver, caller, backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synapse_gateway.backends.base import Capability
from synapse_gateway.proxy.caller import Caller
from synapse_gateway.proxy.connection import UpstreamConnection
from synapse_gateway.proxy.deadlines import Deadlines
from synapse_gateway.proxy.dialects import ChatDialect
from synapse_gateway.proxy.exchange import Exchange
from synapse_gateway.proxy.outbox import Outbox
from synapse_gateway.proxy.pool import ConnectFailed
from synapse_gateway.proxy.request import Form, ProxyRequest
from synapse_gateway.proxy.waiting import WaitingRoom
from synapse_gateway.routing.outcome import Outcome
from synapse_gateway.routing.retry_budget import RetryBudget
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.telemetry.record import RequestRecord
from tests.routing.support import fleet_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from synapse_gateway.config.settings import Limits, Settings
    from synapse_gateway.proxy.connection import Broken, Headers, Receiver
    from synapse_gateway.routing.table import Candidate, ModelRoute

WORDS = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
EVENT_STREAM: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
JSON: Headers = [(b"content-type", b"application/json")]


def chunk(data: bytes) -> bytes:
    """Return an HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Clock:
    """Monotonic seconds that pass when a test says so, or when something sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class FakeTransport(asyncio.Transport):
    """Keeps what is written; reading and closing are flags."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.reading = True
        self.aborted = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written.append(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        self.written.extend(bytes(data) for data in list_of_data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


def held_outbox() -> Outbox:
    """Return an outbox that writes when it is told to."""
    return Outbox(lambda flush: None)


class Recorder:
    """A receiver that keeps what it was told."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.parts: list[bytes] = []
        self.framed: list[bytes] = []
        self.relays = False
        self.relayed: list[bytes] = []
        self.endings: list[str | Broken] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def on_head(self, status: int, headers: Headers) -> None:
        assert not self.status
        self.status = status
        self.headers = headers

    def on_body(self, data: bytes) -> None:
        assert self.status
        assert not self.endings
        self.parts.append(data)

    def relay(self, raw: bytes) -> bool:
        if not self.relays:
            return False
        self.relayed.append(raw)
        return True

    def on_chunks(self, raw: bytes, chunks: list[bytes]) -> None:
        assert raw == b"".join(map(chunk, chunks))
        self.framed.append(raw)
        for data in chunks:
            self.on_body(data)

    def on_end(self) -> None:
        assert self.status
        self.endings.append("end")

    def on_broken(self, why: Broken) -> None:
        self.endings.append(why)


class FakeCaller(Caller):
    """Keeps what a caller would see."""

    gone = False

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.length: int | None = None
        self.parts: list[bytes] = []
        self.framed: list[bytes] = []
        self.ending = ""
        self.pause: Callable[[], None] = lambda: None
        self.resume: Callable[[], None] = lambda: None

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)

    def header(self, name: bytes) -> bytes | None:
        return next((value for key, value in self.headers if key == name), None)

    def start(self, status: int, headers: Headers, length: int | None, first: bytes) -> None:
        assert not self.status
        self.status, self.headers, self.length = status, headers, length
        self.parts.append(first)

    def write(self, data: bytes) -> None:
        assert self.status
        assert not self.ending
        self.parts.append(data)

    def pass_on(self, raw: bytes, chunks: list[bytes]) -> None:
        assert raw == b"".join(map(chunk, chunks))
        self.framed.append(raw)
        for data in chunks:
            self.write(data)

    def sender(self) -> Callable[[bytes], None] | None:
        return self._send if self.length is None else None

    def _send(self, raw: bytes) -> None:
        _, _, data = raw.removesuffix(b"\r\n").partition(b"\r\n")
        self.pass_on(raw, [data])

    def finish(self) -> None:
        self._end("finished")

    def break_off(self) -> None:
        self._end("broken off")

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.start(status, headers, len(body), body)
        self._end("whole")

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        self.pause, self.resume = pause, resume

    def _end(self, how: str) -> None:
        assert self.status
        assert not self.ending
        self.ending = how


class FakeConnection:
    """Stands for an `UpstreamConnection`; what it answers comes from a script."""

    def __init__(self, script: Callable[[Receiver], None] | None = None) -> None:
        self._script = script
        self.sent: list[tuple[bytes, Any]] = []
        self.receiver: Receiver | None = None
        self.reading = True
        self.left = False

    def send(self, head: bytes, body: Any, receiver: Receiver) -> None:
        self.sent.append((head, body))
        self.receiver = receiver
        if self._script is not None:
            asyncio.get_running_loop().call_soon(self._script, receiver)

    def pause(self, receiver: Receiver) -> None:
        assert receiver is self.receiver
        self.reading = False

    def resume(self, receiver: Receiver) -> None:
        assert receiver is self.receiver
        self.reading = True

    def leave(self, receiver: Receiver) -> None:
        assert receiver is self.receiver
        self.left = True


def answers(status: int, body: bytes = b"", headers: Headers = JSON) -> Callable[[Receiver], None]:
    """Answer whole."""

    def run(receiver: Receiver) -> None:
        receiver.on_head(status, list(headers))
        if body:
            receiver.on_body(body)
        receiver.on_end()

    return run


GOOD = answers(200, b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}')


def streams(
    *parts: bytes, then: Broken | None = None, stalls: bool = False
) -> Callable[[Receiver], None]:
    """Answer with a stream that ends, or breaks, or does neither."""

    def run(receiver: Receiver) -> None:
        receiver.on_head(200, list(EVENT_STREAM))
        for part in parts:
            receiver.on_body(part)
        if stalls:
            return
        if then is None:
            receiver.on_end()
        else:
            receiver.on_broken(then)

    return run


def breaks(why: Broken) -> Callable[[Receiver], None]:
    """Break before the head."""
    return lambda receiver: receiver.on_broken(why)


def says_nothing(_: Receiver) -> None:
    """Never answer."""


class FakePool:
    """Gives connections by a list of scripts; an outcome in it is a failure to connect."""

    def __init__(self) -> None:
        self.script: list[Callable[[Receiver], None] | Outcome] = []
        self.idle: list[FakeConnection] = []
        self.made: list[FakeConnection] = []

    def take(self) -> FakeConnection | None:
        if not self.idle:
            return None
        connection = self.idle.pop()
        self.made.append(connection)
        return connection

    async def connect(self, timeout: float) -> FakeConnection:
        assert timeout > 0
        step = self.script.pop(0) if self.script else GOOD
        if isinstance(step, Outcome):
            raise ConnectFailed(step)
        connection = FakeConnection(step)
        self.made.append(connection)
        return connection


class FakeUpstream:
    def __init__(self) -> None:
        self.pool = FakePool()
        self.asked = 0

    def head(self, request: ProxyRequest, path: str, length: int, record: object) -> bytes:
        self.asked += 1
        return b"%b %d\r\n\r\n" % (path.encode(), length)


class FakeUpstreams:
    def __init__(self, names: Iterator[str] | list[str]) -> None:
        self._by_name = {name: FakeUpstream() for name in names}
        self.nudged: list[str] = []
        self.deadlines = Deadlines()

    def of(self, name: str) -> FakeUpstream:
        return self._by_name[name]

    def nudge(self, name: str) -> None:
        self.nudged.append(name)


def chat_form(**fields: Any) -> Form:
    given: dict[str, Any] = {
        "path": "/v1/chat/completions",
        "body_for": lambda name: b'{"model":"%b"}' % name.encode(),
        "dialect": ChatDialect,
        **fields,
    }
    return Form(**given)


def request_for(route: ModelRoute, now: float, **fields: Any) -> ProxyRequest:
    given: dict[str, Any] = {
        "record": RequestRecord(
            id="r1", method="POST", route="/v1/chat/completions", started=now, started_unix=0.0
        ),
        "capability": Capability.CHAT,
        "route": route,
        "form": chat_form(),
        "headers": b"",
        "stream": False,
        "deadline": now + 300.0,
        **fields,
    }
    request = ProxyRequest(**given)
    request.record.model_asked = route.name
    return request


class Stage:
    """An exchange's surroundings: a table over fake backends, a caller for every request."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self.clock = clock
        self.fleet = fleet_of(settings)
        self.table = RouteTable(settings, self.fleet)
        self.upstreams = FakeUpstreams(list(settings.backends))
        self.waiting = WaitingRoom()
        self.budget = RetryBudget(0.2, 10.0, 10)
        self.limits: Limits = settings.limits

    def script(self, name: str, *steps: Callable[[Receiver], None] | Outcome) -> None:
        self.upstreams.of(name).pool.script.extend(steps)

    def asked(self, name: str) -> int:
        return self.upstreams.of(name).asked

    def candidate(self, name: str, model: str = "m") -> Candidate:
        plan = self.table.models[model].plan(Capability.CHAT)
        return next(c for order in plan.orders for c in order if c.state.backend.name == name)

    def exchange(
        self, caller: FakeCaller, model: str = "m", **fields: Any
    ) -> tuple[Exchange, RequestRecord]:
        request = request_for(self.table.models[model], self.clock.now, **fields)
        upstreams: Any = self.upstreams
        exchange = Exchange(request, caller, self.table, upstreams, self.waiting, self.budget)
        return exchange, request.record

    async def serve(self, model: str = "m", **fields: Any) -> tuple[FakeCaller, RequestRecord]:
        caller = FakeCaller()
        exchange, record = self.exchange(caller, model, **fields)
        await exchange.run()
        return caller, record


def connection_on(
    transport: FakeTransport, outbox: Outbox
) -> tuple[UpstreamConnection, list[UpstreamConnection], list[UpstreamConnection]]:
    """Return a connection, and who was told that it is idle and that it is gone."""
    idle: list[UpstreamConnection] = []
    gone: list[UpstreamConnection] = []
    connection = UpstreamConnection(idle.append, gone.append, outbox)
    connection.connection_made(transport)
    return connection, idle, gone
