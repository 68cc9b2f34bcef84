"""Recipes of the programs: versions, and what makes a build happen or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hack.cluster.programs import BY_NAME, PROGRAMS, Program, expand
from hack.cluster.settings import pins

if TYPE_CHECKING:
    from pathlib import Path

PINS = pins()


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_every_program_has_a_pinned_version(program: Program) -> None:
    assert program.version == PINS[program.pin]
    assert program.folder.name == f"{program.name}-{program.version}"


@pytest.mark.parametrize(
    ("definitions", "program"),
    [
        ("CRDS_PROMETHEUS_OPERATOR", "prometheus-operator"),
        ("CRDS_CILIUM", "cilium"),
        ("CRDS_ARGO_CD", "argocd"),
        ("CRDS_TRAEFIK", "traefik"),
    ],
)
def test_definitions_are_of_the_version_that_runs(definitions: str, program: str) -> None:
    assert f"@v{BY_NAME[program].version}:" in PINS[definitions]


@pytest.mark.parametrize(
    ("pattern", "version", "result"),
    [
        ("v0.{version_without_major}", "1.34.4", "v0.34.4"),  # Kubernetes' staging modules
        ("v0.{prometheus_minor}.{patch}", "3.7.0", "v0.307.0"),
        ("v0.{prometheus_minor}.{patch}", "3.12.1", "v0.312.1"),
        ("{major}.{minor}", "1.34.4", "1.34"),
    ],
)
def test_patterns_of_module_versions(pattern: str, version: str, result: str) -> None:
    assert expand(pattern, version) == result


def test_a_program_is_missing_until_its_executables_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hack.cluster.programs.TOOLS", tmp_path)
    cilium = BY_NAME["cilium"]
    assert cilium.missing() == list(cilium.commands)
    cilium.folder.mkdir()
    (cilium.folder / "cilium-agent").touch()
    assert cilium.missing(["cilium-agent"]) == []
    assert "cilium-cni" in cilium.missing()
