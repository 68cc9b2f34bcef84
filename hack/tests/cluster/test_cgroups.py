"""Processes are found by their control group, whatever they have done since."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest
from hack.cluster import cgroups
from hack.cluster.shell import eventually, run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(cgroups.missing_controllers()),
    reason="needs root and control groups",
)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = f"cluster-test-{os.getpid()}"
    monkeypatch.setattr(cgroups, "SLICE", name)
    yield name
    cgroups.kill(name)
    cgroups.remove(name)


def test_a_process_and_its_orphans_are_killed(group: str) -> None:
    procs = shlex.quote(str(cgroups.make_daemon("thing")))
    # The children are of a session of their own, and their parent is gone.
    script = f"echo $$ > {procs}; exec > /dev/null 2>&1; setsid sleep 300 & setsid sleep 300 &"
    run(["sh", "-c", script])
    eventually("both run", lambda: len(cgroups.daemon("thing")) == 2, 5)
    assert cgroups.kill(group) == []
    assert cgroups.processes(group) == []


def test_a_group_is_made_in_every_hierarchy_and_removed_from_all(group: str) -> None:
    cgroups.make(f"{group}/node1")
    assert len(cgroups.groups(group)) == 2 * len(cgroups.hierarchies())
    cgroups.remove(group)
    assert cgroups.groups(group) == []


def test_a_group_of_v1_may_use_processors(group: str) -> None:
    cgroups.make(f"{group}/node1")
    cpus = cgroups.MOUNT / "cpuset" / group / "node1" / "cpuset.cpus"
    if cgroups.unified() or not cpus.exists():
        pytest.skip("no cpuset hierarchy of v1 is mounted here")
    assert cpus.read_text().strip()


def test_a_missing_controller_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path)
    for name in ("cpu,cpuacct", "pids"):
        (tmp_path / name).mkdir()
    assert cgroups.missing_controllers() == ["cpuset", "memory"]
