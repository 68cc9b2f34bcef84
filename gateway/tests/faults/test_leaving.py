"""The rows of the failover table that can happen at any time: the caller leaves, time runs out."""

from __future__ import annotations

import asyncio
import json

import pytest

from synapse_gateway.config.settings import Timeouts
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Stall
from synapse_gateway.testing.wire import Ending
from tests.faults.support import CHAT, Pair, pair

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


async def leave_unanswered(both: Pair, *, stream: bool) -> None:
    """Send a request, wait until the first target has it, and go away with RST."""
    raw = json.dumps(both.body(stream=stream)).encode()
    host, port = both.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(raw)}\r\n\r\n".encode() + raw)
    await both.first.seen(1)
    writer.transport.abort()


async def assert_nothing_held_against(both: Pair) -> None:
    """Check that the caller's leaving is neither failure nor success, and not tried elsewhere."""
    async with asyncio.timeout(5):
        await both.first.requests[0].connection.closed_by_peer.wait()
        await both.until("synapse_client_disconnects_total", 1)
    metrics = await both.metrics()
    assert metrics.value("synapse_attempts_total", backend="first", outcome="caller_left") == 1
    assert metrics.value("synapse_attempts_total") == 1
    assert metrics.value("synapse_breaker_state", backend="first") == 0
    assert metrics.value("synapse_in_flight") == 0
    assert both.seen == (1, 0)


@BOTH
async def test_leaving_before_the_answer_cancels_it_at_the_backend(*, stream: bool) -> None:
    async with pair(failures=1) as both:
        both.first.queue(scripts.stall())

        await leave_unanswered(both, stream=stream)

        await assert_nothing_held_against(both)


@BOTH
async def test_leaving_after_the_head_cancels_it_at_the_backend(*, stream: bool) -> None:
    async with pair(failures=1) as both:
        both.first.queue(scripts.head_only())

        await leave_unanswered(both, stream=stream)

        await assert_nothing_held_against(both)


async def test_leaving_in_the_middle_of_a_stream_cancels_it_at_the_backend() -> None:
    async with pair(failures=1) as both:
        both.first.queue(scripts.broken(2, then=Stall()))

        async with wire.open_stream(both.url, CHAT, both.body(stream=True)) as stream:
            await stream.next_chunk()
            stream.leave()

        await assert_nothing_held_against(both)


OVERALL = Timeouts(connect=5.0, first_token=30.0, first_byte=30.0, between_tokens=30.0, overall=0.5)


@BOTH
async def test_time_that_runs_out_before_the_answer_is_504(*, stream: bool) -> None:
    async with pair(timeouts=OVERALL) as both:
        both.first.queue(scripts.stall())

        answer = await both.ask(stream=stream)

        assert (answer.status, answer.ending) == (504, Ending.COMPLETE)
        assert (answer.error() or {})["type"] == "timeout_error"
        async with asyncio.timeout(5):
            await both.first.requests[0].connection.closed_by_peer.wait()
        assert both.seen == (1, 0)


async def test_time_that_runs_out_in_a_stream_is_an_error_in_band() -> None:
    async with pair(timeouts=OVERALL) as both:
        both.first.queue(scripts.answer(["word"] * 2000, interval=0.02))

        answer = await both.ask(stream=True)

        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        assert (answer.error() or {})["code"] == "stream_deadline"
        assert "[DONE]" not in answer.events()
        async with asyncio.timeout(5):
            await both.first.requests[0].connection.closed_by_peer.wait()
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome="deadline") == 1
        assert metrics.value("synapse_cut_streams_total", reason="deadline") == 1
