"""Counting over a sliding minute, in constant memory.

What is counted within the same second leaves together, 60 s after the last of it. So in no 60 s is
more counted than was admitted, and whoever is refused waits 60 s at most.
"""

from __future__ import annotations

from array import array

SECOND = 10**9
"""A second, in the nanoseconds that all times here are in."""

MINUTE = 60 * SECOND

BUCKETS = 61
"""Seconds that a minute touches: it begins in the middle of one."""


class Window:
    """Amounts of the last minute.

    Attributes:
        total: Sum over the window, as of the last `advance`.
    """

    __slots__ = ("_amounts", "_due", "_index", "_latest", "_now", "total")

    def __init__(self) -> None:
        self.total = 0
        self._amounts = array("q", bytes(8 * BUCKETS))
        self._latest = array("q", bytes(8 * BUCKETS))
        self._now = 0
        self._index = 0
        self._due = 0
        """When a second begins, or amounts leave: nothing changes before."""

    def advance(self, now: int) -> int:
        """Slide to a time of the clock in nanoseconds, and return what the window holds then."""
        if now > self._now:
            if now >= self._due:
                self._slide(now)
            self._now = now
        return self.total

    def add(self, amount: int) -> None:
        """Count an amount (0 or more) at the time last advanced to."""
        self._amounts[self._index] += amount
        self._latest[self._index] = self._now
        self.total += amount

    def seconds_until(self, below: int) -> int:
        """Return in how many seconds, rounded up, the window will hold less than `below`.

        Args:
            below: 1 or more.
        """
        if self.total < below:
            return 0
        left, index = self.total, self._index
        while left >= below:
            index = (index + 1) % BUCKETS  # from the oldest to the one of now
            left -= self._amounts[index]
        return -((self._now - self._latest[index] - MINUTE) // SECOND)

    def _slide(self, now: int) -> None:
        before, second = self._now // SECOND, now // SECOND
        for passed in range(max(before, second - BUCKETS) + 1, second + 1):
            self._clear(passed % BUCKETS)
        self._index = second % BUCKETS
        self._due = (second + 1) * SECOND
        oldest = (second + 1) % BUCKETS
        leaves = self._latest[oldest] + MINUTE
        if leaves <= now:
            self._clear(oldest)
        else:
            self._due = min(self._due, leaves)

    def _clear(self, index: int) -> None:
        self.total -= self._amounts[index]
        self._amounts[index] = 0
