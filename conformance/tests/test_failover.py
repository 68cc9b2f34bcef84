"""A backend breaks under traffic: what callers saw, who answered, how long it took."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from conformance.suite import scene as scenes
from conformance.suite.faults import FAULTS, Fault
from conformance.suite.lines import NotSupported, line
from conformance.suite.timeouts import FAULT_MET, RECOVERY, eventually
from conformance.suite.traffic import flowing, plan

if TYPE_CHECKING:
    from conformance.suite.lines import Evidence
    from conformance.suite.scene import Scene
    from conformance.suite.session import Session
    from conformance.suite.traffic import Plan, Result, Traffic

BEFORE = 3.0
"""Seconds of traffic before a fault, and after its end."""
BEGUN, ENDED = "fault", "mended"


@pytest.fixture(scope="module")
def scene(deployment: Session) -> Scene:
    deployment.need_disruptive()
    return scenes.find(deployment)


@pytest.fixture(scope="module")
def calls(scene: Scene) -> Plan:
    return plan(scene.deployment)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault,
            id=fault.name,
            marks=line(f"failover.{fault.name}", f"{fault.title}, and callers are answered"),
        )
        for fault in FAULTS
    ],
)
def test_callers_do_not_notice(scene: Scene, calls: Plan, fault: Fault, evidence: Evidence) -> None:
    scene.await_ready()
    met_before = scenes.outcomes(scenes.replica_metrics(scene.deployment), scene.first)
    with flowing(scene.deployment, calls) as traffic:
        _await_first_choice(traffic, scene)
        traffic.flow(BEFORE)
        traffic.mark(BEGUN)
        try:
            fault.begin(scene)
            traffic.flow(fault.seconds)
            met = _await_met(scene, fault, met_before)
        finally:
            traffic.mark(ENDED)
            fault.mend(scene)
        scene.await_ready()
        _await_first_choice(traffic, scene, after=traffic.marks[-1][0])
        traffic.flow(BEFORE)
        result = traffic.stop()
    tell(result, scene, evidence)
    evidence("what the gateway met", ", ".join(f"{n:g} x {o}" for o, n in met.items()) or "nothing")
    judge(result, scene, fault)


def _await_first_choice(traffic: Traffic, scene: Scene, after: float = 0.0) -> None:
    traffic.until(
        f"{scene.first} answers",
        lambda seen: any(
            one["backend"] == scene.first and not one["lost"] and one["t"] > after for one in seen
        ),
        RECOVERY,
    )


def _await_met(scene: Scene, fault: Fault, before: dict[str, float]) -> dict[str, float]:
    """Wait until the gateway has met the fault, and return what it met."""

    def look() -> dict[str, float] | None:
        now = scenes.outcomes(scenes.replica_metrics(scene.deployment), scene.first)
        met = {name: count - before.get(name, 0.0) for name, count in now.items()}
        met = {name: count for name, count in met.items() if count > 0}
        good = not fault.meets or any(name in met for name in fault.meets)
        return met if good else None

    return eventually(f"the gateway meets {' or '.join(fault.meets)}", look, FAULT_MET, every=2.0)


def tell(result: Result, scene: Scene, evidence: Evidence) -> None:
    """Write down what callers saw."""
    begun, ended = result.at(BEGUN), result.at(ENDED)
    during = result.sent(begun, ended)
    for what, answers in (
        ("before", result.sent(before=begun)),
        ("during", during),
        ("after", result.sent(ended)),
    ):
        counted = ", ".join(f"{name} {count}" for name, count in result.backends(answers).items())
        evidence(f"answers {what}", counted or "none")
    evidence("requests", len(result.answers))
    evidence("lost", len(result.lost) - len(result.told))
    evidence("streams cut, their callers told", len(result.told))
    reasons = Counter(one["fallback"] for one in during if one.get("fallback"))
    evidence("reasons given", ", ".join(f"{name} {n}" for name, n in reasons.items()) or "none")
    slowest = max((one["seconds"] for one in during if not one["lost"]), default=0.0)
    evidence("slowest answer meanwhile", f"{slowest:.1f} s")
    back = [one["t"] for one in result.sent(ended) if one.get("backend") == scene.first]
    evidence("first choice back", f"{min(back) - ended:.1f} s after" if back else "not")
    evidence.charts.append(result.course())


def judge(result: Result, scene: Scene, fault: Fault) -> None:
    """Hold what callers saw against what is promised.

    Raises:
        NotSupported: The first choice did not answer even before the fault.
        AssertionError: A request was lost, or nobody stood in.
    """
    begun, ended = result.at(BEGUN), result.at(ENDED)
    if not result.backends(result.sent(before=begun))[scene.first]:
        raise NotSupported(f"{scene.first} did not answer before the fault")
    cut = {
        id(one)
        for one in result.told
        if fault.cuts and one["begun"] and one["backend"] == scene.first
    }
    lost = [one for one in result.lost if id(one) not in cut]
    assert not lost, f"{len(lost)} of {len(result.answers)} lost: {result.why_lost()}"
    if fault.replaced:
        others = result.backends(result.sent(begun, ended))
        assert any(others[name] for name in scene.others), "nobody stood in"
