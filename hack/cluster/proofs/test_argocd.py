"""Argo CD brings what is in a Git repository that the cluster serves itself."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from hack.cluster import addons, lifecycle
from hack.cluster.daemons import kubectl
from hack.cluster.shell import eventually, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from hack.cluster.proofs.conftest import Namespace

NAME = "proof"
APPLICATION = """
apiVersion: argoproj.io/v1alpha1
kind: Application
metadata: {{name: proof, namespace: argocd, finalizers: [resources-finalizer.argocd.argoproj.io]}}
spec:
  project: default
  source: {{repoURL: "git://git.argocd.svc.cluster.local/proof.git", path: ., targetRevision: main}}
  destination: {{server: https://kubernetes.default.svc, namespace: {namespace}}}
  syncPolicy: {{automated: {{prune: true, selfHeal: true}}}}
"""


def commit(checkout: Path, value: str) -> None:
    """Commit a ConfigMap and push it to where the cluster reads from."""
    (checkout / "config.yaml").write_text(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: proof}}\ndata: {{value: {value}}}\n"
    )
    identity = ["-c", "user.name=proof", "-c", "user.email=proof@example.test"]
    run(["git", "-C", checkout, "add", "-A"])
    run(["git", "-C", checkout, *identity, "commit", "-qm", value])
    run(["git", "-C", checkout, "push", "-q", addons.GIT_FOLDER / f"{NAME}.git", "main"])


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """A repository, with a bare copy that the cluster serves."""
    lifecycle.add("argocd")
    served = addons.GIT_FOLDER / f"{NAME}.git"
    run(["git", "init", "-q", "-b", "main", "--bare", served])
    run(["git", "init", "-q", "-b", "main", tmp_path])
    yield tmp_path
    kubectl("-n", "argocd", "delete", "application", NAME, "--timeout=60s")
    shutil.rmtree(served)


def value(namespace: Namespace) -> str:
    """What the ConfigMap says, empty while there is none."""
    path = "jsonpath={.data.value}"
    return namespace.kubectl("get", "configmap/proof", "--ignore-not-found", "-o", path)


def test_a_commit_arrives_and_drift_is_healed(namespace: Namespace, checkout: Path) -> None:
    commit(checkout, "one")
    addons.apply(APPLICATION.format(namespace=namespace.name))
    state = "jsonpath={.status.sync.status} {.status.health.status}"
    eventually(
        "Synced Healthy",
        lambda: (
            kubectl("-n", "argocd", "get", "application", NAME, "-o", state) == "Synced Healthy"
        ),
        120,
        lambda: kubectl("-n", "argocd", "describe", "application", NAME),
    )
    assert value(namespace) == "one"
    commit(checkout, "two")
    refresh = "argocd.argoproj.io/refresh=normal"
    kubectl("-n", "argocd", "annotate", "application", NAME, refresh)
    eventually("the second commit arrives", lambda: value(namespace) == "two", 60)
    namespace.kubectl("patch", "configmap/proof", "-p", '{"data": {"value": "drift"}}')
    eventually("drift is healed", lambda: value(namespace) == "two", 60)
