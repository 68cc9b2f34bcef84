"""Backends that go while many requests are under way, and an outage of all of them.

The counterpart with real servers is `tests/real/test_killed_server.py`.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    Breaker,
    Limits,
    Model,
    Queue,
    Settings,
    Target,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.wire import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Script
    from synapse_gateway.testing.wire import Answer

CHAT = "/v1/chat/completions"
BEGUN = 50
WAITING = 30
OUTAGE = 200


class Deployment(NamedTuple):
    url: str
    first: FaultyUpstream
    second: FaultyUpstream


@asynccontextmanager
async def deployment(limits: Limits) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(FaultyUpstream())
        second = await stack.enter_async_context(FaultyUpstream())
        settings = Settings(
            auth=AuthMode.ANONYMOUS,
            # nothing is probed but once at the start: what requests met is what shall count
            backends={
                name: Backend(url=upstream.url, probe_interval=3600.0)
                for name, upstream in (("first", first), ("second", second))
            },
            models={
                "m": Model(
                    targets=(Target(backend="first"), Target(backend="second", order=2)),
                    attempts=3,
                )
            },
            limits=limits,
        )
        gateway = await stack.enter_async_context(app.running(settings))
        yield Deployment(gateway.url, first, second)


def body(text: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], "stream": True}


async def ask(url: str, text: str, begun: asyncio.Semaphore) -> Answer:
    async with wire.open_stream(url, CHAT, body(text)) as stream:
        begun.release()
        return await stream.read_rest()


async def test_fifty_begun_streams_end_with_an_error_and_those_in_waiting_move_on() -> None:
    async with deployment(Limits(breaker=Breaker(cool_down=3600.0))) as both:
        begins, waits = scripts.held(after=2, gate="never"), scripts.stall()

        def choose(request: Request) -> Script:
            return begins if request.json()["messages"][0]["content"] == "begin" else waits

        both.first.when(choose)
        begun = asyncio.Semaphore(0)
        texts = ["begin"] * BEGUN + ["wait"] * WAITING
        tasks = [asyncio.create_task(ask(both.url, text, begun)) for text in texts]
        for _ in range(BEGUN):
            await begun.acquire()
        await both.first.seen(BEGUN + WAITING)

        await both.first.refuse(drop=True)
        answers = await asyncio.gather(*tasks)

        for answer in answers[:BEGUN]:
            assert answer.ending is Ending.COMPLETE
            assert "[DONE]" not in answer.events()
            assert (answer.error() or {})["code"] == "stream_cut"
        for answer in answers[BEGUN:]:
            assert answer.text() == "alpha beta gamma"
            assert answer.events()[-1] == "[DONE]"
            assert answer.header("x-synapse-backend") == "second"
            assert answer.header("x-synapse-fallback") == "reset"
        metrics = await wire.metrics(both.url)
        assert metrics.value("synapse_cut_streams_total", backend="first") == BEGUN
        assert metrics.value("synapse_breaker_state", backend="first") == 2
        assert metrics.value("synapse_breaker_state", backend="second") == 0


FAULTS = {
    "reset": scripts.reset(),
    "500": scripts.status(500),
    "503": scripts.status(503),
    "error-first": scripts.error_first(),
    "empty": scripts.empty(),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
async def test_an_outage_of_all_targets_stays_an_outage_and_becomes_no_storm(fault: Script) -> None:
    # a cool-down so short that half-open probes are among what is counted
    limits = Limits(breaker=Breaker(cool_down=0.05), queue=Queue(size=1000, deadline=0.2))
    async with deployment(limits) as both:
        both.first.script = both.second.script = fault
        while await open_breakers(both.url) < 2:
            await asyncio.gather(*(wire.post(both.url, CHAT, body("hi")) for _ in range(10)))
        before = attempts(both)

        answers = await asyncio.gather(
            *(wire.post(both.url, CHAT, body("hi")) for _ in range(OUTAGE))
        )

        made = attempts(both) - before
        assert {answer.status for answer in answers} <= {502, 503, 504}
        assert all(answer.ending is Ending.COMPLETE for answer in answers)
        assert made <= 1.2 * OUTAGE
        print(f"\nattempts for each request: {made / OUTAGE:.2f}")  # noqa: T201


def attempts(both: Deployment) -> int:
    return len(both.first.requests) + len(both.second.requests)


async def open_breakers(url: str) -> int:
    metrics = await wire.metrics(url)
    states = (metrics.value("synapse_breaker_state", backend=name) for name in ("first", "second"))
    return sum(state == 2 for state in states)


async def test_the_official_client_raises_where_a_stream_broke_off() -> None:
    async with deployment(Limits()) as both:
        both.first.script = scripts.broken(2, then=scripts.Close())
        async with openai.AsyncOpenAI(
            base_url=f"{both.url}/v1", api_key="any", max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "hi"}], stream=True
            )
            heard: list[str | None] = []

            async def listen() -> None:
                async for chunk in stream:
                    heard.append(chunk.choices[0].delta.content)  # noqa: PERF401 - up to the error

            with pytest.raises(openai.APIError) as caught:
                await listen()
        assert "".join(word or "" for word in heard) == "alpha beta"
        assert caught.value.code == "stream_cut"
