"""What every test of the chart uses: where things are, and the pods that objects make."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hack import chart_render
from hack.chart_render import (
    CHART,
    NAMESPACE,
    OPERATORS,
    RELEASE,
    ROOT,
    Manifest,
    manifests,
    name_of,
    of_kind,
    run_helm,
    template,
)

__all__ = [
    "ALL_VALUES",
    "CHART",
    "HELMS",
    "NAMESPACE",
    "OPERATORS",
    "PHASES",
    "RELEASE",
    "ROOT",
    "SCENARIOS",
    "VALUES",
    "Manifest",
    "Pod",
    "identify",
    "manifests",
    "matches",
    "name_of",
    "of_kind",
    "pods",
    "run_helm",
    "template",
    "tool",
]

PHASES = [ROOT / "values" / f"phase{number}.yaml" for number in range(1, 7)]
VALUES = sorted((ROOT / "values").glob("*.yaml"))
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
ALL_VALUES = [*VALUES, *SCENARIOS]
HELMS = ["helm3", "helm4"]


def tool(name: str) -> str:
    """Path of a pinned tool; skips the test where it cannot be had."""
    try:
        return chart_render.tool(name)
    except chart_render.RenderError as error:
        pytest.skip(str(error))


@dataclass(frozen=True)
class Pod:
    """The pod that an object makes."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]
    long_running: bool

    @property
    def name(self) -> str:
        """Its label app.kubernetes.io/name."""
        return self.labels["app.kubernetes.io/name"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """All containers, those that run first included."""
        found: list[dict[str, Any]] = [*self.spec.get("initContainers", [])]
        return found + list(self.spec["containers"])

    def ports(self) -> dict[str, int]:
        """Container ports by name."""
        return {
            port["name"]: port["containerPort"]
            for container in self.containers
            for port in container.get("ports", [])
        }


def pods(objects: list[Manifest]) -> list[Pod]:
    """Every pod that the objects make."""
    found = []
    for manifest in objects:
        kind, spec = manifest["kind"], manifest.get("spec", {})
        if kind == "Pod":
            found.append(Pod(name_of(manifest), manifest["metadata"]["labels"], spec, False))
            continue
        if kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if kind in ("Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob"):
            pod = spec["template"]
            long_running = kind not in ("Job", "CronJob")
            labels = pod["metadata"]["labels"]
            found.append(Pod(name_of(manifest), labels, pod["spec"], long_running))
    return found


def matches(selector: dict[str, str], labels: dict[str, str]) -> bool:
    """Whether equality-based selection takes these labels."""
    return selector.items() <= labels.items()


def identify(path: object) -> str | None:
    """Test ids: a values file by its name."""
    return path.stem if isinstance(path, Path) else None
