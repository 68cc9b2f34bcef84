"""Whether this machine can run the cluster; if not, what it lacks."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from pathlib import Path

from hack.cluster import cgroups, programs
from hack.cluster.settings import CACHE, NAME, STATE, ClusterError
from hack.cluster.shell import succeeds

# Executable to the Debian package that brings it.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/loopback": "containernetworking-plugins",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "clang-16": "clang-16",
    "llc-16": "llvm-16",
    "bpftool": "bpftool",
    "conntrack": "conntrack",
    "ipset": "ipset",
    "iptables": "iptables",
    "ethtool": "ethtool",
    "socat": "socat",
    "ip": "iproute2",
    "tc": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "openssl": "openssl",
    "curl": "curl",
    "gcc": "gcc",
    "git": "git",
}
MEMORY_BYTES = 6e9
DISK_BYTES = 8e9  # images, twice
BUILD_DISK_BYTES = 25e9  # Go's modules and compiled packages besides


def missing_packages() -> list[str]:
    """Debian packages whose programs are not there."""
    return sorted({package for name, package in PACKAGES.items() if not shutil.which(name)})


def kernel_lacks() -> list[str]:
    """Features of the kernel that were tried and did not work."""
    lacks = []
    if not Path("/dev/kmsg").exists():
        lacks.append("/dev/kmsg, which the kubelet reads")
    if not Path("/sys/kernel/btf/vmlinux").exists():
        lacks.append("BPF type information (CONFIG_DEBUG_INFO_BTF)")
    namespace = ["unshare", "--mount", "--net", "--propagation", "private"]
    trials = {
        "mount and network namespaces": [*namespace, "true"],
        "a BPF file system": [*namespace, "mount", "-t", "bpf", "bpf", "/sys/fs/bpf"],
        "virtual network cards (veth)": [*namespace, "ip", "link", "add", "card0", "type", "veth"],
        "bridges": [*namespace, "ip", "link", "add", "br0", "type", "bridge"],
        "iptables' nat table": [*namespace, "iptables", "-w", "-t", "nat", "-S"],
    }
    lacks += [what for what, command in trials.items() if not succeeds(command)]
    STATE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=STATE) as folder:
        for name in ("low", "high", "work", "all"):
            (Path(folder) / name).mkdir()
        options = f"lowerdir={folder}/low,upperdir={folder}/high,workdir={folder}/work"
        overlay = [*namespace, "mount", "-t", "overlay", "overlay", "-o", options, f"{folder}/all"]
        if not succeeds(overlay):
            lacks.append(f"overlay mounts on the file system of {STATE}")
    return lacks


def problems() -> list[str]:
    """Everything that this machine lacks, each as a sentence that says what to do."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return [f"This is {platform.system()} on {platform.machine()}; Linux on x86-64 is needed."]
    if os.geteuid() != 0:
        return ["Namespaces, mounts and BPF need root; run `sudo make cluster`."]
    found = []
    if packages := missing_packages():
        found.append(f"Programs are missing: apt-get install {' '.join(packages)}")
    if controllers := cgroups.missing_controllers():
        found.append(
            f"Control groups lack {', '.join(controllers)}: mount cgroup v2, or those v1 "
            f"hierarchies, at {cgroups.MOUNT}."
        )
    if CACHE.is_relative_to("/run"):
        found.append(f"{CACHE} lies below /run, which a node has of its own; set XDG_CACHE_HOME.")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory < MEMORY_BYTES:
        found.append(f"{memory / 1e9:.0f} GB of memory; {MEMORY_BYTES / 1e9:.0f} are needed.")
    CACHE.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(CACHE).free
    building = any(programs.BY_NAME[name].missing() for name in programs.CORE)
    needed = BUILD_DISK_BYTES if building else DISK_BYTES
    if free < needed:
        found.append(f"{free / 1e9:.0f} GB free at {CACHE}; {needed / 1e9:.0f} are needed.")
    if not packages:
        found += [f"The kernel lacks {what}." for what in kernel_lacks()]
    return found


def check() -> None:
    """Raise with everything that is missing.

    Raises:
        ClusterError: When the cluster cannot run here.
    """
    if found := problems():
        lines = "\n".join(f"  - {line}" for line in found)
        raise ClusterError(
            f"The cluster {NAME} cannot run on this machine:\n{lines}\n"
            "A cluster that you have already will do as well: KUBECONFIG=... make cluster"
        )
