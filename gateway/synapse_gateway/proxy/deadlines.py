"""One timer for all deadlines.

A deadline moves with every chunk and is almost never reached, while setting and cancelling a timer
costs as much as parsing a request. So whoever has deadlines is looked at a few times a second.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

TICK = 0.02
"""Seconds between two looks; how much later than asked a deadline may strike."""


class Bounded(Protocol):
    """Something with a deadline."""

    def check(self, now: float) -> None:
        """End what is overdue.

        Args:
            now: Monotonic seconds.
        """


class Deadlines:
    """Looks at everything that has a deadline."""

    def __init__(self) -> None:
        self._bounded: set[Bounded] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, bounded: Bounded) -> None:
        """Look at this from now on."""
        self._bounded.add(bounded)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def discard(self, bounded: Bounded) -> None:
        """Look at it no more."""
        self._bounded.discard(bounded)

    def _tick(self) -> None:
        now = monotonic()
        # set before anything is looked at, so that no failing look ends all others
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        for bounded in tuple(self._bounded):
            bounded.check(now)
        if not self._bounded:
            self._timer.cancel()
            self._timer = None
