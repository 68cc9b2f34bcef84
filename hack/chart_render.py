"""Render the chart with the pinned Helm, without a cluster and without anybody's configuration."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "synapse"
NAMESPACE = "llm-infra"
RELEASE = "synapse"
OPERATORS = ("monitoring.coreos.com/v1",)
# CSafeLoader where libyaml is there: the same result, ten times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


class RenderError(Exception):
    """Helm is missing, or refuses; the text is its own."""


@functools.cache
def tool(name: str) -> str:
    """Path of a pinned tool, installed if need be.

    Raises:
        RenderError: When it cannot be installed.
    """
    script = ROOT / "hack" / "tools" / "install.sh"
    done = subprocess.run([script, name], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RenderError(f"{name} is missing and could not be installed: {reason}")
    return done.stdout.strip()


def run_helm(helm: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of `helm3` and `helm4`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": "/nonexistent",
        "KUBECONFIG": "/nonexistent",
        # It ends after a second: collecting garbage until then was half of its work.
        "GOGC": "off",
    }
    command = [tool(helm), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@functools.cache
def template(
    *values: Path,
    helm: str = "helm4",
    kube_version: str | None = None,
    apis: tuple[str, ...] = OPERATORS,
) -> str:
    """Rendered text of the chart with some values files.

    Raises:
        RenderError: With Helm's own words.
    """
    arguments = ["template", RELEASE, str(CHART), "--namespace", NAMESPACE]
    for path in values:
        arguments += ["--values", str(path)]
    for api in apis:
        arguments += ["--api-versions", api]
    if kube_version:
        arguments += ["--kube-version", kube_version]
    done = run_helm(helm, *arguments)
    if done.returncode != 0:
        raise RenderError(done.stderr)
    return done.stdout


@functools.cache
def manifests(*values: Path, apis: tuple[str, ...] = OPERATORS) -> list[Manifest]:
    """Rendered objects of the chart with some values files.

    Raises:
        RenderError: With Helm's own words.
    """
    return [found for found in yaml.load_all(template(*values, apis=apis), LOADER) if found]


def of_kind(objects: list[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of some kinds."""
    return [found for found in objects if found["kind"] in kinds]


def name_of(manifest: Manifest) -> str:
    """`Kind/name`."""
    return f"{manifest['kind']}/{manifest['metadata']['name']}"
