"""Replicas look at a backend in turns, through a real Redis, and each alone without it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.backends.base import DiscoveredModel, ModelFile, Probe
from synapse_gateway.backends.rounds import MAX_SHARED_BYTES, Rounds
from synapse_gateway.config.settings import Backend
from synapse_gateway.shared_state import SharedState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.auth.conftest import RedisServer

CONFIG = Backend(url="http://127.0.0.1:9", probe_interval=60.0)


class Replica:
    """One replica's rounds, and how often it looked for itself."""

    def __init__(self, shared: SharedState, detail: str) -> None:
        self.rounds = Rounds(shared)
        self.looks = 0
        self.result = Probe(
            up=True,
            status=200,
            detail=detail,
            models=(DiscoveredModel("m", file=ModelFile(size=1)),),
            busy=2,
        )

    async def look(self, *, urgent: bool = False, config: Backend = CONFIG) -> Probe | None:
        return await self.rounds.look("a", config, self._probe, urgent=urgent)

    async def _probe(self) -> Probe:
        self.looks += 1
        return self.result


@pytest.fixture
async def shared(redis_server: RedisServer) -> AsyncIterator[SharedState]:
    state = SharedState(redis_server.url, interval=0.02)
    await state.start()
    yield state
    await state.stop()


async def test_one_replica_looks_and_the_others_take_it_over(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")

    mine = await first.look()
    theirs = await second.look()

    assert mine == theirs == first.result
    assert (first.looks, second.looks) == (1, 0)


async def test_a_result_is_given_out_once(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    await first.look()

    assert await second.look() == first.result
    assert await second.look() is None
    assert await first.look() is None, "its own is not news to it either"


async def test_a_failed_request_looks_at_once_and_shares(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    await first.look()

    assert await second.look(urgent=True) == second.result
    assert await first.look() == second.result
    assert (first.looks, second.looks) == (1, 1)


async def test_the_next_round_is_anybodys(shared: SharedState) -> None:
    config = Backend(url="http://127.0.0.1:9", probe_interval=0.05)
    first, second = Replica(shared, "first"), Replica(shared, "second")
    await first.look(config=config)

    async with asyncio.timeout(5):
        while not second.looks:
            await second.look(config=config)
            await asyncio.sleep(0.005)

    assert first.looks == 1


async def test_a_lease_without_a_result_is_not_waited_for(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    held = asyncio.Event()

    async def dies() -> Probe:
        held.set()
        await asyncio.sleep(60)
        raise AssertionError

    dying = asyncio.create_task(first.rounds.look("a", CONFIG, dies, urgent=False))
    await held.wait()

    assert await second.look() == second.result
    dying.cancel()


async def test_another_address_is_another_backend(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    await first.look()

    other = Backend(url="http://127.0.0.1:10", probe_interval=60.0)
    assert await second.look(config=other) == second.result


async def test_without_redis_every_replica_looks_for_itself(
    shared: SharedState, redis_server: RedisServer
) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    redis_server.kill()

    assert await first.look() == first.result
    assert not shared.up
    assert await second.look() == second.result


async def test_a_redis_that_hangs_costs_a_moment_once(
    shared: SharedState, redis_server: RedisServer
) -> None:
    replica = Replica(shared, "mine")
    redis_server.hang()
    try:
        assert await replica.look() == replica.result
        assert not shared.up
    finally:
        redis_server.wake()


async def test_nonsense_in_redis_is_looked_past(shared: SharedState) -> None:
    first, second = Replica(shared, "first"), Replica(shared, "second")
    await first.look()
    [key] = [key async for key in shared.client.scan_iter("synapse:probe:*:result")]
    await shared.client.set(key, b'{"serial": 7}')

    assert await second.look() == second.result


async def test_a_huge_result_is_not_shared(shared: SharedState) -> None:
    replica = Replica(shared, "x" * MAX_SHARED_BYTES)

    assert await replica.look() == replica.result
    assert [key async for key in shared.client.scan_iter("synapse:probe:*:result")] == []
