"""The failover table once the caller has begun to read: never a clean end, never a repetition."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

import pytest

from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Close, Reset, Stall
from synapse_gateway.testing.wire import Ending
from tests.faults.support import CHAT, LONG, SHORT_BETWEEN, pair

if TYPE_CHECKING:
    from synapse_gateway.config.settings import Timeouts
    from synapse_gateway.testing.scripts import Script


class Row(NamedTuple):
    """A way to fail in the middle of a stream."""

    script: Script
    outcome: str
    said: str = "alpha beta"

    @property
    def patience(self) -> Timeouts:
        """Deadlines of a target that fails so."""
        return SHORT_BETWEEN if self.outcome == "stalled" else LONG


ROWS = [
    pytest.param(Row(scripts.broken(2, then=Close()), "cut"), id="fin"),
    pytest.param(Row(scripts.broken(2, then=Reset()), "cut"), id="rst"),
    pytest.param(Row(scripts.broken(2, then=Stall()), "stalled"), id="stall"),
    pytest.param(Row(scripts.malformed_event(2), "malformed_event"), id="malformed-event"),
    pytest.param(Row(scripts.error_event(2), "error_event"), id="error-event"),
    pytest.param(Row(scripts.without_finish(), "cut", "alpha beta gamma"), id="clean-but-early"),
    pytest.param(Row(scripts.broken(1, then=Close()), "cut", "alpha"), id="after-the-first-word"),
]


@pytest.mark.parametrize("row", ROWS)
async def test_a_cut_stream_ends_with_an_error_and_never_cleanly(row: Row) -> None:
    async with pair(patience=row.patience) as both:
        both.first.queue(row.script)

        answer = await both.ask(stream=True)

        assert answer.status == 200
        assert answer.ending is Ending.COMPLETE, "the error is whole, so the body ends properly"
        events = answer.events()
        assert "[DONE]" not in events
        error = answer.error()
        assert error is not None
        assert set(error) == {"message", "type", "param", "code"}
        assert error["code"] == f"stream_{row.outcome}"
        assert "127.0.0.1" not in answer.body.decode()
        words = wire.Answer(chunks=[("data: " + e + "\n\n").encode() for e in events[:-1]])
        assert words.text() == row.said, "what was said is said once"
        assert answer.header("x-synapse-backend") == "first"
        assert answer.header("x-synapse-attempts") == "1"
        assert answer.header("x-synapse-fallback") is None
        assert both.seen == (1, 0)

        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", backend="first", outcome=row.outcome) == 1
        assert metrics.value("synapse_cut_streams_total", backend="first", reason=row.outcome) == 1
        assert metrics.value("synapse_fallbacks_total") == 0


@pytest.mark.parametrize("row", ROWS)
async def test_a_cut_stream_is_a_failure_of_its_target(row: Row) -> None:
    async with pair(patience=row.patience, failures=1) as both:
        both.first.queue(row.script)
        await both.ask(stream=True)

        assert (await both.metrics()).value("synapse_breaker_state", backend="first") == 2


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/responses", "/v1/messages"])
async def test_other_streams_end_with_an_error_too(path: str) -> None:
    async with pair() as both:
        both.first.queue(scripts.broken(2, then=Close()))

        answer = await both.ask(stream=True, path=path, prompt="hi", input="hi", max_tokens=9)

        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        assert answer.error() is not None, answer.body
        assert not {"[DONE]", "message_stop", "response.completed"} & set(answer.events())
        assert b"message_stop" not in answer.body
        assert b"response.completed" not in answer.body
        assert both.seen == (1, 0)


@pytest.mark.parametrize("then", [Close(), Reset(), Stall()], ids=["fin", "rst", "stall"])
async def test_an_answer_too_large_to_be_held_is_cut_as_it_was(then: scripts.Step) -> None:
    stalls = isinstance(then, Stall)
    async with pair(patience=SHORT_BETWEEN if stalls else LONG, hold_bytes=1024) as both:
        words = ["word"] * 4000
        both.first.queue(scripts.broken(then=then, words=words))

        answer = await both.ask(stream=False)

        assert answer.status == 200
        assert answer.ending is Ending.CUT
        assert answer.header("x-synapse-backend") == "first"
        assert both.seen == (1, 0)
        outcome = "stalled" if stalls else "cut"
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome=outcome) == 1


async def test_speech_that_is_cut_is_not_whole() -> None:
    async with pair(hold_bytes=1024) as both:
        both.first.queue(scripts.broken(then=Close(), words=["la"] * 20))

        answer = await both.ask(stream=False, path="/v1/audio/speech", input="la", voice="x")

        assert (answer.status, answer.ending) == (200, Ending.CUT)
        assert both.seen == (1, 0)


async def test_fifty_begun_streams_each_end_with_the_error() -> None:
    async with pair() as both, AsyncExitStack() as stack:
        both.first.script = scripts.broken(2, then=scripts.Hold())
        streams = [
            await stack.enter_async_context(
                wire.open_stream(both.url, CHAT, both.body(stream=True))
            )
            for _ in range(50)
        ]
        for stream in streams:
            await stream.next_chunk()

        await both.first.refuse(drop=True)
        answers = await asyncio.gather(*(stream.read_rest() for stream in streams))

        assert [(answer.error() or {}).get("code") for answer in answers] == ["stream_cut"] * 50
        assert not any("[DONE]" in answer.events() for answer in answers)
        assert both.seen == (50, 0), "what was begun is repeated nowhere"
        metrics = await both.metrics()
        assert metrics.value("synapse_cut_streams_total", reason="cut") == 50
        after = await both.ask(stream=True)
        assert after.header("x-synapse-backend") == "second"
        assert after.text() == "alpha beta gamma"
