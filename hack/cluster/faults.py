"""Faults of a cluster, each with what mends it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import cgroups, daemons, places, pods
from hack.cluster.places import NODE_PLACES, SWITCH
from hack.cluster.settings import NAMESPACE, ClusterError
from hack.cluster.shell import run, succeeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hack.cluster.pods import PodName

CHAIN = "SYNAPSE-FAULT"


def place(name: str) -> places.Place:
    """The node of a name.

    Raises:
        ClusterError: When there is none.
    """
    if name not in NODE_PLACES:
        raise ClusterError(f"there is no node {name}; nodes are {', '.join(NODE_PLACES)}")
    return NODE_PLACES[name]


def cut(node: str) -> None:
    """Pull a node's network cable: its pods go on running, and nobody reaches them."""
    SWITCH.run("ip", "link", "set", place(node).name, "down")


def mend(node: str) -> None:
    """Put a node's network cable back."""
    SWITCH.run("ip", "link", "set", place(node).name, "up")


def stop_api() -> None:
    """End the API server at once, as a crash would."""
    places.stop("kube-apiserver", how=signal.SIGKILL)


def start_api() -> None:
    """Start the API server, and return when it is ready."""
    if not cgroups.daemon("kube-apiserver"):
        daemons.start_apiserver()
    daemons.wait_for_api()


def kill(pod: PodName, container: str = "", number: int = signal.SIGKILL) -> None:
    """Send a signal to the first process of a pod's container."""
    os.kill(pods.main_container(pod, container).pid, number)


def processes_of(pod: PodName) -> list[int]:
    """Every process of a pod's containers."""
    found: list[int] = []
    for container in pods.running(*pod):
        if container.name:
            found += group_of(container.pid)
    return found


def group_of(pid: int) -> list[int]:
    """Processes that share a process's control group."""
    tracking = cgroups.tracking()
    with contextlib.suppress(OSError):  # it has ended meanwhile
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if cgroups.unified() or tracking.name in controllers.split(","):
                procs = tracking / path.lstrip("/") / "cgroup.procs"
                return [int(word) for word in procs.read_text().split()]
    return []


def signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    """Send a signal to processes, of which some may be gone."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def freeze(pod: PodName) -> None:
    """Stop a pod's processes where they are: connections are accepted and nothing answers."""
    signal_all(processes_of(pod), signal.SIGSTOP)


def thaw(pod: PodName) -> None:
    """Let a frozen pod go on."""
    signal_all(processes_of(pod), signal.SIGCONT)


def in_pod(pod: PodName, *command: str) -> str:
    """Output of a command that runs in a pod's network."""
    return run(pods.sandbox(pod).inside(*command))


def clean(pod: PodName) -> None:
    """Take back `drop`, `lose` and `slow`."""
    clean_network(pods.sandbox(pod))


def clean_network(sandbox: pods.Container) -> None:
    """Take back what was done to the network of a pod, if it is still there."""
    for hook in ("INPUT", "OUTPUT"):
        while succeeds(sandbox.inside("iptables", "-w", "-D", hook, "-j", CHAIN)):
            pass
    succeeds(sandbox.inside("iptables", "-w", "-F", CHAIN))
    succeeds(sandbox.inside("iptables", "-w", "-X", CHAIN))
    succeeds(sandbox.inside("tc", "qdisc", "delete", "dev", "eth0", "root"))


def filter_packets(pod: PodName, rule: Sequence[str], port: int, *, spare_probes: bool) -> None:
    """Put a rule into a pod's network, for packets in both directions.

    Args:
        pod: Which.
        rule: iptables' words from the match on.
        port: TCP port of the pod that the rule is for; 0 is for everything.
        spare_probes: Leave the node's own packets alone: the kubelet goes on finding the pod
            ready, so that its Service goes on sending requests to it.
    """
    clean(pod)
    sandbox = pods.sandbox(pod)
    lines = [["-N", CHAIN]]
    if spare_probes:
        addresses = sandbox.node.run("hostname", "-I").split()
        for address in (word for word in addresses if "." in word):
            lines += [["-A", CHAIN, way, address, "-j", "RETURN"] for way in ("-s", "-d")]
    if port:
        for side in ("--dport", "--sport"):
            lines.append(["-A", CHAIN, "-p", "tcp", side, str(port), *rule])
    else:
        lines.append(["-A", CHAIN, *rule])
    lines += [["-I", hook, "-j", CHAIN] for hook in ("INPUT", "OUTPUT")]
    for line in lines:
        run(sandbox.inside("iptables", "-w", *line))


def drop(pod: PodName, port: int = 0, *, spare_probes: bool = False) -> None:
    """Drop every packet of a pod, or those of one port."""
    filter_packets(pod, ["-j", "DROP"], port, spare_probes=spare_probes)


def lose(pod: PodName, percent: float, port: int = 0, *, spare_probes: bool = False) -> None:
    """Lose a share of a pod's packets."""
    share = ["-m", "statistic", "--mode", "random", "--probability", f"{percent / 100:.4f}"]
    rule = [*share, "-j", "DROP"]
    filter_packets(pod, rule, port, spare_probes=spare_probes)


def slow(pod: PodName, rate: str) -> None:
    """Let a pod send no faster than a rate, such as 64kbit."""
    shape = ["tbf", "rate", rate, "burst", "4kb", "latency", "10s"]
    in_pod(pod, "tc", "qdisc", "replace", "dev", "eth0", "root", *shape)


def heal() -> None:
    """Mend every cable, start the API server, and clean and thaw every pod of the release."""
    for node in NODE_PLACES:
        mend(node)
    start_api()
    for container in pods.running(NAMESPACE):
        if container.name:
            signal_all(group_of(container.pid), signal.SIGCONT)
        else:
            clean_network(container)
