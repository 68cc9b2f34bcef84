"""kubectl, wherever the cluster is."""

from __future__ import annotations

import json
import os
import shlex
from typing import Any

from hack.cluster import daemons
from hack.cluster.settings import KUBECONFIG
from hack.cluster.shell import run, succeeds

NAMESPACE = "argocd"


def command() -> list[str]:
    """Kubectl's words: by KUBECTL or KUBECONFIG, or for the cluster of `make cluster`."""
    given = os.environ.get("KUBECTL")
    if given:
        return shlex.split(given)
    if in_laboratory():
        words = [daemons.tool("kubectl"), f"--kubeconfig={KUBECONFIG}"]
        return daemons.CONTROL.inside(words, mounts=False)
    return ["kubectl"]


def in_laboratory() -> bool:
    """Whether the cluster is the one of `make cluster`."""
    own = os.environ.get("KUBECTL") or os.environ.get("KUBECONFIG")
    return not own and KUBECONFIG.exists()


def kubectl(*arguments: str, text: str | None = None, timeout: float | None = 120) -> str:
    """Output of kubectl.

    Raises:
        ClusterError: When it fails, with the end of what it said.
    """
    return run([*command(), *arguments], text=text, timeout=timeout)


def works(*arguments: str) -> bool:
    """Whether kubectl ends well."""
    return succeeds([*command(), *arguments])


def get(*arguments: str) -> Any:
    """An object, or a list of them."""
    return json.loads(kubectl("get", *arguments, "--output", "json"))


def apply(objects: str, namespace: str = NAMESPACE) -> None:
    """Apply manifests; definitions are larger than an annotation may be."""
    kubectl(
        "apply",
        "--namespace",
        namespace,
        "--server-side",
        "--force-conflicts",
        "-f",
        "-",
        text=objects,
    )
