"""The retry budget of the whole gateway: an outage must never become a storm."""

from __future__ import annotations


class RetryBudget:
    """Lets retries through while they are few beside the requests.

    Requests and retries are counted in one-second buckets over the window, so both memory and
    work are constant.

    Args:
        ratio: Retries per request of the window.
        window: Seconds, rounded up to whole ones.
        minimum_per_second: Retries that are always let through, per second of the window.
    """

    __slots__ = ("_buckets", "_floor", "_ratio", "_requests", "_retries", "_second", "denied")

    def __init__(self, ratio: float, window: float, minimum_per_second: int) -> None:
        self._buckets: list[list[int]] = []
        self._requests = 0
        self._retries = 0
        self._second = 0
        self.denied = 0
        self.configure(ratio, window, minimum_per_second)

    def configure(self, ratio: float, window: float, minimum_per_second: int) -> None:
        """Go on with other bounds; another window begins empty."""
        self._floor = minimum_per_second
        self._ratio = ratio
        size = max(1, -int(-window // 1))
        if size != len(self._buckets):
            self._buckets = [[0, 0] for _ in range(size)]
            self._requests = self._retries = 0

    def request(self, now: float) -> None:
        """Count a request."""
        self._bucket(now)[0] += 1
        self._requests += 1

    def withdraw(self, now: float) -> bool:
        """Take one retry out of the budget; False if there is none left."""
        bucket = self._bucket(now)
        if bucket[1] >= self._floor and self._retries >= self._ratio * self._requests:
            self.denied += 1
            return False
        bucket[1] += 1
        self._retries += 1
        return True

    def _bucket(self, now: float) -> list[int]:
        """Return the counts of a second: of the newest one that was seen, if it is an older one."""
        second = int(now)
        if second > self._second:
            self._advance(second)
        return self._buckets[self._second % len(self._buckets)]

    def _advance(self, second: int) -> None:
        size = len(self._buckets)
        for passed in range(self._second + 1, min(second, self._second + size) + 1):
            bucket = self._buckets[passed % size]
            self._requests -= bucket[0]
            self._retries -= bucket[1]
            bucket[0] = bucket[1] = 0
        if second - self._second > size:
            for bucket in self._buckets:
                bucket[0] = bucket[1] = 0
            self._requests = self._retries = 0
        self._second = second
