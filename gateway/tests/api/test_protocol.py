"""The server's side of HTTP, over real sockets: what is refused, what waits, what is cancelled."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.api import protocol
from synapse_gateway.config.settings import Key, Queue, Target
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.blackhole import Blackhole
from synapse_gateway.testing.scripts import Stall
from synapse_gateway.testing.wire import Ending
from tests.api.support import CHAT, Line, Scene, chat, request, scene, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from synapse_gateway.api.protocol import SynapseProtocol

READY = request("/readyz", method="GET")


@pytest.fixture
async def stage() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


async def still_serves(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request())
    assert (await line.answer()).text() == "alpha beta gamma"


# -- what is not HTTP, or two things at once


HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n".encode()
BODY = chat()
SMUGGLING = [
    pytest.param(
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="cl-te"
    ),
    pytest.param(
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n", id="te-cl"
    ),
    pytest.param(HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}", id="two-lengths"),
    pytest.param(HEAD + b"content-length: +2\r\n\r\n{}", id="signed-length"),
    pytest.param(HEAD + b"content-length: 2, 2\r\n\r\n{}", id="list-of-lengths"),
    pytest.param(HEAD + b"content-length : 2\r\n\r\n{}", id="space-in-name"),
    pytest.param(HEAD + b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n", id="unknown-coding"),
    pytest.param(
        HEAD + b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n", id="chunked-not-last"
    ),
    pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", id="chunk-size"),
    pytest.param(HEAD + b"transfer-encoding: chunked\r\n\r\n-2\r\n{}\r\n", id="negative-chunk"),
    pytest.param(
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\n{}extra\r\n0\r\n\r\n", id="chunk-too-long"
    ),
    pytest.param(
        HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n", id="huge-chunk"
    ),
    pytest.param(HEAD + b"x-a: 1\r\n folded\r\ncontent-length: 2\r\n\r\n{}", id="folded-line"),
    pytest.param(HEAD + b"x-a: \x00\r\ncontent-length: 2\r\n\r\n{}", id="nul-in-value"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="tls"),
    pytest.param(b"GARBAGE\r\n\r\n", id="garbage"),
    pytest.param(b"POST /v1/chat/completions HTTP/3.7\r\n\r\n", id="version"),
    pytest.param(b"POST http://[ HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", id="url"),
]


@pytest.mark.parametrize("data", SMUGGLING)
async def test_what_could_be_read_in_two_ways_is_refused(stage: Scene, data: bytes) -> None:
    line = await stage.connect()
    line.send(data)
    answer = await line.answer()
    assert (answer.status, answer.header("connection")) == (400, "close")
    assert (answer.error() or {})["code"] == "invalid_http"
    line.send(request())
    assert await line.closed() == b"", "nothing behind it is served"
    assert stage.upstream.requests == []
    await still_serves(stage)


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET /readyz HTTP/1.1\r\n\r\n", id="no-host"),
        pytest.param(b"GET /readyz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", id="two-hosts"),
    ],
)
async def test_a_request_names_one_host(stage: Scene, head: bytes) -> None:
    line = await stage.connect()
    line.send(head)
    assert (await line.answer()).status == 400
    await still_serves(stage)


@pytest.mark.parametrize(
    ("target", "status"),
    [(f"http://gateway{CHAT}", 200), ("http://gateway/v1/nowhere?x", 404), ("http://x", 405)],
)
async def test_a_request_may_be_made_as_to_a_proxy(stage: Scene, target: str, status: int) -> None:
    line = await stage.connect()
    line.send(request(target))
    assert (await line.answer()).status == status


async def test_an_older_caller_behind_does_not_change_the_answer_before(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True) + request(stream=True, version="1.0"))
    stream = await line.head()
    stage.upstream.gate("go").set()
    assert (await stream.read_rest()).ending is Ending.COMPLETE


async def test_a_body_that_breaks_behind_a_request_costs_that_one_nothing(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True) + HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n")
    stream = await line.head()
    stage.upstream.gate("go").set()
    assert (await stream.read_rest()).ending is Ending.COMPLETE
    assert await line.closed() == b""


async def test_a_head_larger_than_64_kib_is_refused(stage: Scene) -> None:
    line = await stage.connect()
    line.send(HEAD)
    for _ in range(80):
        line.send(b"x-filler: " + b"x" * 1000 + b"\r\n")
        await asyncio.sleep(0)
    answer = await line.answer()
    assert (answer.status, (answer.error() or {})["code"]) == (400, "invalid_http")
    await still_serves(stage)


async def test_garbage_behind_a_request_does_not_end_up_in_its_answer(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    await stream.next_chunk()
    line.send(READY + b"GARBAGE\r\n\r\n")
    stage.upstream.gate("go").set()
    answer = await stream.read_rest()
    assert answer.ending is Ending.COMPLETE
    assert b"invalid_http" not in answer.body
    assert (await line.answer()).json() == {"status": "ready"}
    assert await line.closed() == b""


async def test_headers_of_a_caller_cannot_reach_a_backend_unread(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request(CHAT, None, "authorization: Bearer x", "x-evil: 1", "user-agent: me"))
    assert (await line.answer()).status == 200
    [seen] = stage.upstream.requests
    names = [name for name, _ in seen.headers]
    assert names == [
        "host",
        "accept-encoding",
        "x-request-id",
        "content-type",
        "user-agent",
        "content-length",
    ]


# -- bodies


@pytest.mark.parametrize(
    "path", [pytest.param(CHAT, id="json"), pytest.param("/v1/audio/transcriptions", id="upload")]
)
async def test_who_has_no_key_is_told_so_before_he_sends_a_body(path: str) -> None:
    keys = {"k": Key(sha256=hashlib.sha256(b"sk-right").hexdigest())}
    async with scene(keys=keys) as locked:
        line = await locked.connect()
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n"
        line.send(head.encode() + b"{")
        answer = await line.answer()
        assert (answer.status, answer.header("connection")) == (401, "close")
        assert locked.connections[0].gateway.kept_bytes == 0


async def test_a_key_is_looked_at_behind_another_request_too() -> None:
    keys = {"k": Key(sha256=hashlib.sha256(b"sk-right").hexdigest())}
    async with scene(keys=keys) as locked:
        line = await locked.connect()
        right = request(CHAT, None, "authorization: Bearer sk-right")
        line.send(right + request() + right)
        assert [(await line.answer()).status for _ in range(2)] == [200, 401]


async def test_bodies_that_nobody_has_room_for_are_refused(stage: Scene) -> None:
    async with scene(max_buffered_bytes=100_000) as small:
        half = HEAD + b"content-length: 80000\r\n\r\n" + b" " * 60_000
        first = await small.connect()
        gateway = small.connections[0].gateway
        first.send(half)
        await until(lambda: gateway.kept_bytes == 60_000)
        second = await small.connect()
        second.send(half)
        answer = await second.answer()
        assert (answer.status, (answer.error() or {})["code"]) == (503, "no_memory")
        first.writer.close()
        await until(lambda: gateway.kept_bytes == 0)
        await still_serves(small)
        await until(lambda: gateway.kept_bytes == 0)


async def test_a_chunked_body_is_taken(stage: Scene) -> None:
    line = await stage.connect()
    line.send(HEAD + b"transfer-encoding: chunked\r\n\r\n")
    for byte in (BODY[:1], BODY[1:7], BODY[7:]):
        line.send(b"%x;x=y\r\n%b\r\n" % (len(byte), byte))
    line.send(b"0\r\nx-trailer: 1\r\n\r\n")
    assert (await line.answer()).text() == "alpha beta gamma"
    assert stage.upstream.requests[0].body == BODY


async def test_a_request_may_come_byte_by_byte(stage: Scene) -> None:
    line = await stage.connect()
    raw = request()
    for index in range(len(raw)):
        line.send(raw[index : index + 1])
        await asyncio.sleep(0)
    assert (await line.answer()).text() == "alpha beta gamma"


async def test_a_body_too_large_by_its_length_is_refused_readably(stage: Scene) -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        line.send(HEAD + b"content-length: 50000000\r\n\r\n")
        sending = asyncio.create_task(flood(line, 2_000_000))
        answer = await line.answer()
        assert (answer.status, (answer.error() or {})["code"]) == (413, "request_too_large")
        assert answer.header("connection") == "close"
        assert "1000 bytes" in (answer.error() or {})["message"]
        await sending
        assert small.upstream.requests == []
        await still_serves(small)


async def test_a_body_too_large_without_a_length_is_refused_once(stage: Scene) -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        line.send(
            HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1f4\r\n%b\r\n" % (b"x" * 500) * 40
        )
        answer = await line.answer()
        assert answer.status == 413
        line.send(b"0\r\n\r\n")
        assert await line.closed() == b""
        metrics = await wire.metrics(small.url)
        assert metrics.value("synapse_requests_total", code="413") == 1


class Timers:
    """A connection's event loop, whose timers go off when the test says so."""

    def __init__(self, connection: SynapseProtocol) -> None:
        self._loop = connection.loop
        self.waiting: list[Callable[[], None]] = []
        self.handles: list[asyncio.TimerHandle] = []
        connection.loop = self  # type: ignore[assignment]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def call_later(self, seconds: float, function: Callable[[], None]) -> asyncio.TimerHandle:
        self.waiting.append(function)
        self.handles.append(self._loop.call_later(3600 + seconds, function))
        return self.handles[-1]

    def go_off(self) -> None:
        waiting, self.waiting = self.waiting, []
        for function in waiting:
            function()


REFUSED = HEAD + b"content-length: 50000000\r\n\r\n"


async def test_a_caller_who_goes_on_sending_what_was_refused_is_heard_out() -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        await until(lambda: small.connections)
        [connection] = small.connections
        timers = Timers(connection)
        line.send(REFUSED)
        assert (await line.answer()).status == 413
        for _ in range(3):
            line.send(b"x" * 1000)
            await until(lambda: connection.heard)
            timers.go_off()
            assert not connection.transport.is_closing()
        timers.go_off()
        assert await line.closed() == b""


async def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "LINGER_MOST", 0.0)
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        await until(lambda: small.connections)
        [connection] = small.connections
        timers = Timers(connection)
        line.send(REFUSED + b"x" * 1000)
        assert (await line.answer()).status == 413
        await until(lambda: connection.heard)
        timers.go_off()
        assert await line.closed() == b""


async def test_one_who_leaves_behind_a_refusal_is_not_kept() -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        await until(lambda: small.connections)
        timers = Timers(small.connections[0])
        line.send(REFUSED)
        assert (await line.answer()).status == 413
        line.writer.transport.abort()
        await until(lambda: all(handle.cancelled() for handle in timers.handles))


async def test_a_refusal_that_is_late_comes_before_the_end_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        await until(lambda: small.connections)
        timers = Timers(small.connections[0])
        # as in a process that stands still between the answer and the end of the turn
        monkeypatch.setattr(small.running.runtime.outbox, "_call_soon", lambda _flush: None)
        line.send(REFUSED)
        await until(lambda: timers.waiting)
        timers.go_off()
        assert (await line.answer()).status == 413


async def flood(line: Line, size: int) -> None:
    """Send so many bytes, as far as the gateway takes them."""
    for _ in range(size // 50_000):
        line.send(b"x" * 50_000)
        try:
            await line.writer.drain()
        except ConnectionError:
            return


@pytest.mark.parametrize(
    "length", [b"content-length: %d" % len(BODY), b"transfer-encoding: chunked"]
)
async def test_a_caller_who_asks_first_is_told_to_go_on(stage: Scene, length: bytes) -> None:
    line = await stage.connect()
    line.send(HEAD + b"expect: 100-Continue\r\n" + length + b"\r\n\r\n")
    async with asyncio.timeout(wire.TIMEOUT):
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if b"chunked" in length else BODY)
    assert (await line.answer()).text() == "alpha beta gamma"


async def test_a_caller_who_asks_first_is_refused_before_he_sends() -> None:
    async with scene(max_body_bytes=1000) as small:
        line = await small.connect()
        line.send(HEAD + b"expect: 100-continue\r\ncontent-length: 1001\r\n\r\n")
        async with asyncio.timeout(wire.TIMEOUT):
            raw = await line.reader.readuntil(b"\r\n\r\n")
        assert raw.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("expect", ["200-ok", "100-continue"])
async def test_an_expectation_of_a_cold_path_is_uvicorns(stage: Scene, expect: str) -> None:
    line = await stage.connect()
    body = b'{"model":"m"}'
    line.send(request("/api/show", body, f"expect: {expect}"))
    assert (await line.answer()).status == 200


# -- versions and persistence


async def test_http_1_0_gets_a_body_that_ends_with_the_connection(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request(version="1.0", stream=True))
    stream = await line.head()
    assert stream.answer.header("transfer-encoding") is None
    assert stream.answer.header("connection") == "close"
    answer = await stream.read_rest()
    assert (answer.text(), answer.ending) == ("alpha beta gamma", Ending.CLOSED)
    assert answer.events()[-1] == "[DONE]"


async def test_http_1_0_sees_a_reset_where_there_is_no_other_way_to_say_cut(stage: Scene) -> None:
    speech = scripts.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ntransfer-encoding: chunked\r\n\r\n"
        b"7d0\r\nID3" + bytes(1997) + b"\r\n",
        then=scripts.Close(),
    )
    stage.upstream.queue(speech, speech)
    old, new = await stage.connect(), await stage.connect()
    say = b'{"model":"m","input":"hello"}'
    old.send(request("/v1/audio/speech", say, version="1.0"))
    new.send(request("/v1/audio/speech", say))
    for line in (old, new):
        answer = await line.answer()
        assert (answer.status, answer.ending) == (200, Ending.CUT)


async def test_connection_close_closes(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request(CHAT, None, "connection: close"))
    answer = await line.answer()
    assert (answer.status, answer.header("connection")) == (200, "close")
    assert await line.closed() == b""


async def test_a_connection_serves_request_after_request(stage: Scene) -> None:
    line = await stage.connect()
    for stream in (False, True, False):
        line.send(request(stream=stream))
        answer = await line.answer()
        assert (answer.text(), answer.header("connection")) == ("alpha beta gamma", None)
    line.send(READY)
    assert (await line.answer()).json() == {"status": "ready"}


UPGRADE = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AA")


@pytest.mark.parametrize("pieces", [1, 40, 1 << 16])
async def test_a_request_that_offers_another_protocol_is_served_in_this_one(
    stage: Scene, pieces: int
) -> None:
    line = await stage.connect()
    raw = (
        request(CHAT, None, *UPGRADE) + request() + request("/readyz", None, *UPGRADE, method="GET")
    )
    for start in range(0, len(raw), pieces):
        line.send(raw[start : start + pieces])
        await asyncio.sleep(0)
    for _ in range(2):
        assert (await line.answer()).text() == "alpha beta gamma"
    assert (await line.answer()).json() == {"status": "ready"}
    assert stage.upstream.requests[0].body == BODY


async def test_a_declined_upgrade_still_closes_when_asked_to(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request(CHAT, None, "connection: close, upgrade", "upgrade: websocket"))
    assert (await line.answer()).header("connection") == "close"
    assert await line.closed() == b""


async def test_the_gateway_is_no_tunnel(stage: Scene) -> None:
    line = await stage.connect()
    line.send(b"CONNECT backend:80 HTTP/1.1\r\nhost: backend:80\r\n\r\n")
    assert (await line.answer()).status == 400
    assert await line.closed() == b""


async def test_idle_connections_are_closed_after_a_while() -> None:
    class Connection:
        closed = False

        def __init__(self) -> None:
            self.loop = asyncio.get_running_loop()
            self.transport = self

        def on_idle(self) -> None:
            self.closed = True

    idle = protocol.IdleConnections(0.04)
    gone, busy, kept = Connection(), Connection(), Connection()
    for each in (gone, busy):
        idle.add(each)  # type: ignore[arg-type]
    idle.discard(busy)  # type: ignore[arg-type]
    await until(lambda: gone.closed)
    assert not busy.closed
    idle.add(kept)  # type: ignore[arg-type]
    assert not kept.closed
    await until(lambda: kept.closed)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"", None, id="nothing"),
        pytest.param(HEAD, 408, id="half-a-head"),
        pytest.param(HEAD + b"content-length: 9\r\n\r\n{", 408, id="half-a-body"),
        pytest.param(
            b"POST /api/show HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{", 408, id="cold"
        ),
    ],
)
async def test_a_request_that_does_not_come_to_its_end_is_given_up(
    stage: Scene, sent: bytes, status: int | None
) -> None:
    line = await stage.connect()
    line.send(sent)
    await until(lambda: stage.connections[0]._receiving or not sent)
    stage.connections[0].on_idle()
    if status is None:
        assert await line.closed() == b""
        return
    answer = await line.answer()
    assert (answer.status, (answer.error() or {})["code"]) == (status, "request_timeout")
    assert answer.header("connection") == "close"


async def test_whoever_is_being_answered_may_be_slow_with_the_next_request(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    raw = request()
    line.send(raw[:50])
    await until(lambda: stage.connections[0]._receiving)
    stage.connections[0].on_idle()
    stage.upstream.gate("go").set()
    assert (await stream.read_rest()).ending is Ending.COMPLETE
    line.send(raw[50:])
    assert (await line.answer()).text() == "alpha beta gamma"


async def test_the_time_of_a_head_counts_from_its_begin_that_of_a_body_from_its_last_part(
    stage: Scene,
) -> None:
    line = await stage.connect()
    connection = stage.connections[0]

    def since() -> float | None:
        return connection.idle._idle.get(connection)

    async def after(data: bytes) -> float:
        before = since()
        head_bytes = connection._head_bytes
        line.send(data)
        await until(lambda: connection._head_bytes != head_bytes or since() != before)
        found = since()
        assert found is not None
        return found

    begun = await after(HEAD[:30])
    assert await after(HEAD[30:]) == begun
    body = await after(b"content-length: 9\r\n\r\n{")
    assert body > begun
    assert await after(b" ") > body


# -- pipelining


async def test_a_pipeline_is_read_only_so_far(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    line.send(request() * 20)
    await until(lambda: stage.connections[0]._deaf)
    stage.upstream.gate("go").set()
    assert (await stream.read_rest()).ending is Ending.COMPLETE
    for _ in range(protocol.MAX_PIPELINE - 1):
        assert (await line.answer()).header("connection") != "close"
    assert (await line.answer()).header("connection") == "close"
    assert await line.closed() == b""


@pytest.mark.parametrize(
    "behind",
    [
        pytest.param(request() * 20, id="many"),
        pytest.param(request("/api/show", b"y" * 300_000), id="large"),
    ],
)
async def test_whatever_waits_in_the_pipeline_a_caller_is_seen_to_leave(
    stage: Scene, behind: bytes
) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    await stream.next_chunk()
    line.send(behind)
    await until(lambda: stage.connections[0]._deaf)
    line.writer.close()
    await until(lambda: not stage.tasks)


async def test_pipelined_requests_are_answered_in_order_hot_or_cold(stage: Scene) -> None:
    line = await stage.connect()
    models = request("/v1/models", method="GET")
    line.send(request() + models + request(stream=True) + READY + request())
    kinds = [(await line.answer()) for _ in range(5)]
    assert kinds[0].text() == kinds[2].text() == kinds[4].text() == "alpha beta gamma"
    assert kinds[1].json()["object"] == "list"
    assert kinds[3].json() == {"status": "ready"}


async def test_a_pipelined_request_waits_until_the_one_before_has_ended(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    await stream.next_chunk()
    line.send(request() + READY)
    await still_serves(stage)
    stage.upstream.gate("go").set()
    assert (await stream.read_rest()).events()[-1] == "[DONE]"
    assert (await line.answer()).text() == "alpha beta gamma"
    assert (await line.answer()).json() == {"status": "ready"}


async def test_a_pipelined_body_may_come_in_parts(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    raw = request()
    line.send(request(stream=True) + raw[:-10])
    stream = await line.head()
    stage.upstream.gate("go").set()
    await stream.read_rest()
    await until(lambda: stage.connections[0].serving is not None)
    line.send(raw[-10:])
    assert (await line.answer()).text() == "alpha beta gamma"


async def test_a_pipelined_request_is_told_to_go_on_when_its_turn_comes(stage: Scene) -> None:
    stage.upstream.queue(scripts.held())
    line = await stage.connect()
    expecting = HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    line.send(request(stream=True) + expecting)
    stream = await line.head()
    stage.upstream.gate("go").set()
    answer = await stream.read_rest()
    assert (answer.ending, b"100 Continue" in answer.body) == (Ending.COMPLETE, False)
    async with asyncio.timeout(wire.TIMEOUT):
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    line.send(BODY)
    assert (await line.answer()).text() == "alpha beta gamma"


@pytest.mark.parametrize("whole", [True, False])
async def test_a_pipelined_body_too_large_is_refused_in_its_turn(*, whole: bool) -> None:
    async with scene(max_body_bytes=1000) as small:
        small.upstream.queue(scripts.held())
        line = await small.connect()
        too_large = request(body=b"x" * 5000)
        line.send(request(stream=True) + too_large[: None if whole else -3000])
        stream = await line.head()
        small.upstream.gate("go").set()
        assert (await stream.read_rest()).events()[-1] == "[DONE]"
        if not whole:
            await until(lambda: small.connections[0].serving is not None)
            line.send(too_large[-3000:])
        assert (await line.answer()).status == 413
        assert await line.closed() == b""
        assert len(small.upstream.requests) == 1


async def test_who_leaves_with_requests_in_the_pipeline_cancels_the_first(stage: Scene) -> None:
    stage.upstream.queue(scripts.broken(1, then=Stall()))
    line = await stage.connect()
    line.send(request(stream=True))
    stream = await line.head()
    await stream.next_chunk()
    line.send(request() + READY)
    await until(lambda: len(stage.connections[0].pipeline) == 2)
    stream.leave()
    await left(stage)
    assert len(stage.upstream.requests) == 1


async def test_who_leaves_within_a_pipelined_body_leaves_nothing_behind(stage: Scene) -> None:
    line = await stage.connect()
    stage.upstream.queue(scripts.held(after=0))
    line.send(request() + request()[:-10])
    await stage.upstream.seen(1)
    stage.upstream.gate("go").set()
    assert (await line.answer()).status == 200
    await until(lambda: stage.connections[0].serving is not None)
    line.writer.transport.abort()
    await until(lambda: not stage.connections and not stage.tasks)


# -- leaving


async def left(stage: Scene) -> None:
    """Check that the gateway has cancelled at the backend and holds nothing any more."""
    async with asyncio.timeout(wire.TIMEOUT):
        await stage.upstream.requests[0].connection.closed_by_peer.wait()
    await until(lambda: not stage.tasks)
    metrics = await wire.metrics(stage.url)
    assert metrics.value("synapse_client_disconnects_total") == 1
    assert metrics.value("synapse_in_flight") == 0


@pytest.mark.parametrize("how", ["reset", "closed", "half-closed"])
@pytest.mark.parametrize("begun", [False, True])
async def test_who_leaves_cancels_at_the_backend(stage: Scene, how: str, *, begun: bool) -> None:
    stage.upstream.queue(scripts.broken(1, then=Stall()) if begun else scripts.stall())
    line = await stage.connect()
    line.send(request(stream=True))
    if begun:
        await (await line.head()).next_chunk()
    else:
        await stage.upstream.seen(1)
    if how == "reset":
        line.writer.transport.abort()
    elif how == "closed":
        line.writer.close()
    else:
        line.writer.write_eof()
    await left(stage)


async def test_who_leaves_the_queue_gives_his_place_up() -> None:
    target = Target(backend="b", max_in_flight=1)
    async with scene(target=target, queue=Queue(size=5, deadline=60.0)) as small:
        small.upstream.queue(scripts.held(after=0))
        first, second, third = [await small.connect() for _ in range(3)]
        waiting = small.running.runtime.waiting
        first.send(request())
        await small.upstream.seen(1)
        second.send(request())
        await until(lambda: list(waiting.lengths()) == [("m", 1)])
        third.send(request())
        await until(lambda: list(waiting.lengths()) == [("m", 2)])
        second.writer.transport.abort()
        await until(lambda: list(waiting.lengths()) == [("m", 1)])
        small.upstream.gate("go").set()
        assert (await first.answer()).status == 200
        assert (await third.answer()).status == 200
        assert len(small.upstream.requests) == 2


async def test_who_leaves_while_the_backend_is_being_connected_to_leaves_nothing() -> None:
    with Blackhole() as nowhere:
        async with scene() as stage:
            fleet = stage.running.runtime.fleet
            upstreams = stage.running.runtime.gateway.state.upstreams
            pool = upstreams.of("b").pool
            port = int(nowhere.url.rpartition(":")[2])
            pool.address = pool.address._replace(port=port)
            line = await stage.connect()
            line.send(request())
            await until(lambda: fleet.backends["b"].in_flight == 1)
            line.writer.transport.abort()
            await until(lambda: fleet.backends["b"].in_flight == 0 and not stage.tasks)


async def test_who_leaves_within_his_own_body_was_never_there(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request()[:-5])
    await until(lambda: any(c.serving for c in stage.connections))
    line.writer.transport.abort()
    await until(lambda: not stage.connections)
    assert stage.upstream.requests == []
    await still_serves(stage)


# -- slow readers


WORD = "x" * 4000
MANY = 8000
LONG_TEXT = " ".join([WORD] * MANY)


async def test_a_slow_reader_slows_the_backend_and_not_the_gateways_memory(stage: Scene) -> None:
    stage.upstream.queue(scripts.answer([WORD] * MANY))
    line = await stage.connect()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line.send(request(stream=True))
    await stage.upstream.seen(1)
    [backend] = stage.upstream._open
    await until(lambda: any(c.flow.write_paused for c in stage.connections))
    [connection] = stage.connections
    await until(lambda: not backend._writable.is_set())
    assert connection.transport.get_write_buffer_size() < 2_000_000
    await still_serves(stage)
    line.writer.transport.resume_reading()  # type: ignore[attr-defined]
    answer = await line.answer()
    assert answer.ending is Ending.COMPLETE
    assert len(answer.text()) == len(LONG_TEXT)
    await still_serves(stage)


async def test_a_reader_who_has_not_read_the_last_answer_does_not_get_the_next(
    stage: Scene,
) -> None:
    audio = scripts.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/mpeg\r\ncontent-length: 20000000\r\n\r\n"
        + b"x" * 20_000_000
    )
    stage.upstream.queue(audio, scripts.answer([WORD] * MANY))
    line = await stage.connect()
    line.writer.transport.pause_reading()  # type: ignore[attr-defined]
    line.send(request("/v1/audio/speech", b'{"model":"m","input":"hello"}'))
    await until(lambda: any(c.flow.write_paused for c in stage.connections))
    line.send(request(stream=True))
    line.writer.transport.resume_reading()  # type: ignore[attr-defined]
    assert len((await line.answer()).body) == 20_000_000
    assert len((await line.answer()).text()) == len(LONG_TEXT)


# -- what a caller sees of the gateway's own failures


async def test_a_failure_of_the_gateway_is_500_without_its_insides(
    stage: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret of /etc")

    monkeypatch.setattr("synapse_gateway.api.gateway.prepare_json", fail)
    line = await stage.connect()
    line.send(request())
    answer = await line.answer()
    assert (answer.status, (answer.error() or {})["code"]) == (500, "internal")
    assert "secret" not in answer.body.decode()
    assert "secret of /etc" in caplog.text
    metrics = await wire.metrics(stage.url)
    assert metrics.value("synapse_requests_total", code="500") == 1


async def test_a_failure_in_the_middle_of_an_answer_cuts_it(
    stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("synapse_gateway.proxy.exchange.Exchange._break_off", fail)
    stage.upstream.queue(scripts.broken(1))
    line = await stage.connect()
    line.send(request(stream=True))
    answer = await line.answer()
    assert (answer.status, answer.ending) == (200, Ending.CUT)


async def test_every_field_of_the_answer_tells_the_truth(stage: Scene) -> None:
    line = await stage.connect()
    line.send(request(CHAT, None, "x-request-id: mine-1", "traceparent: bad"))
    answer = await line.answer()
    assert answer.header("x-request-id") == "mine-1"
    line.send(request(CHAT, None, "x-request-id: not good"))
    other = (await line.answer()).header("x-request-id")
    assert other
    assert other != "not good"
    assert json.loads(stage.upstream.requests[0].body)["model"] == "m"
