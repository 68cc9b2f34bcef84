from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synapse_gateway.routing.breaker import Breaker, BreakerState
from synapse_gateway.routing.outcome import Counts

COOL_DOWN = 30.0


def opened(failures: int = 2, now: float = 100.0) -> Breaker:
    breaker = Breaker(failures, COOL_DOWN)
    for _ in range(failures):
        breaker.settle(Counts.FAILURE, now, probe=breaker.take())
    assert breaker.state is BreakerState.OPEN
    return breaker


def half_open() -> Breaker:
    breaker = opened()
    assert breaker.allows(130.0)
    assert breaker.take() is True
    assert breaker.state is BreakerState.HALF_OPEN
    return breaker


def test_it_opens_at_the_last_of_its_consecutive_failures() -> None:
    breaker = Breaker(5, COOL_DOWN)
    for _ in range(4):
        breaker.settle(Counts.FAILURE, 0.0)
    assert breaker.allows(0.0)
    breaker.settle(Counts.FAILURE, 0.0)
    assert not breaker.allows(0.0)


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(2, COOL_DOWN)
    for counts in (Counts.FAILURE, Counts.SUCCESS, Counts.FAILURE):
        breaker.settle(counts, 0.0)
    assert breaker.state is BreakerState.CLOSED


def test_what_is_neither_is_not_counted() -> None:
    breaker = Breaker(2, COOL_DOWN)
    for counts in (Counts.FAILURE, Counts.NEITHER, Counts.FAILURE):
        breaker.settle(counts, 0.0)
    assert breaker.state is BreakerState.OPEN


def test_it_lets_nobody_through_until_its_cool_down_is_over() -> None:
    breaker = opened(now=100.0)
    assert not breaker.allows(129.9)
    assert breaker.allows(130.0)


def test_asking_whether_it_allows_takes_no_probe() -> None:
    breaker = opened()
    assert breaker.allows(130.0)
    assert breaker.allows(130.0)
    assert breaker.state is BreakerState.OPEN


def test_half_open_lets_a_single_probe_through() -> None:
    breaker = half_open()
    assert not breaker.allows(1e9)


def test_a_request_through_a_closed_breaker_is_no_probe() -> None:
    assert Breaker(2, COOL_DOWN).take() is False


def test_a_probe_that_succeeds_closes_it_and_forgets_the_failures() -> None:
    breaker = half_open()
    breaker.settle(Counts.SUCCESS, 131.0, probe=True)
    assert breaker.state is BreakerState.CLOSED
    breaker.settle(Counts.FAILURE, 132.0)
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_that_fails_opens_it_for_another_cool_down() -> None:
    breaker = half_open()
    breaker.settle(Counts.FAILURE, 131.0, probe=True)
    assert not breaker.allows(160.9)
    assert breaker.allows(161.0)


def test_a_probe_that_is_neither_leaves_the_next_request_to_be_the_probe() -> None:
    breaker = half_open()
    breaker.settle(Counts.NEITHER, 131.0, probe=True)
    assert breaker.allows(131.0)
    assert breaker.take() is True
    assert not breaker.allows(131.0)


@pytest.mark.parametrize("counts", list(Counts))
def test_a_request_from_before_does_not_end_the_probe(counts: Counts) -> None:
    breaker = half_open()
    breaker.settle(counts, 131.0)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not breaker.allows(1e9)


@pytest.mark.parametrize("counts", list(Counts))
def test_a_request_from_before_neither_closes_it_nor_prolongs_the_cool_down(
    counts: Counts,
) -> None:
    breaker = opened(now=100.0)
    breaker.settle(counts, 129.0)
    assert breaker.state is BreakerState.OPEN
    assert breaker.open_until == 130.0


class BreakerUnderTraffic(RuleBasedStateMachine):
    """Any interleaving of requests that begin and end."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.breaker = Breaker(3, COOL_DOWN)
        self.under_way: list[bool] = []

    @rule(seconds=st.floats(0.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.allows(self.now))
    @rule()
    def a_request_begins(self) -> None:
        self.under_way.append(self.breaker.take())

    @precondition(lambda self: self.under_way)
    @rule(which=st.integers(0, 1000), counts=st.sampled_from(Counts))
    def a_request_ends(self, which: int, counts: Counts) -> None:
        probe = self.under_way.pop(which % len(self.under_way))
        before = self.breaker.state
        self.breaker.settle(counts, self.now, probe=probe)
        if probe and counts is Counts.SUCCESS:
            assert self.breaker.state is BreakerState.CLOSED
        if not probe and before is not BreakerState.CLOSED:
            assert self.breaker.state is before

    @invariant()
    def half_open_means_one_probe_under_way(self) -> None:
        half_open = self.breaker.state is BreakerState.HALF_OPEN
        assert sum(self.under_way) == half_open

    @invariant()
    def it_is_never_shut_for_good(self) -> None:
        if self.breaker.state is BreakerState.OPEN:
            assert self.breaker.open_until <= self.now + COOL_DOWN


TestBreakerUnderTraffic = BreakerUnderTraffic.TestCase
