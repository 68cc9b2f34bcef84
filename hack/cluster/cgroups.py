"""The cluster's control groups: they hold every process of it, so that each can be found again.

SLICE/system/DAEMON holds a daemon, SLICE/NODE the pods of a node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

from hack.cluster.settings import NAME

MOUNT = Path("/sys/fs/cgroup")
SLICE = f"cluster-{NAME}"
NEEDED = ("cpu", "cpuset", "memory", "pids")


def unified() -> bool:
    """Whether this machine has cgroup v2 alone."""
    return (MOUNT / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """Roots of all hierarchies that a kubelet looks at."""
    if unified():
        return [MOUNT]
    if not MOUNT.is_dir():
        return []
    return [path for path in sorted(MOUNT.iterdir()) if path.is_dir() and path.name != "unified"]


def missing_controllers() -> list[str]:
    """Controllers that a kubelet needs and this machine lacks."""
    if unified():
        there = (MOUNT / "cgroup.controllers").read_text().split()
    else:
        there = [part for path in hierarchies() for part in path.name.split(",")]
    return [name for name in NEEDED if name not in there]


def tracking() -> Path:
    """The hierarchy that processes are found by."""
    return MOUNT if unified() else MOUNT / "pids"


def others() -> list[str]:
    """Names of other clusters that have processes."""
    names = {path.name for path in tracking().glob("cluster-*")} - {SLICE}
    return sorted(name.removeprefix("cluster-") for name in names if processes(name))


def make(name: str) -> None:
    """Make a group in every hierarchy, ready to hold processes."""
    for root in hierarchies():
        path = root
        for part in Path(name).parts:
            if unified():
                controllers = (path / "cgroup.controllers").read_text().split()
                for controller in controllers:
                    with contextlib.suppress(OSError):
                        (path / "cgroup.subtree_control").write_text(f"+{controller}")
            path /= part
            path.mkdir(exist_ok=True)
            for key in ("cpuset.cpus", "cpuset.mems"):  # in v1 a new group may use none
                if not unified() and (path / key).exists() and not (path / key).read_text().strip():
                    (path / key).write_text((path.parent / key).read_text())


def system(name: str) -> str:
    """The group of a daemon."""
    return f"{SLICE}/system/{name}"


def make_daemon(name: str) -> Path:
    """Make the group of a daemon, and return the file that takes its process."""
    path = tracking() / system(name)
    path.mkdir(parents=True, exist_ok=True)
    return path / "cgroup.procs"


def processes(name: str = "") -> list[int]:
    """Every process of a group, by default the whole cluster's, and the groups below it."""
    found: list[int] = []
    for file in (tracking() / (name or SLICE)).rglob("cgroup.procs"):
        with contextlib.suppress(OSError):
            found += [int(line) for line in file.read_text().split()]
    return found


def daemon(name: str) -> list[int]:
    """Processes of a daemon and what it has started in its own group."""
    return processes(system(name))


def kill(name: str = "", seconds: float = 20) -> list[int]:
    """Kill every process of a group, also those that appear meanwhile; return those that stay."""
    deadline = time.monotonic() + seconds
    while left := processes(name):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def groups(name: str = "") -> list[Path]:
    """Every directory of a group, the deepest first."""
    found = []
    for root in [*hierarchies(), MOUNT / "unified"]:
        top = root / (name or SLICE)
        if top.is_dir():
            found += [top, *(path for path in top.rglob("*") if path.is_dir())]
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def remove(name: str = "", seconds: float = 10) -> None:
    """Remove a group without processes; what the kernel still holds is left."""
    deadline = time.monotonic() + seconds
    while left := groups(name):
        for path in left:
            with contextlib.suppress(OSError):
                path.rmdir()
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
