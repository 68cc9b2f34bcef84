"""What a cluster leaves behind is found; each kind is made here for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hack.cluster import bpf, cgroups, leftovers
from hack.cluster.shell import eventually, run

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and mounts need root")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    name = f"cluster-test-{os.getpid()}"
    monkeypatch.setattr(cgroups, "SLICE", name)
    monkeypatch.setattr(leftovers, "STATE", tmp_path)
    monkeypatch.setattr(leftovers, "RUN", tmp_path / "run")
    monkeypatch.setattr(leftovers, "BEFORE", tmp_path / "before.json")
    leftovers.remember()
    yield tmp_path
    cgroups.kill(name)
    cgroups.remove(name)


def test_nothing_is_left_of_nothing() -> None:
    assert leftovers.left(0) == []


def test_a_process_that_was_started_from_the_clusters_folder(state: Path) -> None:
    folder = state / "run"
    folder.mkdir()
    program = folder / "program"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as process:
        found = leftovers.left(0)
        process.kill()
    assert f"process {process.pid}" in found
    assert f"folder {folder}" in found


def test_a_mount_in_the_clusters_folder(state: Path) -> None:
    point = state / "mounted"
    point.mkdir()
    run(["mount", "-t", "tmpfs", "none", point])
    try:
        assert leftovers.left(0) == [f"mount {point}"]
    finally:
        run(["umount", point])
    assert leftovers.left(0) == []


def test_a_control_group() -> None:
    cgroups.make(cgroups.SLICE)
    assert len(leftovers.left(0)) == len(cgroups.hierarchies())


def test_a_namespace_that_a_process_outside_of_the_group_holds() -> None:
    procs = cgroups.make_daemon("holder")
    with subprocess.Popen(["/usr/bin/unshare", "--net", "sleep", "60"]) as process:
        own = Path("/proc/self/ns/net").readlink()
        link = Path(f"/proc/{process.pid}/ns/net")
        eventually("it has a network of its own", lambda: link.readlink() != own, 5)
        procs.write_text(str(process.pid))
        leftovers.note()
        (cgroups.tracking() / "cgroup.procs").write_text(str(process.pid))
        cgroups.remove(cgroups.SLICE)
        found = leftovers.left(0)
        process.kill()
    assert len([line for line in found if line.startswith("namespace net:")]) == 1


def test_a_kernel_setting_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "sys"
    settings.mkdir()
    (settings / "panic").write_text("0\n")
    monkeypatch.setattr(leftovers, "SETTINGS", ("panic",))
    monkeypatch.setattr(leftovers, "SYSCTL", settings)
    leftovers.remember()
    (settings / "panic").write_text("10\n")
    assert leftovers.left(0) == ["kernel setting panic: 10, was 0"]
    leftovers.restore_settings()
    assert leftovers.left(0) == []


def test_bpf_objects_are_walked_without_opening_them() -> None:
    listed = run(["bpftool", "--json", "map", "list"]) if bpf.numbers("map") else "[]"
    assert listed.count('"id"') == len(bpf.numbers("map"))


def test_a_bpf_map_that_came_with_the_cluster(state: Path) -> None:
    if cgroups.others():
        pytest.skip("another cluster is up: its maps are not told apart")
    point = state / "bpf"
    point.mkdir()
    run(["mount", "-t", "bpf", "bpf", point])
    try:
        create = "bpftool map create {}/m type array key 4 value 4 entries 1 name test"
        run(["sh", "-c", create.format(point)])
        leftovers.note()
        assert any(line.startswith("BPF map ") for line in leftovers.left(0))
    finally:
        run(["umount", point])
    eventually("the kernel freed it", lambda: not leftovers.left_bpf(), 10)
