"""The sliding minute, against a list of what was counted when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.auth.windows import MINUTE, SECOND, Window

MS = SECOND // 1000
STEPS = st.lists(st.tuples(st.integers(0, 90_000), st.integers(0, 50)), max_size=60)
"""Milliseconds that pass, and what is counted then."""


def left(counted: list[tuple[int, int]], now: int) -> int:
    """Return what a minute holds where each second's amounts leave with the last of them."""
    last = {at // SECOND: at for at, _ in counted}
    return sum(amount for at, amount in counted if now - last[at // SECOND] < MINUTE)


@given(STEPS, st.integers(0, 10**6))
def test_the_window_holds_what_was_counted_in_its_seconds(
    steps: list[tuple[int, int]], start: int
) -> None:
    window, now = Window(), start * MS
    counted: list[tuple[int, int]] = []
    for passed, amount in steps:
        now += passed * MS
        assert window.advance(now) == left(counted, now)
        window.add(amount)
        counted.append((now, amount))
        assert window.total == left(counted, now)
        assert window.total >= sum(amount for at, amount in counted if now - at < MINUTE)


@given(STEPS, st.integers(1, 200))
def test_the_wait_is_the_shortest_after_which_there_is_room(
    steps: list[tuple[int, int]], below: int
) -> None:
    window, now = Window(), 1000 * SECOND
    for passed, amount in steps:
        now += passed * MS
        window.advance(now)
        window.add(amount)
    wait = window.seconds_until(below)
    assert wait <= 60
    if wait:
        assert window.advance(now + (wait - 1) * SECOND) >= below
    assert window.advance(now + wait * SECOND) < below


def test_amounts_leave_in_the_middle_of_a_second() -> None:
    window = Window()
    window.advance(100_500 * MS)
    window.add(5)
    assert window.advance(160_250 * MS) == 5
    assert window.seconds_until(1) == 1
    assert window.advance(160_500 * MS) == 0


def test_a_clock_that_stands_still_or_steps_back_forgets_nothing() -> None:
    window = Window()
    window.advance(100 * SECOND)
    window.add(5)
    assert window.advance(100 * SECOND) == 5
    assert window.advance(40 * SECOND) == 5


def test_the_wait_is_nothing_while_there_is_room() -> None:
    assert Window().seconds_until(1) == 0
