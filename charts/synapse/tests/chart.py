"""Render the chart with pinned tools, and look at what came out."""

from __future__ import annotations

import functools
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).resolve().parents[1]
ROOT = CHART.parents[1]
NAMESPACE = "llm-infra"
RELEASE = "synapse"

PHASES = [ROOT / "values" / f"phase{number}.yaml" for number in range(1, 7)]
VALUES = sorted((ROOT / "values").glob("*.yaml"))
SCENARIOS = sorted((CHART / "ci").glob("*-values.yaml"))
ALL_VALUES = [*VALUES, *SCENARIOS]
HELMS = ["helm3", "helm4"]
OPERATORS = ("monitoring.coreos.com/v1",)

Manifest = dict[str, Any]
# CSafeLoader where libyaml is there: the same result, ten times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@functools.cache
def tool(name: str) -> str:
    """Path of a pinned tool, installed if need be; skips the test where that is impossible."""
    script = ROOT / "hack" / "tools" / "install.sh"
    done = subprocess.run([script, name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"{name} is missing and could not be installed: {reason}")
    return done.stdout.strip()


def run_helm(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm without a cluster and without anybody's configuration."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "KUBECONFIG": "/nonexistent"}
    return subprocess.run(
        [tool(helm), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


@functools.cache
def template(
    *values: Path,
    helm: str = "helm4",
    kube_version: str | None = None,
    apis: tuple[str, ...] = OPERATORS,
) -> str:
    """Rendered text of the chart with some values files; fails with Helm's own words."""
    arguments = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for path in values:
        arguments += ["--values", str(path)]
    for api in apis:
        arguments += ["--api-versions", api]
    if kube_version:
        arguments += ["--kube-version", kube_version]
    done = run_helm(helm, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def manifests(*values: Path, apis: tuple[str, ...] = OPERATORS) -> list[Manifest]:
    """Rendered objects of the chart with some values files."""
    return [found for found in yaml.load_all(template(*values, apis=apis), LOADER) if found]


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def name_of(manifest: Manifest) -> str:
    """`Kind/name`."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"


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
