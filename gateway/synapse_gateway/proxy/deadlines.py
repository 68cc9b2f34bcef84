"""One timer for all deadlines.

A deadline moves with every chunk and is almost never reached, while setting and cancelling a timer
costs as much as parsing a request. So whoever has deadlines is looked at a few times a second.
"""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Protocol

_log = logging.getLogger(__name__)
TICK = 0.05
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
        self.loop = asyncio.get_running_loop()
        self._bounded: set[Bounded] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, bounded: Bounded) -> None:
        """Look at this from now on."""
        self._bounded.add(bounded)
        if self._timer is None:
            self._timer = self.loop.call_later(TICK, self._tick)

    def discard(self, bounded: Bounded) -> None:
        """Look at it no more."""
        self._bounded.discard(bounded)

    def _tick(self) -> None:
        now = monotonic()
        for bounded in tuple(self._bounded):
            try:
                bounded.check(now)
            except Exception:  # noqa: BLE001 - whatever it is
                # one that cannot be looked at must not end the deadlines of all others
                self._bounded.discard(bounded)
                _log.exception("a deadline could not be looked at")
        # one idle tick more or less costs nothing, a timer per burst of requests would
        self._timer = None
        if self._bounded:
            self._timer = self.loop.call_later(TICK, self._tick)
