"""What tests with containers share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PODMAN = shutil.which("podman") or "podman"


def missing(*programs: str) -> str:
    """Why containers cannot be run here; empty if they can."""
    absent = [name for name in programs if shutil.which(name) is None]
    if absent:
        return f"needs the Debian packages {', '.join(absent)}"
    if os.geteuid() != 0:
        return "podman without root is not set up here; run as root"
    return ""


def containers_conf(folder: Path) -> Path:
    """Settings of podman that a machine without systemd or without CAP_SYS_RESOURCE needs.

    podman raises a container's limits above its own; crun refuses a mix of cgroups v1 and v2.
    """
    lines = ["[containers]", 'default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]']
    lines += ["[engine]", 'cgroup_manager = "cgroupfs"']
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
        lines.append('runtime = "runc"')
    path = folder / "containers.conf"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
