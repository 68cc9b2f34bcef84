from __future__ import annotations

import asyncio

import pytest

from synapse_gateway.proxy import deadlines as module
from synapse_gateway.proxy.deadlines import Deadlines


class Bounded:
    def __init__(self, deadlines: Deadlines, *, fails: bool = False) -> None:
        self._deadlines = deadlines
        self._fails = fails
        self.looks = 0
        self.seen = asyncio.Event()

    def check(self, now: float) -> None:
        assert now > 0
        self.looks += 1
        self.seen.set()
        if self._fails:
            raise RuntimeError
        self._deadlines.discard(self)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK", 0.0)


async def test_what_was_added_is_looked_at_until_it_is_discarded() -> None:
    deadlines = Deadlines()
    one, two = Bounded(deadlines), Bounded(deadlines)
    deadlines.add(one)
    deadlines.add(two)
    async with asyncio.timeout(5):
        await one.seen.wait()
        await two.seen.wait()
    assert (one.looks, two.looks) == (1, 1)
    await asyncio.sleep(0.01)
    assert (one.looks, two.looks) == (1, 1)
    again = Bounded(deadlines)
    deadlines.add(again)
    async with asyncio.timeout(5):
        await again.seen.wait()


async def test_one_failing_look_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    deadlines = Deadlines()
    ones = [Bounded(deadlines, fails=index == 1) for index in range(3)]
    for one in ones:
        deadlines.add(one)
    async with asyncio.timeout(5):
        for one in ones:
            await one.seen.wait()
    assert [one.looks for one in ones] == [1, 1, 1]
    assert "a deadline could not be looked at" in caplog.text


async def test_what_is_not_due_is_looked_at_again() -> None:
    deadlines = Deadlines()

    class Patient(Bounded):
        def check(self, now: float) -> None:
            self.looks += 1
            if self.looks == 3:
                super().check(now)

    patient = Patient(deadlines)
    deadlines.add(patient)
    async with asyncio.timeout(5):
        await patient.seen.wait()
