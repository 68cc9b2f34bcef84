"""The breaker of one target: a literal state machine.

CLOSED --`failures` in a row--> OPEN --cool-down over, one request taken as probe--> HALF_OPEN
HALF_OPEN --probe succeeds--> CLOSED; --fails--> OPEN; --neither--> OPEN with its cool-down over, so
that the next request is the probe.

Requests that were sent before it opened may end long after; while it is not closed only the probe
counts, so they neither close it, nor prolong the cool-down, nor let a second probe through.
"""

from __future__ import annotations

import enum

from synapse_gateway.routing.outcome import Counts


class BreakerState(enum.IntEnum):
    """As the metric `synapse_breaker_state` shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Counts consecutive failures and decides whether a target may be asked.

    Args:
        failures: Consecutive failures that open it.
        cool_down: Seconds that it stays open before a probe is let through.
    """

    __slots__ = ("cool_down", "failures", "in_a_row", "open_until", "state")

    def __init__(self, failures: int, cool_down: float) -> None:
        self.failures = failures
        self.cool_down = cool_down
        self.state = BreakerState.CLOSED
        self.in_a_row = 0
        self.open_until = 0.0

    def allows(self, now: float) -> bool:
        """Say whether a request may be sent; changes nothing."""
        return self.state is BreakerState.CLOSED or (
            self.state is BreakerState.OPEN and now >= self.open_until
        )

    def take(self) -> bool:
        """Note that a request that `allows` admitted is being sent; True if it is the probe."""
        if self.state is BreakerState.OPEN:
            self.state = BreakerState.HALF_OPEN
            return True
        return False

    def settle(self, counts: Counts, now: float, *, probe: bool = False) -> None:
        """Note how such a request ended.

        Args:
            counts: What its outcome means.
            now: Monotonic seconds.
            probe: What `take` returned.
        """
        if self.state is not BreakerState.CLOSED and not probe:
            return
        if counts is Counts.SUCCESS:
            self.state = BreakerState.CLOSED
            self.in_a_row = 0
        elif counts is Counts.FAILURE:
            self.in_a_row += 1
            if probe or self.in_a_row >= self.failures:
                self.state = BreakerState.OPEN
                self.open_until = now + self.cool_down
        elif probe:
            self.state = BreakerState.OPEN
            self.open_until = now
