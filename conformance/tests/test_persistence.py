"""Every pod ends at once, and starts again: what is still there, and what has to be made anew."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from conformance.suite.cluster import is_ready
from conformance.suite.lines import NotSupported, line
from conformance.suite.session import SESSION
from conformance.suite.timeouts import RECOVERY, eventually
from conformance.suite.traffic import learn, settled

if TYPE_CHECKING:
    from conformance.suite.cluster import Object
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

Files = dict[str, int]
"""Sizes in bytes, by path."""


@dataclass(frozen=True)
class Kept:
    """What a component had before its pod ended, and after.

    Attributes:
        claims: Names of the volume claims that its pod mounts.
        before: Files on them, by mount.
        after: The same.
        restarted: Whether another pod has taken its place.
    """

    claims: tuple[str, ...]
    before: dict[str, Files]
    after: dict[str, Files]
    restarted: bool


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a line of every component."""
    if "component" not in metafunc.fixturenames:
        return
    deployment = metafunc.config.stash[SESSION]
    names = deployment.release.components if deployment.options.kubeconfig else []
    cases = [
        pytest.param(name, marks=line(f"persistence.{name}", f"A restart of {name} loses nothing"))
        for name in names
    ]
    none = pytest.param("", marks=line("persistence", "A restart of a pod loses nothing"))
    metafunc.parametrize("component", cases or [none])


def claims_of(pod: Object) -> dict[str, str]:
    """Return where a pod's first container mounts claims: by mount, their names."""
    volumes = {
        one["name"]: one["persistentVolumeClaim"]["claimName"]
        for one in pod["spec"].get("volumes", [])
        if "persistentVolumeClaim" in one
    }
    mounts = pod["spec"]["containers"][0].get("volumeMounts", [])
    return {one["mountPath"]: volumes[one["name"]] for one in mounts if one["name"] in volumes}


def files_of(deployment: Session, pod: Object) -> dict[str, Files]:
    """Return the files on the claims of a pod."""
    return {mount: deployment.lab.in_pod(pod, "files", mount) for mount in claims_of(pod)}


@dataclass(frozen=True)
class Restart:
    """Everything of before and after.

    Attributes:
        kept: By component.
        answers: What each backend said to the same questions, before and after.
        secrets: Names and contents of the release's Secrets, before and after.
    """

    kept: dict[str, Kept]
    answers: tuple[Any, Any]
    secrets: tuple[Any, Any]


def _secrets(deployment: Session) -> dict[str, Any]:
    found = deployment.cluster.all("Secret", None, "app.kubernetes.io/part-of=synapse")
    return {one["metadata"]["name"]: one.get("data", {}) for one in found}


def _answers(deployment: Session) -> Any:
    shapes, _ = settled(deployment)
    return learn(deployment, {kind: shapes[kind] for kind in shapes if kind != "chat-stream"})


@pytest.fixture(scope="module")
def restart(deployment: Session) -> Restart:
    """All pods of the release end without a moment to end in, as when the power fails."""
    deployment.need_disruptive()
    cluster, names = deployment.cluster, deployment.release.components
    pods = {name: cluster.ready(name) for name in names}
    before = {name: files_of(deployment, found[0]) for name, found in pods.items() if found}
    answers, secrets = _answers(deployment), _secrets(deployment)
    for found in pods.values():
        for pod in found:
            cluster.delete("Pod", pod["metadata"]["name"], grace=0)

    def back() -> bool:
        return all(
            len(cluster.ready(name)) >= len(found) and all(map(is_ready, cluster.pods(name)))
            for name, found in pods.items()
        )

    eventually("every pod is ready again", back, RECOVERY * 2, every=1.0)
    eventually("the gateway finds every backend", lambda: healthy(deployment), RECOVERY, every=1.0)
    now = {name: cluster.ready(name)[0] for name in before}
    kept = {
        name: Kept(
            claims=tuple(claims_of(pod).values()),
            before=before[name],
            after=files_of(deployment, pod),
            restarted=pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in pods[name]},
        )
        for name, pod in now.items()
    }
    return Restart(kept, (answers, _answers(deployment)), (secrets, _secrets(deployment)))


def healthy(deployment: Session) -> bool:
    """Whether every backend answers the gateway."""
    backends = deployment.gateway.get("/health")["backends"]
    return all(one["status"] == "healthy" for one in backends.values())


def test_what_survives_a_restart(
    deployment: Session, component: str, restart: Restart, evidence: Evidence
) -> None:
    if not component:
        raise NotSupported("the release has no Deployment")
    if component not in restart.kept:
        raise NotSupported(f"{component} has no ready pod")
    kept = restart.kept[component]
    assert kept.restarted, "its pod was not replaced"
    evidence("claims", ", ".join(kept.claims) or "none: it keeps nothing, and starts without")
    lost = []
    for mount, files in kept.before.items():
        evidence(mount, f"{len(files)} files, {sum(files.values()) / 1e6:.0f} MB")
        lost += [f"{mount}/{n}" for n, size in files.items() if kept.after[mount].get(n) != size]
    assert not lost, f"{len(lost)} files were lost or changed: {lost[0]}"
    health = deployment.gateway.get("/health")["backends"].get(component)
    if health:
        evidence("afterwards", health["status"])
        assert health["status"] == "healthy"


@line("persistence.answers", "After a restart of everything the answers are those of before")
def test_answers_survive(restart: Restart, evidence: Evidence) -> None:
    (before, why), (after, why_after) = restart.answers
    assert not why, why
    assert not why_after, why_after
    evidence("backends asked", ", ".join(sorted({b for said in before.values() for b in said})))
    assert {k: sorted(v) for k, v in before.items()} == {k: sorted(v) for k, v in after.items()}
    assert before["chat"] == after["chat"]


@line("persistence.keys", "After a restart of everything the keys are those of before")
def test_keys_survive(restart: Restart, evidence: Evidence) -> None:
    before, after = restart.secrets
    if not before:
        raise NotSupported("the release has no Secret of its own")
    evidence("Secrets", ", ".join(sorted(before)))
    assert before == after, "a Secret has changed"
