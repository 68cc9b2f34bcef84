"""When everything is down: no storm at the backends, honest answers, and the way back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synapse_gateway.config.settings import Queue, RetryBudget
from synapse_gateway.testing import scripts
from tests.faults.support import pair

if TYPE_CHECKING:
    from synapse_gateway.testing.wire import Answer
    from tests.faults.support import Pair

FAILURES = 5


async def next_at_first(both: Pair) -> asyncio.Task[Answer]:
    """Ask until the breaker lets a request through to the first target, and return that one."""
    arrival = asyncio.create_task(both.first.seen(len(both.first.requests) + 1))
    while True:
        asking = asyncio.create_task(both.ask(stream=False))
        await asyncio.wait([asking, arrival], return_when=asyncio.FIRST_COMPLETED)
        if arrival.done():
            return asking


async def test_an_outage_of_all_targets_becomes_no_storm() -> None:
    queue = Queue(size=1000, deadline=0.2)
    async with pair(failures=FAILURES, attempts=3, queue=queue) as both:
        both.first.script = both.second.script = scripts.status(503)
        for _ in range(FAILURES):
            await both.ask(stream=False)
        metrics = await both.metrics()
        assert metrics.value("synapse_breaker_state") == 4, "both are open"
        before = sum(both.seen)

        answers = await asyncio.gather(*(both.ask(stream=False) for _ in range(100)))

        assert {answer.status for answer in answers} == {503}
        assert all(int(answer.header("retry-after") or 0) >= 1 for answer in answers)
        assert sum(both.seen) - before <= 120, "1.2 attempts a request at most"


async def test_attempts_before_the_breakers_open_are_within_the_budget() -> None:
    budget = RetryBudget(ratio=0.2, window=10.0, minimum_per_second=0)
    async with pair(failures=1000, attempts=3, retry_budget=budget) as both:
        both.first.script = both.second.script = scripts.status(500)

        answers = await asyncio.gather(*(both.ask(stream=False) for _ in range(50)))

        assert {answer.status for answer in answers} == {502}
        first_on_each = 2 * 50
        assert first_on_each <= sum(both.seen) <= first_on_each + 0.2 * 50 + 1
        assert (await both.metrics()).value("synapse_retry_budget_exhausted_total") > 0


async def test_one_probing_request_closes_the_breaker_again() -> None:
    async with pair(failures=1, cool_down=0.3) as both:
        both.first.queue(scripts.status(500))
        await both.ask(stream=False)
        assert (await both.metrics()).value("synapse_breaker_state", backend="first") == 2
        both.first.script = scripts.held(after=0)

        probing = await next_at_first(both)
        others = await asyncio.gather(*(both.ask(stream=False) for _ in range(5)))
        assert both.seen[0] == 2, "a single request probes"
        assert {answer.header("x-synapse-backend") for answer in others} == {"second"}
        both.first.gate("go").set()
        assert (await probing).header("x-synapse-backend") == "first"

        assert (await both.metrics()).value("synapse_breaker_state", backend="first") == 0
        assert (await both.ask(stream=False)).header("x-synapse-backend") == "first"


async def test_a_failing_probing_request_opens_it_again_and_is_served_elsewhere() -> None:
    async with pair(failures=1, cool_down=0.3) as both:
        both.first.script = scripts.status(500)
        await both.ask(stream=False)

        answer = await (await next_at_first(both))

        assert both.seen[0] == 2
        assert answer.header("x-synapse-backend") == "second"
        assert answer.header("x-synapse-fallback") == "server_error"
        assert (await both.metrics()).value("synapse_breaker_state", backend="first") == 2
