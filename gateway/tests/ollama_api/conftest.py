from __future__ import annotations

import pytest


class SteppingClock:
    """Goes on by a millisecond whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic_ns(self) -> int:
        self.now += 1_000_000
        return self.now

    def time_ns(self) -> int:
        return 1_795_257_599_379_883_010


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()
