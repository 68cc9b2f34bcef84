"""The installer of the pinned tools: prints paths that work, and does nothing twice."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

INSTALL = Path(__file__).resolve().parents[1] / "tools" / "install.sh"


def install(*names: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([INSTALL, *names], check=False, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("tool", "arguments", "answer"),
    [
        ("helm3", ["version", "--short"], "v3."),
        ("helm4", ["version", "--short"], "v4."),
        ("kubectl", ["version", "--client"], "Client Version: v1."),
        ("promtool", ["--version"], "promtool, version "),
        ("prometheus", ["--version"], "prometheus, version "),
        ("etcd", ["--version"], "etcd Version: 3."),
        ("redis-server", ["--version"], "Redis server v="),
        ("kubernetes-validate", ["-c", "import kubernetes_validate; print('here')"], "here"),
    ],
)
def test_a_tool_runs_from_the_path_that_is_printed(
    tool: str, arguments: list[str], answer: str
) -> None:
    path = install(tool).stdout.strip()
    run = subprocess.run([path, *arguments], check=True, capture_output=True, text=True)
    assert answer in run.stdout


def test_a_second_run_leaves_the_tool_as_it_is() -> None:
    first = Path(install("helm4").stdout.strip())
    before = first.stat().st_ctime_ns
    assert install("helm4").stdout.strip() == str(first)
    assert first.stat().st_ctime_ns == before


def test_the_definitions_are_one_file_for_each_project() -> None:
    folder = Path(install("crds").stdout.strip())
    projects = {file.stem for file in folder.glob("*.yaml")}
    assert {
        "argo-cd",
        "cilium",
        "external-secrets",
        "gateway-api",
        "prometheus-operator",
    } <= projects


def test_an_unknown_tool_is_refused_with_the_known_ones() -> None:
    run = install("helm5")
    assert run.returncode == 1
    assert "unknown tool 'helm5': expected helm3, helm4" in run.stderr


def test_no_tool_at_all_is_refused_with_an_example() -> None:
    run = install()
    assert run.returncode == 1
    assert "name the tools to install, for example: hack/tools/install.sh" in run.stderr
