"""The places of the cluster: two nodes, the switch between them, and a host outside.

Each is a network namespace, a node also a mount namespace, held open by a process that sleeps. No
name is given to any of them, so nothing is left when their processes are gone.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import cgroups
from hack.cluster.settings import (
    CACHE,
    HERE,
    LOGS,
    NODE_ADDRESS,
    NODES,
    OUTSIDE_ADDRESS,
    POD_RANGE,
    RUN,
    STATE,
    ClusterError,
)
from hack.cluster.shell import eventually, last_lines, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


@dataclass(frozen=True)
class Place:
    """A set of namespaces that programs can be run in.

    Attributes:
        name: What it is called, also on the switch's side of its cable.
        address: Its address, if it has one.
        mounts: Whether it has mounts of its own.
    """

    name: str
    address: str = ""
    mounts: bool = False

    @property
    def pid(self) -> int:
        """The process that holds it.

        Raises:
            ClusterError: When the cluster is down.
        """
        pids = cgroups.daemon(f"{self.name}-holder")
        if not pids:
            raise ClusterError(f"{self.name} is not up; run: make cluster")
        return pids[0]

    @property
    def is_up(self) -> bool:
        """Whether its holder runs."""
        return bool(cgroups.daemon(f"{self.name}-holder"))

    @property
    def images(self) -> Path:
        """The containerd root of a node, which stays when the node goes down."""
        return STATE / "images" / self.name

    @property
    def var(self) -> Path:
        """What a node sees as /var; it goes with the node."""
        return RUN / self.name / "var"

    def inside(self, command: Sequence[object], *, mounts: bool = True) -> list[str]:
        """The command that runs `command` in this place."""
        # Not `ip netns exec`: it mounts /sys anew, and hides the control groups.
        prefix = ["nsenter", f"--target={self.pid}", "--net"]
        if self.mounts and mounts:
            prefix.append("--mount")
        return [*prefix, "--", *(str(word) for word in command)]

    def run(self, *command: object, text: str | None = None) -> str:
        """Standard output of a command that runs in this place."""
        return run(self.inside(command), text=text)


NODE_PLACES = {name: Place(name, address=NODE_ADDRESS[name], mounts=True) for name in NODES}
SWITCH = Place("switch")
OUTSIDE = Place("outside", address=OUTSIDE_ADDRESS)
PLACES = (SWITCH, *NODE_PLACES.values(), OUTSIDE)


def start(
    name: str,
    command: Sequence[object],
    place: Place | None = None,
    *,
    mounts: bool = False,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Start a daemon in a place, in a control group of its own, with a log of its own."""
    words = [str(word) for word in command]
    if place:
        words = place.inside(words, mounts=mounts)
    procs = shlex.quote(str(cgroups.make_daemon(name)))
    LOGS.mkdir(parents=True, exist_ok=True)
    # The shell joins the group, and what it leaves behind is in the group from its first moment:
    # whoever finds the group empty afterwards knows that the daemon has ended.
    with (LOGS / f"{name}.log").open("ab") as log:
        subprocess.run(
            ["sh", "-c", f'echo $$ > {procs} && setsid --fork "$@"', "sh", *words],  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=os.environ | (environment or {}),
            check=True,
        )


def ended(name: str) -> bool:
    """Whether a daemon that was started is gone."""
    return not cgroups.daemon(name)


def stop(name: str, seconds: float = 15, how: signal.Signals = signal.SIGTERM) -> None:
    """End a daemon: asked first, killed when it does not go in time."""
    for pid in cgroups.daemon(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)
    with contextlib.suppress(ClusterError):
        eventually(f"{name} has ended", lambda: not cgroups.daemon(name), seconds)
    cgroups.kill(cgroups.system(name))


def log_of(name: str) -> str:
    """The end of a daemon's log, for an error."""
    file = LOGS / f"{name}.log"
    if not file.exists():
        return ""
    return f"  {file}:\n{last_lines(file.read_text(encoding='utf-8', errors='replace'))}"


def node_mounts(place: Place) -> list[str]:
    """The commands that give a node what two nodes may not share."""
    var, images = place.var, place.images
    commands: list[list[object]] = [["mount", "--make-rprivate", "/"]]
    commands += [["mount", "--bind", images, var / "lib/containerd"]]
    if CACHE.is_relative_to("/var"):  # stays visible
        seen = var / CACHE.relative_to("/var")
        commands += [["mkdir", "-p", seen], ["mount", "--bind", CACHE, seen]]
    commands += [
        ["mount", "--rbind", var, "/var"],
        ["mount", "-t", "tmpfs", "-o", "mode=755", "node-run", "/run"],
        ["mount", "-t", "bpf", "bpf", "/sys/fs/bpf"],
        # Containers get copies of the mounts that follow, as on a machine that booted.
        ["mount", "--make-rshared", "/"],
        # No resolver: a name that nobody knows is refused at once, not after a minute.
        ["mount", "--bind", "/dev/null", "/etc/resolv.conf"],
        ["mkdir", "-p", "/run/netns", "/run/lock", "/run/cni/bin", "/run/cni/net.d", "/run/bin"],
    ]
    return [shlex.join(map(str, command)) for command in commands]


def hold(place: Place) -> None:
    """Make a place, and leave a process in it that sleeps."""
    if place.is_up:
        return
    flags = ["--net"]
    script = "exec sleep infinity"
    if place.mounts:
        flags.append("--mount")
        place.images.mkdir(parents=True, exist_ok=True)
        for name in ("lib/kubelet", "lib/containerd", "lib/cni", "log", "tmp", "volumes"):
            (place.var / name).mkdir(parents=True, exist_ok=True)
        link = place.var / "run"
        if not link.is_symlink():
            link.symlink_to("/run")
        script = "\n".join(["set -e", *node_mounts(place), script])
    start(f"{place.name}-holder", ["unshare", *flags, "sh", "-c", script])
    eventually(
        f"{place.name} is set up",
        lambda: not place.is_up or str(Path(f"/proc/{place.pid}/exe").readlink()).endswith("sleep"),
        10,
    )
    if not place.is_up:
        raise ClusterError(f"{place.name} could not be made\n{log_of(f'{place.name}-holder')}")


def connect(place: Place) -> None:
    """Lay a cable from a place to the switch, and give the place its address."""
    if place.name in SWITCH.run("ip", "-o", "link", "show", "master", "br0"):
        return
    # A pair of virtual cards stands for cable and card: not every kernel has `dummy`.
    SWITCH.run(
        *("ip", "link", "add", place.name, "type", "veth"),
        *("peer", "name", "eth0", "netns", str(place.pid)),
    )
    SWITCH.run("ip", "link", "set", place.name, "master", "br0", "up")
    place.run("ip", "link", "set", "lo", "up")
    place.run("ip", "address", "add", f"{place.address}/24", "dev", "eth0")
    place.run("ip", "link", "set", "eth0", "up")
    # It leads to the switch and no further.
    place.run("ip", "route", "add", "default", "dev", "eth0")


def serve_outside() -> None:
    """Start what the host outside answers with."""
    if not cgroups.daemon("outside-server"):
        start("outside-server", [sys.executable, "-B", HERE / "outside.py"], OUTSIDE)


def make_network() -> None:
    """Make all places and connect them."""
    for place in PLACES:
        hold(place)
    links = SWITCH.run("ip", "-o", "link")
    if "br0" not in links:
        SWITCH.run("ip", "link", "add", "br0", "type", "bridge")
        SWITCH.run("ip", "link", "set", "br0", "up")
    for place in PLACES[1:]:
        connect(place)
    for place in NODE_PLACES.values():
        place.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        # The outside knows nodes, not pods.
        rule = ["POSTROUTING", "-s", POD_RANGE, "-d", f"{OUTSIDE_ADDRESS}/24", "-j", "MASQUERADE"]
        with contextlib.suppress(ClusterError):
            place.run("iptables", "-w", "-t", "nat", "-C", *rule)
            continue
        place.run("iptables", "-w", "-t", "nat", "-A", *rule)
    serve_outside()


def let_go_of_sockets(pids: Iterable[int]) -> None:
    """Let connections of processes that are about to be killed end within a second.

    A socket keeps its network namespace, and with it what Cilium attached there. One whose peer
    is gone as well would go on sending its last segment for two minutes.
    """
    seen = {str(Path("/proc/self/ns/net").readlink())}
    for pid in pids:
        with contextlib.suppress(OSError, ClusterError):
            namespace = str(Path(f"/proc/{pid}/ns/net").readlink())
            if namespace not in seen:
                seen.add(namespace)
                settings = ["net.ipv4.tcp_orphan_retries=1", "net.ipv4.tcp_fin_timeout=1"]
                run(["nsenter", f"--target={pid}", "--net", "sysctl", "-qw", *settings])
