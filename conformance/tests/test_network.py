"""The chart's table of edges, probed in both directions from inside the networks of pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from conformance.suite.lines import NotSupported, line
from conformance.suite.network import Matrix, sources, targets
from conformance.suite.session import SESSION

if TYPE_CHECKING:
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

CONTROL = "network.control"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a line of each port that the table leads to, and of each pod that it starts from."""
    deployment = metafunc.config.stash[SESSION]
    if "target" in metafunc.fixturenames:
        ports = targets(deployment) if deployment.options.kubeconfig else []
        cases = [
            pytest.param(
                target,
                marks=line(f"network.in.{target}", f"Only those that may call {target} reach it"),
            )
            for target in ports
        ]
        none = pytest.param("", marks=line("network.in", "Only those that may call a pod reach it"))
        metafunc.parametrize("target", cases or [none])
    if "source" in metafunc.fixturenames:
        pods = sources(deployment) if deployment.options.kubeconfig else []
        cases = [
            pytest.param(
                source,
                marks=line(f"network.out.{source}", f"{source} calls those only that it may"),
            )
            for source in pods
        ]
        none = pytest.param("", marks=line("network.out", "A pod calls those only that it may"))
        metafunc.parametrize("source", cases or [none])


@pytest.fixture(scope="module")
def matrix(deployment: Session) -> Matrix:
    """Who reaches whom."""
    return Matrix(deployment)


def test_a_port_is_reached_by_those_only_that_may(
    target: str, matrix: Matrix, evidence: Evidence
) -> None:
    allowed, reached = matrix.may_call(target), matrix.reached_by(target)
    evidence("reached by", ", ".join(sorted(reached)) or "nobody")
    evidence("not reached by", ", ".join(sorted(matrix.everybody - reached)) or "nobody")
    evidence("how refused", ", ".join(sorted(matrix.refusals(target))) or "-")
    assert not reached - allowed, f"{target} is reached by {sorted(reached - allowed)}"
    assert not allowed - reached, f"{target} is not reached by {sorted(allowed - reached)}"


def test_a_pod_calls_those_only_that_it_may(
    source: str, matrix: Matrix, evidence: Evidence
) -> None:
    allowed, reached = matrix.may_be_called(source), matrix.reached_from(source)
    evidence("reaches", ", ".join(sorted(reached)) or "nobody")
    evidence("a host of another namespace", matrix.outside(source))
    assert not reached - allowed, f"{source} reaches {sorted(reached - allowed)}"
    assert not allowed - reached, f"{source} does not reach {sorted(allowed - reached)}"


@line(CONTROL, "The host that no pod reaches is there for pods without a policy")
def test_the_host_outside_is_there(matrix: Matrix, evidence: Evidence) -> None:
    seen = matrix.outside("an application")
    evidence("from a pod that no policy selects", seen)
    assert set(seen.split(", ")) == {"open"}, "the host itself cannot be reached"


@line(
    "network.removed", "A pod reaches the host once its policy is gone, and no more once it is back"
)
def test_without_its_policies_a_pod_gets_out(
    deployment: Session, matrix: Matrix, evidence: Evidence
) -> None:
    deployment.need_disruptive()
    names = [name for name in sources(deployment) if name not in matrix.to_downloads]
    if not names:
        raise NotSupported("every pod may call hosts outside")
    before, without, after = matrix.without_policies(names[0])
    evidence(f"{names[0]}, with its policies", before)
    evidence("without", without)
    evidence("with them again", after)
    assert "open" not in before
    assert without == "open"
    assert "open" not in after
