"""The sliding minute, against a list of what was counted when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.auth.windows import BUCKETS, Window

STEPS = st.lists(st.tuples(st.integers(0, 90), st.integers(0, 50)), max_size=60)


@given(STEPS, st.integers(0, 10**6))
def test_the_window_holds_what_was_counted_in_its_seconds(
    steps: list[tuple[int, int]], start: int
) -> None:
    window, second, counted = Window(), start, []
    for passed, amount in steps:
        second += passed
        window.advance(second)
        window.add(amount)
        counted.append((second, amount))
        expected = sum(amount for at, amount in counted if at > second - BUCKETS)
        assert window.total == expected
        assert window.advance(second) == expected


@given(STEPS, st.integers(1, 200))
def test_the_wait_is_the_shortest_after_which_there_is_room(
    steps: list[tuple[int, int]], below: int
) -> None:
    window, second = Window(), 1000
    for passed, amount in steps:
        second += passed
        window.advance(second)
        window.add(amount)
    wait = window.seconds_until(below)
    if wait:
        assert window.advance(second + wait - 1) >= below
    assert window.advance(second + wait) < below


def test_a_clock_that_stands_still_or_steps_back_forgets_nothing() -> None:
    window = Window()
    window.advance(100)
    window.add(5)
    assert window.advance(100) == 5
    assert window.advance(40) == 5


def test_the_wait_is_nothing_while_there_is_room() -> None:
    assert Window().seconds_until(1) == 0
