from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.backends.base import DiscoveredModel, Probe
from synapse_gateway.config.settings import Breaker, Device, Policy, Target
from synapse_gateway.routing.choose import BOUNDED_LOAD, OVERLOADED, back_at, choose, why_out
from synapse_gateway.routing.outcome import Counts
from tests.routing.support import NOW, backend, by_name, plan_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.routing.table import Candidate, Plan


@pytest.fixture(autouse=True)
def _seeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", random.Random(7).random)  # noqa: S311 - no secret


def targets(*names: str, **fields: Any) -> tuple[Target, ...]:
    """Return targets from names; a digit at the end of a name is its order."""
    return tuple(Target(backend=name, order=int(name[-1]), **fields) for name in names)


def chosen(plan: Plan, **more: Any) -> str:
    candidate = choose(plan, NOW, **more).candidate
    assert candidate is not None
    return candidate.state.backend.name


# -- why a candidate is out


def open_breaker(candidate: Candidate) -> None:
    candidate.state.breaker.failures = 1
    candidate.state.breaker.settle(Counts.FAILURE, NOW)


def half_open_breaker(candidate: Candidate) -> None:
    open_breaker(candidate)
    candidate.state.breaker.open_until = NOW
    candidate.state.breaker.take()


def cool_down(candidate: Candidate) -> None:
    candidate.state.cooling_until = NOW + 7


def fall_asleep(candidate: Candidate) -> None:
    candidate.state.backend.asleep = True


def fill_target(candidate: Candidate) -> None:
    candidate.cap = 2
    candidate.state.in_flight = 2


def fill_backend(candidate: Candidate) -> None:
    candidate.state.backend.config = backend(max_in_flight=3)
    candidate.state.backend.in_flight = 3


def go_down(candidate: Candidate) -> None:
    candidate.state.backend.up = False


def fill_slots(candidate: Candidate) -> None:
    candidate.state.backend.slots = 4
    candidate.state.backend.in_flight = 4


def grow_a_queue(candidate: Candidate) -> None:
    candidate.state.backend.report(Probe(up=True, waiting=1))


def fall_off_the_gpu(candidate: Candidate) -> None:
    candidate.state.backend.config = backend(device=Device.GPU)
    candidate.state.backend.models = {"m": DiscoveredModel(id="m", size=9, size_vram=3)}


REASONS = [
    pytest.param(open_breaker, "breaker_open", id="breaker-open"),
    pytest.param(half_open_breaker, "breaker_open", id="probe-under-way"),
    pytest.param(cool_down, "cooling_down", id="cooling-down"),
    pytest.param(fall_asleep, "asleep", id="asleep"),
    pytest.param(fill_target, "at_capacity", id="target-at-capacity"),
    pytest.param(fill_backend, "at_capacity", id="backend-at-capacity"),
    pytest.param(go_down, "down", id="down"),
    pytest.param(fill_slots, OVERLOADED, id="slots-taken"),
    pytest.param(grow_a_queue, OVERLOADED, id="requests-waiting"),
    pytest.param(fall_off_the_gpu, OVERLOADED, id="fell-off-the-gpu"),
]


@pytest.mark.parametrize(("hinder", "reason"), REASONS)
def test_a_candidate_is_out_and_the_next_order_serves(
    hinder: Callable[[Candidate], None], reason: str
) -> None:
    plan = plan_of(*targets("gpu1", "cpu2"))
    first = by_name(plan)["gpu1"]
    assert not why_out(first, NOW)

    hinder(first)

    assert why_out(first, NOW) == reason
    choice = choose(plan, NOW)
    assert choice.candidate is by_name(plan)["cpu2"]
    assert choice.skipped == reason


@pytest.mark.parametrize(("hinder", "reason"), REASONS)
def test_a_candidate_that_is_out_leaves_its_order_to_the_others(
    hinder: Callable[[Candidate], None], reason: str
) -> None:
    plan = plan_of(*targets("a1", "b1", "c2"))
    hinder(by_name(plan)["a1"])
    choice = choose(plan, NOW)
    assert choice.candidate is by_name(plan)["b1"]
    assert not choice.skipped, "the first order serves"


def test_a_cap_that_is_not_reached_lets_through() -> None:
    plan = plan_of(Target(backend="a", max_in_flight=2), backends={"a": backend(max_in_flight=2)})
    [candidate] = by_name(plan).values()
    candidate.state.start()
    assert not why_out(candidate, NOW)


# -- orders


def test_the_first_order_serves_while_it_can() -> None:
    plan = plan_of(*targets("c3", "a1", "b2"))
    choice = choose(plan, NOW)
    assert (choice.candidate, choice.skipped) == (by_name(plan)["a1"], "")


def test_what_was_tried_is_not_chosen_and_gives_no_reason() -> None:
    plan = plan_of(*targets("a1", "b2"))
    choice = choose(plan, NOW, tried=[by_name(plan)["a1"]])
    assert (choice.candidate, choice.skipped) == (by_name(plan)["b2"], "")


def test_when_all_were_tried_there_is_nothing_to_wait_for() -> None:
    plan = plan_of(*targets("a1", "b2"))
    choice = choose(plan, NOW, tried=list(by_name(plan).values()))
    assert choice == (None, "", False, 0.0)


def test_the_reason_is_that_of_the_first_order() -> None:
    plan = plan_of(*targets("a1", "b2", "c3"))
    cool_down(by_name(plan)["a1"])
    fall_asleep(by_name(plan)["b2"])
    choice = choose(plan, NOW)
    assert (choice.candidate, choice.skipped) == (by_name(plan)["c3"], "cooling_down")


def test_an_overloaded_candidate_serves_when_nothing_better_is_free_in_any_order() -> None:
    plan = plan_of(*targets("a1", "b2"))
    fill_slots(by_name(plan)["a1"])
    open_breaker(by_name(plan)["b2"])
    choice = choose(plan, NOW)
    assert (choice.candidate, choice.skipped) == (by_name(plan)["a1"], "")


def test_of_the_overloaded_the_lowest_order_serves() -> None:
    plan = plan_of(*targets("a1", "b2", "c3"))
    cool_down(by_name(plan)["a1"])
    fill_slots(by_name(plan)["c3"])
    fill_slots(by_name(plan)["b2"])
    choice = choose(plan, NOW)
    assert (choice.candidate, choice.skipped) == (by_name(plan)["b2"], "cooling_down")


def test_one_whose_probe_failed_is_the_last_resort() -> None:
    plan = plan_of(*targets("a1", "b2"))
    go_down(by_name(plan)["a1"])
    go_down(by_name(plan)["b2"])
    assert chosen(plan) == "a1"
    fill_slots(by_name(plan)["b2"])
    by_name(plan)["b2"].state.backend.up = True
    assert chosen(plan) == "b2", "overloaded is better than down"


# -- when to look again


def test_a_full_candidate_is_worth_waiting_for() -> None:
    plan = plan_of(*targets("a1", "b2"))
    fill_target(by_name(plan)["a1"])
    open_breaker(by_name(plan)["b2"])
    choice = choose(plan, NOW)
    assert choice == (None, "at_capacity", True, NOW + 30)


def test_it_is_worth_looking_again_when_the_first_comes_back() -> None:
    plan = plan_of(*targets("a1", "b1", "c2"))
    for name, seconds in (("a1", 9.0), ("b1", 4.0), ("c2", 6.0)):
        by_name(plan)[name].state.cooling_until = NOW + seconds
    assert choose(plan, NOW).retry_at == NOW + 4


def test_a_target_comes_back_when_breaker_and_cool_down_let_it() -> None:
    plan = plan_of(*targets("a1"))
    [candidate] = by_name(plan).values()
    assert back_at(candidate, NOW) == 0.0
    cool_down(candidate)
    assert back_at(candidate, NOW) == NOW + 7
    open_breaker(candidate)
    assert back_at(candidate, NOW) == NOW + 30
    candidate.state.cooling_until = NOW + 50
    assert back_at(candidate, NOW) == NOW + 50


def test_nobody_knows_when_one_wakes_or_a_probe_ends() -> None:
    plan = plan_of(*targets("a1", "b1"))
    fall_asleep(by_name(plan)["a1"])
    half_open_breaker(by_name(plan)["b1"])
    assert choose(plan, NOW) == (None, "asleep", False, 0.0)


# -- power of two choices


def test_the_less_loaded_of_two_is_chosen() -> None:
    plan = plan_of(*targets("a1", "b1"))
    by_name(plan)["a1"].state.backend.in_flight = 3
    by_name(plan)["b1"].state.backend.in_flight = 2
    assert {chosen(plan) for _ in range(50)} == {"b1"}


def test_load_is_counted_per_slot() -> None:
    plan = plan_of(*targets("a1", "b1"), backends={"a1": backend(slots=8), "b1": backend(slots=2)})
    by_name(plan)["a1"].state.backend.in_flight = 3
    by_name(plan)["b1"].state.backend.in_flight = 1
    assert {chosen(plan) for _ in range(50)} == {"a1"}


def test_load_is_counted_by_weight() -> None:
    plan = plan_of(Target(backend="a", weight=3.0), Target(backend="b", weight=1.0))
    by_name(plan)["a"].state.backend.in_flight = 2
    by_name(plan)["b"].state.backend.in_flight = 1
    assert {chosen(plan) for _ in range(50)} == {"a"}


def test_what_others_send_and_what_waits_in_the_engine_is_load_too() -> None:
    plan = plan_of(*targets("a1", "b1", "c1"), backends={"b1": backend(max_waiting=9)})
    by_name(plan)["a1"].state.backend.others = 2
    by_name(plan)["b1"].state.backend.waiting = 2
    counts = Counter(chosen(plan) for _ in range(600))
    # chosen whenever it is one of the two drawn
    assert counts["c1"] == pytest.approx(400, abs=40)


def test_idle_candidates_share_by_weight() -> None:
    plan = plan_of(Target(backend="a", weight=3.0), Target(backend="b", weight=1.0))
    counts = Counter(chosen(plan) for _ in range(4000))
    assert counts["a"] / counts["b"] == pytest.approx(3.0, rel=0.1)


def test_of_many_the_most_loaded_is_never_chosen() -> None:
    plan = plan_of(*targets("a1", "b1", "c1", "d1"))
    by_name(plan)["c1"].state.backend.in_flight = 9
    counts = Counter(chosen(plan) for _ in range(1000))
    assert set(counts) == {"a1", "b1", "d1"}


def test_a_draw_at_the_very_end_takes_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    assert chosen(plan_of(*targets("a1", "b1"))) == "b1"


# -- prefix affinity


def affine(*names: str) -> Plan:
    return plan_of(*targets(*names), policy=Policy.PREFIX_AFFINITY)


KEYS = st.integers(0, 2**64 - 1)


@given(key=KEYS)
def test_the_same_prefix_goes_to_the_same_target(key: int) -> None:
    first = chosen(affine("a1", "b1", "c1"), affinity=key)
    assert first == chosen(affine("c1", "b1", "a1"), affinity=key), "in whatever order they stand"


def test_prefixes_spread_over_the_targets() -> None:
    plan = affine("a1", "b1", "c1", "d1")
    counts = Counter(chosen(plan, affinity=key) for key in range(4000))
    assert all(count == pytest.approx(1000, abs=120) for count in counts.values())


def test_prefixes_spread_by_weight() -> None:
    plan = plan_of(
        Target(backend="a", weight=3.0),
        Target(backend="b", weight=1.0),
        policy=Policy.PREFIX_AFFINITY,
    )
    counts = Counter(chosen(plan, affinity=key) for key in range(4000))
    assert counts["a"] / counts["b"] == pytest.approx(3.0, rel=0.15)


def test_a_target_that_leaves_moves_only_its_own_prefixes() -> None:
    plan = affine("a1", "b1", "c1", "d1")
    before = {key: chosen(plan, affinity=key) for key in range(500)}
    open_breaker(by_name(plan)["c1"])
    moved = {key for key in before if chosen(plan, affinity=key) != before[key]}
    assert moved == {key for key, name in before.items() if name == "c1"}


@given(key=KEYS, loads=st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_affinity_never_sends_to_one_beyond_the_bound(key: int, loads: list[int]) -> None:
    plan = affine("a1", "b1", "c1")
    for candidate, load in zip(by_name(plan).values(), loads, strict=True):
        candidate.state.backend.in_flight = load
    taken = by_name(plan)[chosen(plan, affinity=key)]
    assert taken.state.backend.in_flight < BOUNDED_LOAD * (sum(loads) + 1) / 3


def test_a_prefix_whose_target_is_too_busy_goes_to_its_second_and_comes_back() -> None:
    plan = affine("a1", "b1", "c1")
    home = by_name(plan)[chosen(plan, affinity=42)]
    home.state.backend.in_flight = 10
    second = chosen(plan, affinity=42)
    assert second != home.state.backend.name
    assert {chosen(plan, affinity=42) for _ in range(5)} == {second}
    home.state.backend.in_flight = 0
    assert by_name(plan)[chosen(plan, affinity=42)] is home


@pytest.mark.parametrize("key", [0, 2**64 - 1])
def test_no_prefix_breaks_the_arithmetic(key: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse_gateway.routing.choose._mix", lambda _: key)
    assert chosen(affine("a1", "b1"), affinity=1) in {"a1", "b1"}


# -- stickiness


def test_a_session_sticks_whatever_the_policy() -> None:
    plan = plan_of(*targets("a1", "b1", "c1"))
    where = {key: {chosen(plan, affinity=key, session=True) for _ in range(5)} for key in range(30)}
    assert all(len(names) == 1 for names in where.values())
    assert len(set.union(*where.values())) == 3


def test_without_session_or_policy_a_hash_means_nothing() -> None:
    plan = plan_of(*targets("a1", "b1"))
    assert {chosen(plan, affinity=5) for _ in range(50)} == {"a1", "b1"}


def test_a_session_whose_target_is_out_moves_on() -> None:
    plan = plan_of(*targets("a1", "b1"))
    home = by_name(plan)[chosen(plan, affinity=3, session=True)]
    open_breaker(home)
    assert chosen(plan, affinity=3, session=True) != home.state.backend.name


def test_the_breaker_of_the_settings_is_the_targets() -> None:
    [candidate] = by_name(plan_of(*targets("a1"))).values()
    assert candidate.state.breaker.failures == Breaker().failures
    assert repr(candidate) == "<order 1 <a1/m closed>>"
