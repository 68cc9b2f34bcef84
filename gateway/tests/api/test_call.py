"""The way back to a caller, byte by byte, and what happens when he is not there any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from synapse_gateway.api.call import Call

HEADERS = [(b"content-type", b"text/plain")]


class Transport:
    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


class Flow:
    write_paused = False


class Protocol:
    """As much of a `SynapseProtocol` as a call touches."""

    takes_chunks = True
    serving: Call | None = None

    def __init__(self) -> None:
        self.transport = Transport()
        self.flow = Flow()
        self.completed = 0

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def head(self, status: int) -> bytes:
        return b"HTTP/1.1 %d X\r\n" % status

    def on_response_complete(self) -> None:
        self.completed += 1


def call_on(protocol: Protocol, *, keep_alive: bool = True) -> Call:
    given: Any = protocol
    return Call(given, "/v1/chat/completions", {}, keep_alive=keep_alive)


def test_a_streamed_answer_is_chunked() -> None:
    protocol = Protocol()
    call = call_on(protocol)
    call.start(200, list(HEADERS), None, b"")
    call.write(b"one")
    call.pass_on(b"3\r\ntwo\r\n", [b"two"])
    send = call.sender()
    assert send is not None
    send(b"5\r\nthree\r\n")
    call.finish()
    assert protocol.transport.written == (
        b"HTTP/1.1 200 X\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n"
        b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n"
    )
    assert (protocol.completed, protocol.transport.closed) == (1, False)
    assert call.started


def test_an_answer_of_known_length_is_not_chunked() -> None:
    protocol = Protocol()
    call = call_on(protocol, keep_alive=False)
    call.start(200, list(HEADERS), 6, b"one")
    call.pass_on(b"1\r\nt\r\n2\r\nwo\r\n", [b"t", b"wo"])
    assert call.sender() is None
    call.finish()
    assert protocol.transport.written.endswith(
        b"content-length: 6\r\nconnection: close\r\n\r\nonetwo"
    )
    assert protocol.transport.closed


@pytest.mark.parametrize("way", ["start", "finish", "whole"])
def test_nothing_is_written_to_who_has_gone(way: str) -> None:
    protocol = Protocol()
    call = call_on(protocol)
    protocol.transport.closed = True
    arguments: dict[str, tuple[Any, ...]] = {
        "start": (200, HEADERS, None, b"x"),
        "finish": (),
        "whole": (200, HEADERS, b"x"),
    }
    getattr(call, way)(*arguments[way])
    assert protocol.transport.written == b""
    assert not call.started


def test_a_slow_caller_is_told_of_to_the_one_who_serves_him() -> None:
    protocol = Protocol()
    call = call_on(protocol)
    call.pause_writing()
    told: list[str] = []
    call.on_flow(lambda: told.append("pause"), lambda: told.append("resume"))
    call.pause_writing()
    call.resume_writing()
    call.whole(200, [], b"")
    call.pause_writing()
    assert told == ["pause", "resume"], "and of nothing once it is over"


def test_who_has_not_read_the_answer_before_is_slow_from_the_start() -> None:
    protocol = Protocol()
    protocol.flow.write_paused = True
    told: list[str] = []
    call_on(protocol).on_flow(lambda: told.append("pause"), lambda: told.append("resume"))
    assert told == ["pause"]


async def test_a_request_that_was_answered_while_it_waited_is_not_served() -> None:
    protocol = Protocol()
    call = call_on(protocol)
    call.wait_in_pipeline()
    assert call.body_complete() is False
    call.response_complete = True
    call.message_event.set()
    async with asyncio.timeout(5):
        await call.run_asgi(None)
    assert protocol.transport.written == b""
