from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.routing.retry_budget import RetryBudget

WINDOW = 10


class Ledger:
    """The same budget, counted the slow way."""

    def __init__(self, ratio: float, floor: int) -> None:
        self.ratio = ratio
        self.floor = floor
        self.requests: list[int] = []
        self.retries: list[int] = []

    def withdraw(self, second: int) -> bool:
        oldest = second - WINDOW
        requests = sum(oldest < each <= second for each in self.requests)
        retries = sum(oldest < each <= second for each in self.retries)
        allowed = self.retries.count(second) < self.floor or retries < self.ratio * requests
        if allowed:
            self.retries.append(second)
        return allowed


STEPS = st.lists(
    st.tuples(st.sampled_from(["request", "retry"]), st.integers(0, 25), st.integers(1, 20))
)


@given(steps=STEPS, ratio=st.sampled_from([0.0, 0.2, 0.5, 1.0]), floor=st.integers(0, 5))
def test_it_decides_as_a_ledger_of_the_window_does(
    steps: list[tuple[str, int, int]], ratio: float, floor: int
) -> None:
    budget = RetryBudget(ratio, WINDOW, floor)
    ledger = Ledger(ratio, floor)
    second = 500
    for kind, passed, times in steps:
        second += passed
        for _ in range(times):
            if kind == "request":
                budget.request(second + 0.5)
                ledger.requests.append(second)
            else:
                assert budget.withdraw(second + 0.5) == ledger.withdraw(second)


def test_a_fifth_of_the_requests_may_be_retries() -> None:
    budget = RetryBudget(0.2, WINDOW, 0)
    for _ in range(100):
        budget.request(500.0)
    assert sum(budget.withdraw(501.0) for _ in range(100)) == 20
    assert budget.denied == 80


def test_some_a_second_are_always_let_through() -> None:
    budget = RetryBudget(0.2, WINDOW, 10)
    assert sum(budget.withdraw(500.0) for _ in range(50)) == 10
    assert sum(budget.withdraw(501.0) for _ in range(50)) == 10


def test_what_is_older_than_the_window_counts_no_more() -> None:
    budget = RetryBudget(0.5, WINDOW, 0)
    budget.request(500.0)
    budget.request(500.0)
    assert budget.withdraw(509.0)
    assert not budget.withdraw(510.0)


def test_a_window_of_less_than_a_second_is_one() -> None:
    budget = RetryBudget(1.0, 0.3, 0)
    budget.request(500.0)
    assert budget.withdraw(500.9)
    assert not budget.withdraw(501.0)


def test_a_request_that_began_long_ago_does_not_turn_the_clock_back() -> None:
    budget = RetryBudget(0.2, WINDOW, 10)
    granted = 0
    for _ in range(10):
        granted += sum(budget.withdraw(505.0) for _ in range(10))
        budget.request(503.0)
    assert granted <= 12


def test_other_bounds_hold_at_once_and_what_was_counted_stays() -> None:
    budget = RetryBudget(0.0, WINDOW, 0)
    for _ in range(10):
        budget.request(1.0)
    assert not budget.withdraw(1.0)
    budget.configure(0.1, WINDOW, 0)
    assert [budget.withdraw(1.0), budget.withdraw(1.0)] == [True, False]
    assert budget.denied == 2
    budget.configure(1.0, WINDOW + 1, 0)
    assert not budget.withdraw(1.0), "another window begins empty"
