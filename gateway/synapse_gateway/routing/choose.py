"""Which candidate a request is sent to next.

Orders are walked from the first. Within one: prefix affinity (rendezvous hashing with bounded
load) when the model's policy or the caller's session asks for it, else power of two choices on
outstanding work per slot and weight. A candidate that only seems overloaded still serves when
nothing better is free in any order; one that is out never does.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.config.settings import Policy
from synapse_gateway.routing.breaker import BreakerState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from synapse_gateway.routing.table import Candidate, Plan

BOUNDED_LOAD = 1.25
"""Affinity holds while a candidate's load is at most this many times the average of its order."""

OVERLOADED = "overloaded"
"""The only reason of `out` that still lets a candidate serve when nothing else can."""


class Choice(NamedTuple):
    """What was chosen, or when to look again."""

    candidate: Candidate | None
    skipped: str
    """Why the first order does not serve; empty if it does, or if it was already tried."""
    full: bool
    """Whether a candidate that was not tried is only at its cap."""
    retry_at: float
    """Monotonic seconds when something that is out now may be back; 0.0 if only a freed place or a
    probe can tell."""


def why_out(candidate: Candidate, now: float) -> str:
    """Say why a candidate should not be asked now; empty if nothing speaks against it."""
    state = candidate.state
    backend = state.backend
    if not state.breaker.allows(now):
        return "breaker_open"
    if now < state.cooling_until:
        return "cooling_down"
    if backend.asleep:
        return "asleep"
    if (candidate.cap is not None and state.in_flight >= candidate.cap) or (
        backend.config.max_in_flight is not None
        and backend.in_flight >= backend.config.max_in_flight
    ):
        return "at_capacity"
    if backend.up is False:
        return "down"
    return OVERLOADED if backend.overloaded(state.model) else ""


def choose(
    plan: Plan,
    now: float,
    *,
    tried: Collection[Candidate] = (),
    affinity: int | None = None,
    session: bool = False,
) -> Choice:
    """Choose a candidate.

    Args:
        plan: The candidates by order.
        now: Monotonic seconds.
        tried: Candidates that this request must not be sent to.
        affinity: Hash of the prompt's beginning, or of the caller's session.
        session: Whether the affinity is the caller's own and holds whatever the policy.

    Returns:
        The candidate, or none and when to look again.
    """
    skipped = ""
    reserves: list[Candidate] = []
    last_resort: list[Candidate] = []
    retry_at = 0.0
    full = False
    for position, order in enumerate(plan.orders):
        free = []
        for candidate in order:
            if candidate in tried:
                continue
            reason = why_out(candidate, now)
            if not reason:
                free.append(candidate)
                continue
            if position == 0 and not skipped:
                skipped = reason
            if reason == OVERLOADED:
                reserves.append(candidate)
            elif reason == "down":
                last_resort.append(candidate)
            elif reason == "at_capacity":
                full = True
            else:
                retry_at = _earlier(retry_at, back_at(candidate, now))
        if free:
            use_hash = session or plan.policy is Policy.PREFIX_AFFINITY
            chosen = _within(free, affinity if use_hash else None)
            return Choice(chosen, skipped if position else "", full=False, retry_at=0.0)
    for rest in (reserves, last_resort):
        if rest:
            lowest = min(candidate.order for candidate in rest)
            chosen = _within([c for c in rest if c.order == lowest], None)
            first = plan.orders[0]
            return Choice(chosen, "" if chosen in first else skipped, full=False, retry_at=0.0)
    return Choice(None, skipped, full, retry_at)


def _earlier(a: float, b: float) -> float:
    return min(a, b) if a and b else a or b


def back_at(candidate: Candidate, now: float) -> float:
    """Return when a candidate that is out comes back by itself, 0.0 if it does not."""
    state = candidate.state
    if state.breaker.state is BreakerState.OPEN and state.breaker.open_until > now:
        return max(state.breaker.open_until, state.cooling_until)
    return state.cooling_until if state.cooling_until > now else 0.0


def _load(candidate: Candidate) -> float:
    backend = candidate.state.backend
    outstanding = backend.in_flight + backend.others + (backend.waiting or 0)
    return outstanding / ((backend.slots or 1) * candidate.weight)


def _within(free: Sequence[Candidate], affinity: int | None) -> Candidate:
    if len(free) == 1:
        return free[0]
    if affinity is not None:
        return _by_affinity(free, affinity)
    first = _draw(free)
    if len(free) == 2:
        second = free[1] if first is free[0] else free[0]
    else:
        second = _draw([candidate for candidate in free if candidate is not first])
    return first if _load(first) <= _load(second) else second


def _draw(free: Sequence[Candidate]) -> Candidate:
    """Draw a candidate with a chance by its weight."""
    total = 0.0
    for candidate in free:
        total += candidate.weight
    point = random.random() * total  # noqa: S311 - no secret
    for candidate in free:
        point -= candidate.weight
        if point < 0:
            return candidate
    return free[-1]


def _by_affinity(free: Sequence[Candidate], affinity: int) -> Candidate:
    ranked = sorted(free, key=lambda candidate: _rendezvous(candidate, affinity), reverse=True)
    loads = [candidate.state.backend.in_flight for candidate in free]
    bound = BOUNDED_LOAD * (sum(loads) + 1) / len(free)
    for candidate in ranked:
        if candidate.state.backend.in_flight < bound:
            return candidate
    return ranked[0]  # pragma: no cover - one of them is always below the average's bound


def _rendezvous(candidate: Candidate, affinity: int) -> float:
    """Return the candidate's weighted score for a key (weighted rendezvous hashing)."""
    state = candidate.state
    mixed = _mix(affinity ^ _mix(state.identity))
    # 53 bits, so that the quotient is never rounded to 1
    return -candidate.weight / math.log(((mixed >> 11) + 1) / (2**53 + 1))


def _mix(value: int) -> int:
    """Spread 64 bits (the finaliser of SplitMix64)."""
    value &= 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)
