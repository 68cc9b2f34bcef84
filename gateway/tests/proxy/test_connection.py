from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse_gateway.proxy.connection import MAX_HEAD_BYTES, Broken
from tests.proxy.support import FakeTransport, Recorder, chunk, connection_on, held_outbox

if TYPE_CHECKING:
    from synapse_gateway.proxy.body import Body
    from synapse_gateway.proxy.connection import UpstreamConnection

SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6;note=x\r\n world\r\n0\r\n\r\n"
)


class Wire:
    """A connection with a request under way."""

    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.outbox = held_outbox()
        self.connection, self.idle, self.gone = connection_on(self.transport, self.outbox)
        self.receiver = Recorder()
        self.ask(self.receiver, b"body")

    def ask(self, receiver: Recorder, body: bytes | Body = b"") -> None:
        self.connection.send(b"HEAD\r\n\r\n", body, receiver)
        self.outbox.flush()

    def feed(self, data: bytes, cuts: list[int] | None = None) -> None:
        """Let the backend send these bytes, in as many reads as there are cuts."""
        start = 0
        for cut in [*sorted({cut % (len(data) + 1) for cut in cuts or []}), len(data)]:
            if data[start:cut] and not self.transport.aborted:
                self.connection.data_received(data[start:cut])
            start = cut

    def close(self, error: Exception | None = None) -> None:
        self.connection.connection_lost(error)

    @property
    def reusable(self) -> bool:
        return bool(self.idle) and not self.transport.aborted


CUTS = st.lists(st.integers(0, 10_000), max_size=12)


@given(cuts=CUTS)
def test_a_sized_response_is_read_however_it_arrives(cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(SIZED, cuts)
    assert (wire.receiver.status, wire.receiver.body) == (200, b"hello")
    assert wire.receiver.headers[0] == (b"content-type", b"application/json")
    assert wire.receiver.endings == ["end"]
    assert wire.reusable


@given(cuts=CUTS)
def test_a_chunked_response_is_read_however_it_arrives(cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(CHUNKED, cuts)
    assert (wire.receiver.body, wire.receiver.endings) == (b"hello world", ["end"])
    assert wire.reusable


CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=6)


@given(chunks=BODIES, cuts=CUTS)
def test_any_chunks_give_their_bytes(chunks: list[bytes], cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(CHUNKED_HEAD + b"".join(map(chunk, chunks)) + LAST, cuts)
    assert wire.receiver.body == b"".join(chunks)
    assert wire.receiver.endings == ["end"]


@given(reads=st.lists(BODIES.filter(bool), max_size=6))
def test_reads_of_whole_chunks_keep_their_framing(reads: list[list[bytes]]) -> None:
    wire = Wire()
    wire.feed(CHUNKED_HEAD + chunk(b"first"))
    framed = [b"".join(map(chunk, read)) for read in reads if b"\r\n" not in b"".join(read)]
    for read in reads:
        wire.feed(b"".join(map(chunk, read)))
    assert set(framed) <= set(wire.receiver.framed)
    wire.feed(LAST)
    assert wire.receiver.body == b"first" + b"".join(b"".join(read) for read in reads)
    assert wire.receiver.endings == ["end"]
    assert wire.reusable


PIECES = st.sampled_from(
    [
        b"5\r\nhello\r\n",
        b"05\r\nhello\r\n",
        b"5;note=x\r\nhello\r\n",
        b"5 \r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"1_0\r\n0123456789abcdef\r\n",
        b"A\r\n0123456789\r\n",
        b"a\r\n0123456789\r\n",
        b"a\r\n1\r\n2\r\n3\r\n4\r\n",
        b"6\r\n5\r\nabc\r\n",
        b"2\r\n\r\n\r\n",
        b"6\r\nhello\r\n",
        b"4\r\nhello\r\n",
        b"5\nhello\n",
        b"5\r\n",
        b"\r\n",
        b"5",
        b"\r",
        b"hello",
        LAST,
        b"0\r\nx-late: 1\r\n\r\n",
    ]
)


@given(reads=st.lists(st.lists(PIECES, min_size=1, max_size=3).map(b"".join), max_size=6))
def test_chunks_mean_the_same_whole_or_byte_by_byte(reads: list[bytes]) -> None:
    whole, bytewise = Wire(), Wire()
    for wire in (whole, bytewise):
        wire.feed(CHUNKED_HEAD)
    for read in reads:
        whole.feed(read)
    for byte in b"".join(reads):
        bytewise.feed(bytes([byte]))
    for wire in (whole, bytewise):
        wire.close()
    assert whole.receiver.endings == bytewise.receiver.endings
    # of a read that the parser refuses it may have given the beginning
    assert bytewise.receiver.body.startswith(whole.receiver.body)
    if whole.receiver.endings == ["end"]:
        assert whole.receiver.body == bytewise.receiver.body


@given(data=st.binary(max_size=400), cuts=CUTS)
def test_any_bytes_end_in_one_way(data: bytes, cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(data, cuts)
    wire.close()
    assert len(wire.receiver.endings) == 1


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_behind_a_good_head_end_in_one_way(data: bytes, cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(CHUNKED_HEAD + data, cuts)
    wire.close()
    assert len(wire.receiver.endings) == 1


# -- sending


def test_a_small_request_is_one_write() -> None:
    assert Wire().transport.written == [b"HEAD\r\n\r\nbody"]


def test_a_large_body_is_not_copied_behind_its_head() -> None:
    wire = Wire()
    wire.feed(SIZED)
    wire.transport.written.clear()
    wire.ask(Recorder(), b"x" * 65536)
    assert wire.transport.written == [b"HEAD\r\n\r\n", b"x" * 65536]


@pytest.mark.parametrize(("used", "why"), [(False, Broken.MALFORMED), (True, Broken.STALE)])
def test_what_comes_before_the_request_has_left_is_no_answer_to_it(
    *, used: bool, why: Broken
) -> None:
    transport, outbox, early = FakeTransport(), held_outbox(), Recorder()
    connection, _, _ = connection_on(transport, outbox)
    connection.used = used
    connection.send(b"HEAD\r\n\r\n", b"", early)
    connection.data_received(SIZED)
    outbox.flush()
    assert early.endings == [why]
    assert transport.written == []
    assert not connection.usable


# -- reuse


def test_a_connection_serves_one_request_after_the_other() -> None:
    wire = Wire()
    for _ in range(3):
        wire.feed(SIZED)
        assert wire.receiver.endings == ["end"]
        wire.receiver = Recorder()
        wire.ask(wire.receiver)
    wire.feed(CHUNKED)
    assert wire.receiver.body == b"hello world"
    assert wire.connection.used
    assert len(wire.idle) == 4


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nConnection: close\r\n", id="connection-close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n", id="http-1.0"),
    ],
)
def test_a_connection_that_the_backend_will_close_is_not_reused(head: bytes) -> None:
    wire = Wire()
    wire.feed(head + b"Content-Length: 5\r\n\r\nhello")
    assert (wire.receiver.body, wire.receiver.endings) == (b"hello", ["end"])
    assert wire.transport.aborted
    assert not wire.idle


def test_http_1_0_may_ask_to_keep_it_open() -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
    assert wire.receiver.endings == ["end"]
    assert wire.reusable


def test_an_answer_to_a_request_that_was_not_read_whole_ends_the_connection() -> None:
    wire = Wire()
    wire.transport.unsent = 1
    wire.feed(SIZED)
    assert wire.receiver.endings == ["end"]
    assert not wire.idle
    assert wire.transport.aborted


def test_a_connection_paused_by_its_last_bytes_reads_on_for_the_next_request() -> None:
    wire = Wire()

    def pause(data: bytes) -> None:
        wire.connection.pause(wire.receiver)

    wire.receiver.on_body = pause  # type: ignore[method-assign]
    wire.feed(SIZED)
    assert wire.reusable
    assert wire.transport.reading


def test_bytes_on_an_idle_connection_end_it() -> None:
    wire = Wire()
    wire.feed(SIZED)
    wire.connection.data_received(b"HTTP/1.1 200 OK\r\n")
    assert wire.transport.aborted
    assert not wire.connection.usable


@given(garbage=st.binary(min_size=1, max_size=100))
def test_bytes_behind_a_response_spoil_the_connection_but_not_the_response(garbage: bytes) -> None:
    wire = Wire()
    wire.connection.data_received(SIZED + garbage)
    assert (wire.receiver.body, wire.receiver.endings) == (b"hello", ["end"])
    # line ends in front of a message are allowed (RFC 9112, 2.2)
    assert wire.reusable == (not garbage.strip(b"\r\n"))


def test_a_second_response_behind_the_first_is_nobodys() -> None:
    wire = Wire()
    wire.connection.data_received(SIZED + SIZED.replace(b"hello", b"other"))
    assert (wire.receiver.body, wire.receiver.endings) == (b"hello", ["end"])
    assert not wire.idle


# -- bodies without a length


@given(body=st.binary(max_size=300), cuts=CUTS)
def test_a_body_may_end_with_the_connection(body: bytes, cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 200 OK\r\n\r\n" + body, cuts)
    assert not wire.receiver.endings
    wire.close()
    assert (wire.receiver.body, wire.receiver.endings) == (body, ["end"])
    assert not wire.idle


def test_a_reset_is_not_the_end_of_such_a_body() -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 200 OK\r\n\r\nhel")
    wire.close(ConnectionResetError())
    assert wire.receiver.endings == [Broken.CUT]


def test_a_coding_that_does_not_end_in_chunked_is_not_whole() -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhel")
    wire.close()
    assert wire.receiver.endings == [Broken.CUT]


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_ends_though_the_connection_is_to_close(status: int) -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 %d X\r\nConnection: close\r\n\r\n" % status)
    assert wire.receiver.endings == ["end"]
    assert not wire.idle


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_ends_with_its_head(status: int) -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert (wire.receiver.body, wire.receiver.endings) == (b"", ["end"])
    assert wire.reusable


# -- interim responses, trailers


@given(cuts=CUTS)
def test_interim_responses_are_passed_over(cuts: list[int]) -> None:
    wire = Wire()
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    wire.feed(early + SIZED, cuts)
    assert wire.receiver.status == 200
    assert [name for name, _ in wire.receiver.headers] == [b"content-type", b"content-length"]
    assert wire.receiver.endings == ["end"]
    assert wire.reusable


def test_interim_responses_without_end_are_malformed() -> None:
    wire = Wire()
    for _ in range(4000):
        wire.feed(b"HTTP/1.1 102 Processing\r\n\r\n")
    assert wire.receiver.endings == [Broken.MALFORMED]
    assert wire.transport.aborted


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n", id="asked-by-headers"),
        pytest.param(b"\r\n", id="bare"),
    ],
)
def test_switching_protocols_is_no_answer(head: bytes) -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 101 Switching Protocols\r\n" + head + b"\x00\x01\x02")
    wire.close()
    assert wire.receiver.status == 0
    assert wire.receiver.endings in ([Broken.MALFORMED], [Broken.CUT])
    assert not wire.idle


def test_trailers_are_not_headers() -> None:
    wire = Wire()
    wire.feed(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-late: 1\r\n\r\n"
    )
    assert wire.receiver.headers == [(b"transfer-encoding", b"chunked")]
    assert wire.receiver.endings == ["end"]
    assert wire.reusable


# -- what is not HTTP


MALFORMED = [
    pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n", id="another-protocol"),
    pytest.param(b"HTTP/1.1 2x0 OK\r\n\r\n", id="status"),
    pytest.param(b"HTTP/9.9 200 OK\r\n\r\n", id="version"),
    pytest.param(b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", id="header"),
    pytest.param(b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n", id="header-name"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        id="length-and-chunked",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        id="chunked-and-length",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", id="two-lengths"
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nhello", id="negative-length"),
    pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5x\r\n\r\nhello", id="no-number"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nhello", id="huge-length"
    ),
    pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="chunk-size"),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n", id="negative-chunk"
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        id="huge-chunk",
    ),
    pytest.param(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n", id="chunk-too-long"
    ),
]


@pytest.mark.parametrize("data", MALFORMED)
@settings(max_examples=25)
@given(cuts=CUTS)
def test_what_breaks_the_rules_ends_the_connection(data: bytes, cuts: list[int]) -> None:
    wire = Wire()
    wire.feed(data, cuts)
    assert wire.receiver.endings == [Broken.MALFORMED]
    assert wire.transport.aborted
    assert not wire.idle


def test_a_head_larger_than_the_limit_is_malformed() -> None:
    wire = Wire()
    line = b"x-filler: " + b"x" * 1000 + b"\r\n"
    for data in [b"HTTP/1.1 200 OK\r\n", *[line] * (MAX_HEAD_BYTES // len(line) + 1)]:
        wire.feed(data)
    assert wire.receiver.endings == [Broken.MALFORMED]


def test_a_head_of_nearly_the_limit_is_taken() -> None:
    wire = Wire()
    wire.feed(b"HTTP/1.1 200 OK\r\n")
    for _ in range(60):
        wire.feed(b"x-filler: " + b"x" * 1000 + b"\r\n")
    wire.feed(b"content-length: 0\r\n\r\n")
    assert wire.receiver.endings == ["end"]
    assert len(wire.receiver.headers) == 61


# -- early ends


def test_closed_before_the_first_byte_is_a_reset() -> None:
    wire = Wire()
    wire.close()
    assert wire.receiver.endings == [Broken.RESET]
    assert wire.gone == [wire.connection]


def test_closed_before_the_first_byte_of_a_reused_one_is_stale() -> None:
    wire = Wire()
    wire.feed(SIZED)
    again = Recorder()
    wire.ask(again)
    wire.close(ConnectionResetError())
    assert again.endings == [Broken.STALE]


@given(kept=st.integers(1, len(CHUNKED) - 1))
def test_closed_within_a_response_is_a_cut(kept: int) -> None:
    wire = Wire()
    wire.feed(CHUNKED[:kept])
    wire.close()
    assert wire.receiver.endings == [Broken.CUT]


def test_an_idle_connection_that_closes_tells_its_pool_only() -> None:
    wire = Wire()
    wire.feed(SIZED)
    wire.close()
    assert wire.receiver.endings == ["end"]
    assert wire.gone == [wire.connection]
    assert not wire.connection.usable


# -- what an exchange does


def test_leaving_a_response_under_way_closes_and_says_nothing_more() -> None:
    wire = Wire()
    wire.feed(CHUNKED[:60])
    wire.connection.leave(wire.receiver)
    assert wire.transport.aborted
    wire.connection.data_received(CHUNKED[60:])
    wire.close()
    assert wire.receiver.endings == []


def test_leaving_after_the_end_keeps_the_connection() -> None:
    wire = Wire()
    wire.feed(SIZED)
    wire.connection.leave(wire.receiver)
    assert wire.reusable


def test_leaving_late_does_not_touch_the_request_that_has_the_connection_by_now() -> None:
    wire = Wire()
    before = wire.receiver
    wire.feed(SIZED)
    next_one = type(before)()
    wire.ask(next_one)
    wire.connection.leave(before)
    assert not wire.transport.aborted
    wire.connection.data_received(SIZED)
    assert next_one.endings == before.endings


def test_leaving_does_not_end_the_next_request_on_the_connection() -> None:
    wire = Wire()
    wire.feed(SIZED)
    again = Recorder()
    wire.ask(again)
    wire.connection.leave(wire.receiver)
    wire.feed(SIZED)
    assert again.endings == ["end"]


@pytest.mark.parametrize("callback", ["on_head", "on_body"])
@pytest.mark.parametrize("data", [CHUNKED, CHUNKED.replace(b"6;note=x", b"zz")])
def test_a_receiver_may_leave_within_its_callback(callback: str, data: bytes) -> None:
    wire = Wire()

    def leave(*_: object) -> None:
        wire.connection.abort()

    setattr(wire.receiver, callback, leave)
    wire.connection.data_received(data)
    assert wire.receiver.endings == []
    assert wire.transport.aborted
    assert not wire.idle


def test_a_read_that_the_receiver_relays_is_not_looked_at() -> None:
    wire = Wire()
    wire.receiver.relays = True
    wire.connection.data_received(CHUNKED_HEAD + chunk(b"first") + b"5\r")
    # not at the beginning of a chunk
    wire.connection.data_received(b"\nother\r\n")
    wire.connection.data_received(b"whatever it is")
    wire.receiver.relays = False
    wire.connection.data_received(chunk(b"last") + LAST)
    assert wire.receiver.relayed == [b"whatever it is"]
    assert (wire.receiver.body, wire.receiver.endings) == (b"firstotherlast", ["end"])
    assert wire.reusable


def test_a_receiver_may_leave_as_it_relays() -> None:
    wire = Wire()
    wire.feed(CHUNKED_HEAD + chunk(b"first"))

    def leave(raw: bytes) -> bool:
        wire.connection.abort()
        return bool(raw)

    wire.receiver.relay = leave  # type: ignore[method-assign]
    wire.connection.data_received(chunk(b"second"))
    wire.connection.data_received(chunk(b"third"))
    assert (wire.receiver.body, wire.receiver.endings) == (b"first", [])
    assert wire.transport.aborted


def test_a_receiver_may_leave_as_it_takes_whole_chunks() -> None:
    wire = Wire()
    wire.receiver.on_chunks = lambda *_: wire.connection.abort()  # type: ignore[method-assign]
    wire.feed(CHUNKED_HEAD + chunk(b"first"))
    for data in (chunk(b"second"), chunk(b"third"), LAST):
        wire.connection.data_received(data)
    assert (wire.receiver.body, wire.receiver.endings) == (b"first", [])
    assert wire.transport.aborted


def test_a_slow_callers_pause_reaches_the_backend() -> None:
    wire = Wire()
    wire.connection.pause(wire.receiver)
    assert not wire.transport.reading
    wire.connection.resume(wire.receiver)
    assert wire.transport.reading


def test_nothing_is_asked_of_a_connection_that_is_gone() -> None:
    wire = Wire()
    wire.close()
    wire.connection.pause(wire.receiver)
    wire.connection.abort()
    assert wire.transport.reading
    wire.transport.reading = False
    wire.connection.resume(wire.receiver)
    assert not wire.transport.reading
    assert not wire.transport.aborted


def closing(wire: Wire) -> UpstreamConnection:
    wire.transport.aborted = True
    return wire.connection


def test_a_transport_that_is_closing_takes_no_request() -> None:
    assert not closing(Wire()).usable


# -- bodies that are sent piece by piece


class Slow:
    """A body whose pieces come when the test says so."""

    def __init__(self, *parts: bytes, error: OSError | None = None) -> None:
        self._parts = list(parts)
        self._error = error
        self.length = sum(map(len, parts)) + (1 if error else 0)
        self.asked: list[int] = []

    async def read(self, at: int) -> bytes:
        self.asked.append(at)
        await asyncio.sleep(0)
        if not self._parts and self._error is not None:
            raise self._error
        return self._parts.pop(0)


def sending(body: Slow) -> Wire:
    wire = Wire()
    wire.feed(SIZED)
    wire.receiver = Recorder()
    wire.transport.written.clear()
    wire.ask(wire.receiver, body)
    return wire


async def turns(count: int = 6) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_body_is_written_piece_by_piece() -> None:
    body = Slow(b"one", b"two")
    wire = sending(body)
    assert wire.transport.written == [b"HEAD\r\n\r\n"]
    await turns()
    assert wire.transport.written[1:] == [b"one", b"two"]
    assert body.asked == [0, 3]
    wire.feed(SIZED)
    assert wire.receiver.endings == ["end"]
    assert len(wire.idle) == 2


async def test_no_more_is_read_than_the_backend_takes() -> None:
    body = Slow(b"one", b"two")
    wire = sending(body)
    wire.connection.pause_writing()
    await turns()
    assert (wire.transport.written[1:], body.asked) == ([b"one"], [0])
    wire.connection.resume_writing()
    await turns()
    assert body.asked == [0, 3]


async def test_a_connection_answered_before_it_was_sent_all_is_not_used_again() -> None:
    body = Slow(b"one", b"two")
    wire = sending(body)
    wire.connection.pause_writing()
    await turns()
    wire.feed(SIZED)
    assert wire.receiver.endings == ["end"]
    assert wire.transport.aborted
    wire.connection.resume_writing()
    await turns()
    assert body.asked == [0]


async def test_giving_a_request_up_ends_its_sending() -> None:
    body = Slow(b"one", b"two")
    wire = sending(body)
    wire.connection.leave(wire.receiver)
    await turns()
    assert wire.transport.written[1:] == []


async def test_a_connection_that_is_lost_ends_the_sending() -> None:
    body = Slow(b"one", b"two")
    wire = sending(body)
    await asyncio.sleep(0)
    wire.close(ConnectionResetError())
    await turns()
    assert wire.transport.written[1:] == []
    assert wire.receiver.endings == [Broken.STALE]


async def test_a_body_that_cannot_be_read_is_told_apart() -> None:
    wire = sending(Slow(b"one", error=OSError(5, "Input/output error")))
    await turns()
    assert wire.receiver.endings == [Broken.UNREADABLE]
    assert wire.transport.aborted


async def test_flow_is_nobodys_business_between_requests() -> None:
    wire = Wire()
    wire.connection.pause_writing()
    wire.connection.resume_writing()
    wire.feed(SIZED)
    assert wire.reusable


async def test_a_late_pause_does_not_stop_who_has_the_connection_by_then() -> None:
    wire = Wire()
    wire.feed(SIZED)
    wire.connection.pause(wire.receiver)
    assert wire.transport.reading
    wire.ask(Recorder())
    wire.connection.pause(wire.receiver)
    assert wire.transport.reading
    wire.connection.resume(wire.receiver)
