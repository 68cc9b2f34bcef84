"""What a cluster that went down has left on this machine."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hack.cluster import bpf, cgroups
from hack.cluster.settings import RUN, STATE

if TYPE_CHECKING:
    from collections.abc import Callable

BEFORE = STATE / "before.json"
SYSCTL = Path("/proc/sys")
# Kernel settings that kubelet and Cilium change for the whole machine.
SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "kernel/timer_migration",
    "net/core/bpf_jit_enable",
)
WAIT_SECONDS = 120  # the kernel frees what namespaces held in the background


def settings() -> dict[str, str]:
    """Kernel settings as they are now."""
    found = {}
    for name in SETTINGS:
        path = SYSCTL / name
        if path.exists():
            found[name] = path.read_text().strip()
    return found


def remember() -> None:
    """Note how the machine is before the cluster comes up."""
    if RUN.exists():
        return
    STATE.mkdir(parents=True, exist_ok=True)
    known = {"settings": settings(), "bpf_before": sorted(bpf.objects())}
    BEFORE.write_text(json.dumps(known), encoding="utf-8")


def noted() -> dict[str, Any]:
    """What was noted of the machine, and of the cluster on it."""
    try:
        found = json.loads(BEFORE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def restore_settings() -> None:
    """Set kernel settings back to what they were."""
    old = noted().get("settings", {})
    for name, value in old.items():
        path = SYSCTL / name
        if path.exists() and path.read_text().strip() != value:
            path.write_text(value)


def namespaces(pids: list[int]) -> list[str]:
    """The namespaces that processes are in and this one is not, as `net:[number]`."""
    found = set()
    for kind in ("net", "mnt"):
        own = str(Path(f"/proc/self/ns/{kind}").readlink())
        for pid in pids:
            try:
                found.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
            except OSError:
                continue
        found.discard(own)
    return sorted(found)


def note() -> None:
    """Note what the running cluster holds, so that it can be looked for afterwards."""
    known = noted()
    known["namespaces"] = namespaces(cgroups.processes())
    known["bpf"] = sorted(bpf.objects() - set(known.get("bpf_before", [])))
    BEFORE.parent.mkdir(parents=True, exist_ok=True)
    BEFORE.write_text(json.dumps(known), encoding="utf-8")


def left_processes() -> list[str]:
    """Processes in the cluster's control groups, or started from its folder."""
    pids = set(cgroups.processes())
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word.startswith(os.fsencode(RUN)) for word in words):
            pids.add(int(path.parent.name))
    pids.discard(os.getpid())
    return [f"process {pid}" for pid in sorted(pids)]


def left_mounts() -> list[str]:
    """Mounts of this machine that lie in the cluster's folder."""
    lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    points = [line.split()[4] for line in lines]
    return [f"mount {point}" for point in points if point.startswith(str(STATE))]


def left_namespaces() -> list[str]:
    """Namespaces of the cluster that a process or a mount still holds."""
    mine = set(noted().get("namespaces", []))
    held = set(namespaces([int(path.name) for path in Path("/proc").glob("[0-9]*")]))
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    held |= {name for name in mine if name in mounts}
    return [f"namespace {name}" for name in sorted(mine & held)]


def left_groups() -> list[str]:
    """Control groups of the cluster."""
    return [f"control group {path}" for path in cgroups.groups()]


def left_bpf() -> list[str]:
    """BPF programs and maps that came with the cluster, if no other came meanwhile."""
    if cgroups.others():
        return []
    return [f"BPF {thing}" for thing in sorted(bpf.objects() & set(noted().get("bpf", [])))]


def left_settings() -> list[str]:
    """Kernel settings that are not what they were."""
    old = noted().get("settings", {})
    now = settings()
    return [
        f"kernel setting {name}: {now.get(name)}, was {value}"
        for name, value in old.items()
        if now.get(name) != value
    ]


def left_files() -> list[str]:
    """Folders that should have gone with the cluster."""
    return [f"folder {RUN}"] if RUN.exists() else []


CHECKS: tuple[Callable[[], list[str]], ...] = (
    left_processes,
    left_mounts,
    left_namespaces,
    left_groups,
    left_bpf,
    left_settings,
    left_files,
)


def left(seconds: float = WAIT_SECONDS) -> list[str]:
    """Everything that is left, after giving the kernel time to free what it frees by itself."""
    deadline = time.monotonic() + seconds
    while True:
        found = [line for check in CHECKS for line in check()]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(1)
