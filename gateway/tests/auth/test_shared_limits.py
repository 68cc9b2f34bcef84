"""Limits over several replicas, with a real Redis between them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from synapse_gateway.auth.keys import Caller
from synapse_gateway.auth.shared_limits import LEASE, RedisLimiter
from synapse_gateway.config.settings import KeyLimits
from synapse_gateway.errors import RateLimited
from synapse_gateway.shared_state import SharedState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any


class Replica:
    """A limiter with its own connection, as one gateway process has it."""

    def __init__(self, url: str, name: str) -> None:
        self.state = SharedState(url, timeout=5.0, interval=0.02)
        self.refused: list[tuple[str, str]] = []
        self.limiter = RedisLimiter(
            self.state, name, on_refused=lambda key, limit: self.refused.append((key, limit))
        )
        self.redis: Any = self.state.client

    async def start(self) -> None:
        await self.state.start()
        await self.limiter.start()

    async def stop(self) -> None:
        await self.limiter.stop()
        await self.state.stop()

    async def admits(self, caller: Caller) -> bool:
        try:
            await self.limiter.admit_shared(caller)
        except RateLimited:
            return False
        return True


@pytest_asyncio.fixture
async def make_replica() -> AsyncIterator[Callable[..., Awaitable[Replica]]]:
    made: list[Replica] = []

    async def make(url: str, name: str = "one") -> Replica:
        replica = Replica(url, name)
        made.append(replica)
        await replica.start()
        return replica

    yield make
    for replica in made:
        await replica.stop()


@pytest_asyncio.fixture
async def replicas(redis_server: Any, make_replica: Any) -> tuple[Replica, Replica]:
    return await make_replica(redis_server.url, "one"), await make_replica(redis_server.url, "two")


def caller(
    requests: int | None = None, tokens: int | None = None, concurrency: int | None = None
) -> Caller:
    return Caller.build(
        "app",
        KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens, concurrency=concurrency),
    )


async def until(condition: Callable[[], Any]) -> None:
    """Wait for another process: at most 10 s."""
    for _ in range(1000):
        met = condition()
        if await met if inspect.isawaitable(met) else met:
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about within 10 s")


async def now(replica: Replica) -> int:
    return int((await replica.redis.time())[0])


USED = "synapse:limits:{app}:used"
LEASES = "synapse:limits:{app}:leases"


async def test_requests_are_counted_over_all_replicas(replicas: tuple[Replica, Replica]) -> None:
    one, two = replicas
    who = caller(requests=3)
    assert [await r.admits(who) for r in (one, two, one, two, one)] == [True] * 3 + [False] * 2
    with pytest.raises(RateLimited) as refusal:
        await two.limiter.admit_shared(who)
    assert "3 requests allowed per minute" in refusal.value.message
    assert refusal.value.retry_after is not None
    assert 30 <= refusal.value.retry_after <= 60
    assert set(two.refused) == {("app", "requests_per_minute")}


async def test_requests_at_once_are_counted_over_all_replicas(
    replicas: tuple[Replica, Replica],
) -> None:
    one, two = replicas
    who = caller(concurrency=2)
    assert await one.admits(who)
    assert await two.admits(who)
    assert not await one.admits(who)
    assert one.refused == [("app", "concurrency")]
    two.limiter.release(who)
    await until(lambda: one.admits(who))


async def test_the_next_request_of_a_caller_finds_the_slot_of_its_last_free(
    replicas: tuple[Replica, Replica],
) -> None:
    one, _ = replicas
    who = caller(concurrency=1)
    for _ in range(50):
        assert await one.admits(who)
        one.limiter.release(who)


async def test_tokens_are_counted_over_all_replicas(replicas: tuple[Replica, Replica]) -> None:
    one, two = replicas
    who = caller(tokens=100)
    assert await one.admits(who)
    one.limiter.charge(who, 60)
    two.limiter.charge(who, 60)

    async def refused() -> bool:
        return not await one.admits(who)

    await until(refused)
    assert one.refused[-1] == ("app", "tokens_per_minute")


async def test_tokens_and_slot_of_an_ended_request_are_settled_together(
    replicas: tuple[Replica, Replica],
) -> None:
    one, two = replicas
    who = caller(tokens=100, concurrency=1)
    assert await one.admits(who)
    one.limiter.charge(who, 99)
    one.limiter.release(who)
    await one.limiter.stop()
    assert [int(value.split()[0]) for value in await two.redis.hvals(USED)] == [99]
    assert await two.redis.zcard(LEASES) == 0


async def test_no_more_are_admitted_than_allowed_however_many_come_at_once(
    replicas: tuple[Replica, Replica],
) -> None:
    who = caller(concurrency=10)
    answers = await asyncio.gather(*(replicas[n % 2].admits(who) for n in range(100)))
    assert answers.count(True) == 10


async def test_what_has_left_the_minute_counts_no_more_and_is_dropped(
    replicas: tuple[Replica, Replica],
) -> None:
    one, _ = replicas
    second = await now(one)
    await one.redis.hset(USED, mapping={f"r{second - 61}": "5 0", f"t{second - 300}": "9 0"})
    assert await one.admits(caller(requests=1, tokens=1))
    assert await one.redis.hlen(USED) == 1


@pytest.mark.parametrize(("kind", "limit"), [("r", "requests"), ("t", "tokens")])
async def test_the_wait_ends_when_enough_has_left_the_minute(
    replicas: tuple[Replica, Replica], kind: str, limit: str
) -> None:
    one, _ = replicas
    second = await now(one)
    counts = {
        f"{kind}{second - 50}": "4 999999",
        f"{kind}{second - 20}": "4 999999",
        f"r{second - 55}": "0 0",
    }
    await one.redis.hset(USED, mapping=counts)
    with pytest.raises(RateLimited) as soon:
        await one.limiter.admit_shared(caller(**{limit: 8}))
    with pytest.raises(RateLimited) as later:
        await one.limiter.admit_shared(caller(**{limit: 4}))
    assert soon.value.retry_after is not None
    assert later.value.retry_after is not None
    assert 5 <= soon.value.retry_after <= 11
    assert 35 <= later.value.retry_after <= 41


async def test_nobody_waits_longer_than_a_minute(replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    second, micros = (int(part) for part in await one.redis.time())
    # of now, and of sixty seconds ago but a moment: the one counts, the other has just left
    await one.redis.hset(USED, mapping={f"r{second - 60}": f"7 {micros}", f"t{second}": "9 0"})
    with pytest.raises(RateLimited) as refusal:
        await one.limiter.admit_shared(caller(requests=1, tokens=9))
    assert "9 tokens" in refusal.value.message
    assert refusal.value.retry_after is not None
    assert 30 <= refusal.value.retry_after <= 60


async def test_everything_in_redis_has_a_time_to_live(replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    who = caller(requests=5, tokens=5, concurrency=5)
    assert await one.admits(who)
    one.limiter.charge(who, 1)
    await one.limiter.stop()
    keys = await one.redis.keys("*")
    assert len(keys) == 2
    for key in keys:
        assert 0 < await one.redis.ttl(key) <= 2 * LEASE


async def test_the_slots_of_a_replica_that_died_become_free(
    replicas: tuple[Replica, Replica],
) -> None:
    one, two = replicas
    who = caller(concurrency=1)
    assert await one.admits(who)
    [lease] = await two.redis.zrange(LEASES, 0, -1)
    # As it will be when nobody has renewed it for a minute.
    await two.redis.zadd(LEASES, {lease: await now(two)})
    assert await two.admits(who)


async def test_a_long_request_keeps_its_slot(replicas: tuple[Replica, Replica]) -> None:
    one, two = replicas
    who = caller(concurrency=1)
    assert await one.admits(who)
    [lease] = await one.redis.zrange(LEASES, 0, -1)
    await one.redis.zadd(LEASES, {lease: await now(one)})
    await one.limiter.renew()
    assert not await two.admits(who)


async def test_leases_are_renewed_again_and_again(
    replicas: tuple[Replica, Replica],
) -> None:
    one, _ = replicas
    other = RedisLimiter(one.state, "third", renewal=0.01)
    await other.start()
    await other.admit_shared(caller(concurrency=1))
    await one.redis.delete(LEASES)

    async def renewed() -> bool:
        return bool(await one.redis.zcard(LEASES))

    await until(renewed)
    await other.stop()


async def test_a_caller_without_limits_costs_redis_nothing(
    replicas: tuple[Replica, Replica],
) -> None:
    one, _ = replicas
    await one.limiter.admit_shared(caller())
    one.limiter.charge(caller(), 50)
    one.limiter.release(caller())
    await one.limiter.renew()
    assert await one.redis.dbsize() == 0


async def test_a_caller_that_leaves_while_it_waits_takes_no_slot(
    replicas: tuple[Replica, Replica], redis_server: Any
) -> None:
    one, two = replicas
    who = caller(concurrency=1)
    assert await one.admits(who)
    one.limiter.release(who)
    await one.limiter.stop()
    redis_server.hang()
    asked = asyncio.create_task(one.admits(who))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    queued = asyncio.create_task(one.admits(who))
    await asyncio.sleep(0)
    for task in (asked, queued):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    redis_server.wake()
    await until(lambda: two.admits(who))


async def test_scripts_are_given_again_to_a_redis_that_has_lost_them(
    replicas: tuple[Replica, Replica],
) -> None:
    one, _ = replicas
    assert await one.admits(caller(requests=2))
    await one.redis.script_flush()
    assert await one.admits(caller(requests=2))
    assert not await one.admits(caller(requests=2))
    assert one.state.up


async def test_without_redis_each_replica_grants_the_limits_by_itself(
    stopped_redis: Any, make_replica: Any
) -> None:
    one = await make_replica(stopped_redis.url)
    who = caller(requests=2, tokens=50)
    assert [await one.admits(who) for _ in range(3)] == [True, True, False]
    one.limiter.charge(who, 5)
    one.limiter.release(who)
    await one.limiter.renew()


async def test_it_can_be_asked_without_waiting(replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    who = caller(requests=1)
    one.limiter.admit(who)
    with pytest.raises(RateLimited):
        one.limiter.admit(who)
    assert one.limiter.shared


@pytest.mark.parametrize("fault", ["kill", "hang"])
async def test_redis_may_go_and_come_back_and_no_request_fails_for_it(
    replicas: tuple[Replica, Replica], redis_server: Any, fault: str
) -> None:
    one, two = replicas
    one.state.timeout = two.state.timeout = 0.2
    who = caller(requests=1000, concurrency=4)
    assert await one.admits(who)
    getattr(redis_server, fault)()
    # Three more beside the one in flight, by the replica's own count.
    assert [await one.admits(who) for _ in range(4)] == [True, True, True, False]
    assert not one.state.up
    assert [await two.admits(who) for _ in range(5)] == [True] * 4 + [False]
    for _ in range(4):
        two.limiter.release(who)
    if fault == "kill":
        redis_server.start()
    else:
        redis_server.wake()
    one.state.timeout = two.state.timeout = 5.0
    await until(lambda: one.state.up and two.state.up)

    async def one_lease() -> bool:
        return bool(await one.redis.zcard(LEASES) == 1)

    # The request admitted before keeps its lease; those admitted meanwhile have none, and what
    # Redis granted too late is given back.
    await until(one_lease)
    assert [await two.admits(who) for _ in range(4)] == [True] * 3 + [False]
    for _ in range(3):
        one.limiter.release(who)
    assert not await two.admits(who)
    one.limiter.release(who)
    await until(lambda: two.admits(who))


async def test_a_redis_lost_while_leases_are_renewed_is_noticed(
    redis_server: Any, make_replica: Any
) -> None:
    one = await make_replica(redis_server.url)
    assert await one.admits(caller(concurrency=1))
    one.state._interval = 3600
    redis_server.kill()
    one.state.up = True
    await one.limiter.renew()
    assert not one.state.up


async def test_a_redis_that_answers_nonsense_is_no_reason_to_refuse(
    replicas: tuple[Replica, Replica], caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = replicas
    await one.redis.set(USED, "not a hash")
    with caplog.at_level(logging.WARNING):
        assert await one.admits(caller(requests=1))
    assert "Redis does not answer (ResponseError)" in caplog.text


async def test_requests_that_wait_when_redis_goes_are_answered_by_the_replica_alone(
    replicas: tuple[Replica, Replica], redis_server: Any
) -> None:
    one, _ = replicas
    one.state.timeout = 0.2
    who = caller(requests=100)
    assert await one.admits(who)
    redis_server.hang()
    first = asyncio.create_task(one.admits(who))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    second = asyncio.create_task(one.admits(who))
    assert await first
    assert await second
    redis_server.wake()


async def test_keys_that_are_gone_are_forgotten(replicas: tuple[Replica, Replica]) -> None:
    one, _ = replicas
    who = caller(requests=1)
    assert await one.admits(who)
    one.limiter.retain(set())
    await one.redis.flushall()
    assert await one.admits(who)
