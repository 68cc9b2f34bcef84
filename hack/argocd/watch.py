"""What Argo CD says of an Application, and waiting for it."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from hack.argocd.kube import NAMESPACE, get, kubectl
from hack.cluster.settings import ClusterError
from hack.cluster.shell import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

ARRIVES = 900.0
"""Seconds that a commit may take until everything it brings is healthy; models are loaded in it."""


def application(name: str) -> dict[str, Any]:
    """An Application as it is now; empty if it is not there."""
    with contextlib.suppress(ClusterError):
        found: dict[str, Any] = get("--namespace", NAMESPACE, "application", name)
        return found
    return {}


def applications() -> dict[str, dict[str, Any]]:
    """Every Application as it is now, by name."""
    with contextlib.suppress(ClusterError):
        items = get("--namespace", NAMESPACE, "application")["items"]
        return {one["metadata"]["name"]: one for one in items}
    return {}


def refresh() -> None:
    """Let Argo CD look at Git now, as a webhook would; it looks by itself every few minutes."""
    annotation = "argocd.argoproj.io/refresh=normal"
    kubectl(
        *("annotate", "--namespace", NAMESPACE, "--overwrite", "application", "--all", annotation)
    )


def terminate(name: str) -> None:
    """End the sync that is under way, as `argocd app terminate-op` does; the next one begins."""
    phase = '{"status": {"operationState": {"phase": "Terminating"}}}'
    operation = application(name).get("status", {}).get("operationState", {})
    if operation.get("phase") == "Running":
        kubectl(
            *("patch", "--namespace", NAMESPACE, "application", name),
            *("--type=merge", "--patch", phase),
        )


def state(found: dict[str, Any]) -> str:
    """`Synced Healthy` and the like."""
    status = found.get("status", {})
    sync = status.get("sync", {}).get("status", "unknown")
    return f"{sync} {status.get('health', {}).get('status', 'unknown')}"


def conditions(name: str) -> list[str]:
    """What Argo CD complains of."""
    found = application(name).get("status", {}).get("conditions", [])
    return [f"{one['type']}: {one['message']}" for one in found]


def complaints(name: str) -> str:
    """Everything that says why an Application is not well."""
    found = application(name)
    status = found.get("status", {})
    lines = [state(found), *conditions(name)]
    lines += [
        f"{one['kind']}/{one['name']}: {one.get('status')} {one.get('health', {})}"
        for one in status.get("resources", [])
        if one.get("status") != "Synced"
        or one.get("health", {}).get("status", "Healthy") != "Healthy"
    ]
    operation = status.get("operationState", {})
    lines.append(f"operation: {operation.get('phase')} {operation.get('message', '')}")
    return "\n".join(f"    {line}" for line in lines)


def runs(name: str, commit: str) -> bool:
    """Whether what the root has at a commit is what an Application runs, and well.

    The Application's own revision is that of its tag; what it is at a commit of `main` is its spec.
    """
    there = applications()
    found, root = there.get(name, {}), there.get("root", {})
    status = found.get("status", {})
    operation = status.get("operationState", {})
    return (
        root.get("status", {}).get("sync", {}).get("revision") == commit
        and state(root).startswith("Synced")
        and state(found) == "Synced Healthy"
        and status["sync"]["comparedTo"]["source"] == found["spec"]["source"]
        and operation.get("phase") == "Succeeded"
        and operation["syncResult"]["source"] == found["spec"]["source"]
    )


def arrived(name: str, commit: str, seconds: float = ARRIVES) -> None:
    """Wait until a commit's state is there, and well."""
    again = now_and_then()

    def holds() -> bool:
        again()
        return runs(name, commit)

    eventually(f"{name} runs {commit[:8]}", holds, seconds, lambda: complaints(name))


def now_and_then() -> Callable[[], None]:
    """What refreshes the Applications the first time that it is called, and every tenth time."""
    calls = itertools.count()

    def step() -> None:
        if next(calls) % 10 == 0:
            refresh()

    return step
