"""What has ended is freed at once: what waits for the collector is memory that grows with load."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.testing import scripts
from synapse_gateway.testing.scripts import Stall
from tests.api.support import Line, Scene, request, scene, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    Case = Callable[[Scene, Line], Awaitable[object]]


async def answered(_stage: Scene, line: Line) -> None:
    line.send(request())
    await line.answer()


async def streamed(_stage: Scene, line: Line) -> None:
    line.send(request(stream=True))
    await line.answer()


async def of_an_unknown_model(_stage: Scene, line: Line) -> None:
    line.send(request(model="nope"))
    await line.answer()


async def failed_at_the_backend(stage: Scene, line: Line) -> None:
    stage.upstream.queue(scripts.status(503), scripts.status(503))
    line.send(request())
    await line.answer()


async def left_unanswered(stage: Scene, line: Line) -> None:
    stage.upstream.queue(scripts.stall())
    seen = len(stage.upstream.requests)
    line.send(request())
    await stage.upstream.seen(seen + 1)


async def left_within_a_stream(stage: Scene, line: Line) -> None:
    stage.upstream.queue(scripts.broken(2, then=Stall()))
    line.send(request(stream=True))
    await (await line.head()).next_chunk()


async def left_with_others_in_the_pipeline(stage: Scene, line: Line) -> None:
    stage.upstream.queue(scripts.stall())
    seen = len(stage.upstream.requests)
    line.send(request() + request() + request("/v1/models", method="GET"))
    await stage.upstream.seen(seen + 1)


@pytest.fixture
def collected() -> Iterator[Callable[[], set[str]]]:
    """Switch the collector off; the function names the gateway's objects that it would free."""

    def collect() -> set[str]:
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        gc.set_debug(0)
        kinds = {type(each) for each in gc.garbage}
        gc.garbage.clear()
        return {
            kind.__qualname__
            for kind in kinds
            if kind.__module__.startswith("synapse_gateway.")
            and not kind.__module__.startswith("synapse_gateway.testing.")
        }

    gc.collect()
    gc.disable()
    yield collect
    gc.enable()


@pytest.mark.parametrize(
    "case",
    [
        answered,
        streamed,
        of_an_unknown_model,
        failed_at_the_backend,
        left_unanswered,
        left_within_a_stream,
        left_with_others_in_the_pipeline,
    ],
)
async def test_a_request_that_has_ended_leaves_nothing_to_the_collector(
    case: Case, collected: Callable[[], set[str]]
) -> None:
    async with scene() as stage:
        for _ in range(2):
            # the first of a kind may leave what is made once
            gc.collect()
            line = await stage.connect()
            await case(stage, line)
            line.writer.transport.abort()
            await until(lambda: not stage.tasks and not stage.connections)
            await asyncio.sleep(0)
        stage.lines.clear()
        assert collected() == set()
