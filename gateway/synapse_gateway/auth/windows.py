"""Counting over a sliding minute, in constant memory.

A minute is 60 buckets of a second. The bucket that the minute's beginning falls into counts whole,
so the window is never shorter than 60 s: in no 60 s is more counted than was admitted, and what was
counted is forgotten after 61 s at the latest.
"""

from __future__ import annotations

from array import array

BUCKETS = 61
"""Seconds that count: 60, and the one that the window's beginning falls into."""


class Window:
    """Amounts of the last minute.

    Attributes:
        total: Sum over the window, as of the last `advance`.
    """

    __slots__ = ("_amounts", "_second", "total")

    def __init__(self) -> None:
        self.total = 0
        self._amounts = array("q", bytes(8 * BUCKETS))
        self._second = 0

    def advance(self, second: int) -> int:
        """Slide to a second of the clock, and return what the window holds then."""
        passed = second - self._second
        if passed > 0:
            if self.total:
                self._forget(passed)
            self._second = second
        return self.total

    def add(self, amount: int) -> None:
        """Count an amount (0 or more) in the second last advanced to."""
        self._amounts[self._second % BUCKETS] += amount
        self.total += amount

    def seconds_until(self, below: int) -> int:
        """Return in how many seconds the window will hold less than `below` (1 or more)."""
        left = self.total
        age = BUCKETS
        while left >= below:
            age -= 1
            left -= self._amounts[(self._second - age) % BUCKETS]
        return BUCKETS - age

    def _forget(self, passed: int) -> None:
        if passed >= BUCKETS:
            self._amounts = array("q", bytes(8 * BUCKETS))
            self.total = 0
            return
        for second in range(self._second + 1, self._second + passed + 1):
            index = second % BUCKETS
            self.total -= self._amounts[index]
            self._amounts[index] = 0
