"""A rollout goes from phase to phase, and back, while applications call."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from conformance.suite.lines import line
from conformance.suite.phases import KEYS, LAST, SPEECH, Phases
from conformance.suite.timeouts import CONFIG_TAKEN, eventually
from conformance.suite.traffic import flowing, none_lost

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

SETTLE = 4.0
"""Seconds of traffic before and after."""
STEPS = [(number, number + 1) for number in range(1, LAST)]
STEPS += [(number + 1, number) for number in reversed(range(1, LAST))]


@pytest.fixture(scope="module")
def phases(deployment: Session) -> Iterator[Phases]:
    deployment.need_disruptive()
    found = Phases(deployment)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(
            before,
            after,
            id=f"{before}-to-{after}",
            marks=line(
                f"upgrades.{before}-to-{after}",
                f"From phase {before} {'on' if after > before else 'back'} to {after} no request"
                " is lost",
            ),
        )
        for before, after in STEPS
    ],
)
def test_a_step(
    deployment: Session, phases: Phases, before: int, after: int, evidence: Evidence
) -> None:
    phases.be(before)
    had, ran = phases.components(), phases.started()
    # Between these the name `ollama` changes hands, which a kept connection would not notice.
    changes_hands = {before, after} == {KEYS - 1, KEYS}
    with flowing(deployment, phases.plan(anew=changes_hands)) as traffic:
        traffic.flow(SETTLE)
        traffic.mark(f"phase {after}")
        phases.go(after)
        traffic.mark("up")
        traffic.flow(SETTLE)
        result = traffic.stop()
    has, runs = phases.components(), phases.started()
    evidence.stand_ins += phases.stand_ins()
    evidence("new", ", ".join(sorted(has - had)) or "nothing")
    evidence("gone", ", ".join(sorted(had - has)) or "nothing")
    evidence("took", f"{result.at('up') - result.at(f'phase {after}'):.0f} s")
    answered = Counter(one["backend"] or "Ollama, directly" for one in result.answers)
    evidence("answered by", ", ".join(f"{who} {count}" for who, count in answered.items()))
    none_lost(evidence, result)
    again = {name: runs[name] - count for name, count in ran.items() if runs.get(name, 0) > count}
    assert not again, f"pods that were started again: {sorted(again)}"
    if after >= KEYS:
        # a changed ConfigMap takes the kubelets a while to bring
        eventually("every backend is healthy", lambda: not phases.ill(), CONFIG_TAKEN, every=1.0)
        evidence("backends", ", ".join(sorted(phases.release.config["backends"])))
    if after >= SPEECH:
        evidence("tts-1-hd is spoken by", phases.speaker())
