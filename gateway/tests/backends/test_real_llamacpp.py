"""Real llama.cpp with two slots: what a probe tells while they fill, and that it lets it sleep."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.backends import adapter
from synapse_gateway.config.settings import BackendType
from synapse_gateway.testing import wire
from tests.backends.support import WireHttp, server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from synapse_gateway.backends.base import Probe

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("xllamacpp") is None, reason="the package xllamacpp is missing"),
]


@asynccontextmanager
async def llamacpp(*options: str) -> AsyncIterator[str]:
    """Run a server with two slots and give its URL once it is up."""
    given = ("--model", "smollm2-135m-instruct", "--parallel", "2", "--ctx", "1024", *options)
    async with server("llama-cpp", "synapse_llama_cpp", *given) as url:
        await until(url, lambda probe: probe.up)
        yield url


async def until(url: str, condition: Callable[[Probe], bool]) -> Probe:
    """Probe until the condition holds."""
    kind = adapter(BackendType.LLAMACPP)
    async with asyncio.timeout(60):
        while not condition(probe := await kind.probe(WireHttp(url), None)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return probe


def chat(tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": "Count to a hundred."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
    }


async def test_slots_fill_and_requests_wait() -> None:
    async with llamacpp() as url:
        idle = await until(url, lambda _: True)
        assert (idle.slots, idle.busy, idle.waiting) == (2, 0, 0)

        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                path = "/v1/chat/completions"
                stream = await stack.enter_async_context(wire.open_stream(url, path, chat(400)))
                await stream.next_chunk()
            full = await until(url, lambda probe: probe.busy == 2)
            assert full.waiting == 0

            third = asyncio.create_task(wire.post(url, "/v1/chat/completions", chat(1)))
            queued = await until(url, lambda probe: bool(probe.waiting))
            assert (queued.busy, queued.waiting) == (2, 1)

        answer = await third
        assert answer.status == 200, "it was served once a slot was free"
        assert (await until(url, lambda probe: probe.busy == 0)).waiting == 0


async def test_probing_lets_it_sleep_and_does_not_wake_it() -> None:
    async with llamacpp("--sleep-idle", "1") as url:
        asleep = await until(url, lambda probe: "asleep" in probe.detail)
        assert (asleep.up, asleep.asleep) == (True, False)
        for _ in range(5):
            assert "asleep" in (await until(url, lambda _: True)).detail

        answer = await wire.post(url, "/v1/chat/completions", chat(1))

        assert answer.status == 200, "the request itself woke it"
        assert "asleep" not in (await until(url, lambda _: True)).detail


async def test_a_prompt_too_long_is_told_apart() -> None:
    async with llamacpp() as url:
        long = {"messages": [{"role": "user", "content": "word " * 2000}]}

        answer = await wire.post(url, "/v1/chat/completions", long)

        meaning = adapter(BackendType.LLAMACPP).refusal(answer.status, answer.body)
        assert (answer.status, meaning) == (400, "context_exceeded")
