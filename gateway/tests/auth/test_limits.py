"""Limits of one replica, on a clock of the test's own."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.auth.keys import ANONYMOUS, Caller
from synapse_gateway.auth.limits import LocalLimiter
from synapse_gateway.config.settings import KeyLimits
from synapse_gateway.errors import RateLimited


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now: float = 5000.0) -> None:
        self.now = now

    def __call__(self) -> int:
        return round(self.now * 10**9)


def caller(
    requests: int | None = None,
    tokens: int | None = None,
    concurrency: int | None = None,
    name: str = "app",
) -> Caller:
    return Caller.build(
        name,
        KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens, concurrency=concurrency),
        anonymous=name == ANONYMOUS,
    )


def refused(limiter: LocalLimiter, who: Caller) -> RateLimited | None:
    try:
        limiter.admit(who)
    except RateLimited as refusal:
        return refusal
    return None


def test_requests_beyond_those_of_a_minute_are_refused_until_it_has_passed() -> None:
    clock = Clock()
    limiter, who = LocalLimiter(clock=clock), caller(requests=3)
    for _ in range(3):
        limiter.admit(who)
        limiter.release(who)
    refusal = refused(limiter, who)
    assert refusal is not None
    assert refusal.status == 429
    assert refusal.retry_after == 60
    assert refusal.message == (
        "The key 'app' has used the 3 requests allowed per minute; try again in 60 s."
    )
    clock.now += refusal.retry_after - 1
    assert refused(limiter, who) is not None
    clock.now += 1
    assert refused(limiter, who) is None


def test_a_caller_over_its_tokens_is_refused_until_enough_have_aged() -> None:
    clock = Clock()
    limiter, who = LocalLimiter(clock=clock), caller(tokens=100)
    limiter.charge(who, 90)
    clock.now += 30
    limiter.charge(who, 90)
    refusal = refused(limiter, who)
    assert refusal is not None
    assert refusal.retry_after == 30
    assert "the 100 tokens allowed per minute" in refusal.message
    clock.now += 30
    assert refused(limiter, who) is None


def test_tokens_do_not_count_for_a_caller_without_a_token_limit() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(requests=10)
    limiter.charge(who, 10**9)
    limiter.admit(who)


@pytest.mark.parametrize("tokens", [0, -5])
def test_no_tokens_are_no_charge(tokens: int) -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(tokens=1)
    limiter.charge(who, tokens)
    limiter.admit(who)


def test_requests_at_once_are_bounded_until_one_ends() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(concurrency=2)
    limiter.admit(who)
    limiter.admit(who)
    refusal = refused(limiter, who)
    assert refusal is not None
    assert refusal.retry_after == 1
    assert "has 2 requests in flight, the most allowed at once" in refusal.message
    limiter.release(who)
    assert refused(limiter, who) is None


def test_concurrency_is_told_before_requests_and_requests_before_tokens() -> None:
    limits: list[str] = []
    limiter = LocalLimiter(on_refused=lambda _, limit: limits.append(limit), clock=Clock())
    who = caller(requests=1, tokens=1, concurrency=1)
    limiter.admit(who)
    limiter.charge(who, 5)
    refused(limiter, who)
    limiter.release(who)
    refused(limiter, who)
    refused(limiter, caller(tokens=1))
    assert limits == ["concurrency", "requests_per_minute", "tokens_per_minute"]


def test_a_refused_request_is_not_counted() -> None:
    clock = Clock()
    limiter, who = LocalLimiter(clock=clock), caller(requests=1, concurrency=5)
    limiter.admit(who)
    for _ in range(10):
        clock.now += 1
        assert refused(limiter, who) is not None
    assert limiter.in_flight("app") == 1
    clock.now += 50
    assert refused(limiter, who) is None


def test_a_caller_without_limits_leaves_nothing_behind() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller()
    for _ in range(100):
        limiter.admit(who)
    limiter.charge(who, 5)
    limiter.release(who)
    assert limiter.in_flight("app") == 0


def test_callers_without_a_key_share_one_allowance() -> None:
    limiter = LocalLimiter(clock=Clock())
    limiter.admit(caller(requests=1, name=ANONYMOUS))
    refusal = refused(limiter, caller(requests=1, name=ANONYMOUS))
    assert refusal is not None
    assert refusal.message.startswith("Callers without a key together have used the 1 requests")


def test_callers_do_not_share_limits() -> None:
    limiter = LocalLimiter(clock=Clock())
    limiter.admit(caller(requests=1, name="one"))
    limiter.admit(caller(requests=1, name="two"))


def test_a_reload_changes_the_limit_and_keeps_the_counts() -> None:
    limiter = LocalLimiter(clock=Clock())
    limiter.admit(caller(requests=5))
    limiter.admit(caller(requests=5))
    assert refused(limiter, caller(requests=2)) is not None
    assert refused(limiter, caller(requests=3)) is None


def test_keys_that_are_gone_are_forgotten_even_with_requests_in_flight() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(concurrency=1)
    limiter.admit(who)
    limiter.retain({"another"})
    limiter.release(who)
    assert limiter.in_flight("app") == 0
    limiter.admit(who)


def test_a_release_too_many_gives_no_extra_room() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(concurrency=1)
    limiter.admit(who)
    limiter.release(who)
    limiter.release(who)
    limiter.admit(who)
    assert refused(limiter, who) is not None


def test_check_counts_nothing_and_count_checks_nothing() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(requests=1)
    limiter.check(who)
    limiter.count(who)
    limiter.count(who)
    with pytest.raises(RateLimited):
        limiter.check(who)


def test_it_may_be_awaited_as_the_shared_one_is() -> None:
    limiter, who = LocalLimiter(clock=Clock()), caller(requests=1)
    assert not limiter.shared
    asyncio.run(limiter.admit_shared(who))
    assert refused(limiter, who) is not None


GAPS = st.integers(0, 20_000)
"""Milliseconds, which a clock in binary seconds does not add without error."""


class Steps(Clock):
    """A clock that goes on by whole milliseconds."""

    ms = 5_000_000

    def __call__(self) -> int:
        return self.ms * 10**6


@given(st.integers(1, 20), st.lists(GAPS, max_size=150))
def test_no_minute_has_more_requests_than_allowed_and_none_is_refused_needlessly(
    most: int, gaps: list[int]
) -> None:
    clock = Steps()
    limiter, who = LocalLimiter(clock=clock), caller(requests=most)
    admitted: list[int] = []
    for gap in gaps:
        clock.ms += gap
        refusal = refused(limiter, who)
        if refusal is None:
            admitted.append(clock.ms)
            assert sum(clock.ms - at < 60_000 for at in admitted) <= most
        else:
            # A second of grace: what was counted in the same second leaves together.
            assert sum(clock.ms - at < 61_000 for at in admitted) >= most
            assert refusal.retry_after is not None
            assert 1 <= refusal.retry_after <= 60


@given(st.integers(1, 1000), st.lists(st.tuples(GAPS, st.integers(0, 400))))
def test_a_caller_is_refused_while_its_minute_holds_its_tokens(
    most: int, uses: list[tuple[int, int]]
) -> None:
    clock = Steps()
    limiter, who = LocalLimiter(clock=clock), caller(tokens=most)
    charged: list[tuple[int, int]] = []
    for gap, tokens in uses:
        clock.ms += gap
        surely, perhaps = (
            sum(amount for at, amount in charged if clock.ms - at < ms) for ms in (60_000, 61_000)
        )
        if surely >= most:
            assert refused(limiter, who) is not None
        if perhaps < most:
            assert refused(limiter, who) is None
        limiter.charge(who, tokens)
        charged.append((clock.ms, tokens))
