"""Processes of pods, found through containerd: the API server may be what a test has stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple, Self

from hack.cluster.images import ctr
from hack.cluster.places import NODE_PLACES, Place
from hack.cluster.settings import NAMESPACE, ClusterError

POD_LABEL = "io.kubernetes.pod.name"
NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
CONTAINER_LABEL = "io.kubernetes.container.name"


class PodName(NamedTuple):
    """A pod's namespace and name."""

    namespace: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read NAMESPACE/POD, or POD in the release's namespace."""
        namespace, _, name = text.rpartition("/")
        return cls(namespace or NAMESPACE, name)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Container:
    """A running container, or the sandbox that holds a pod's network.

    Attributes:
        node: Where it runs.
        pod: Whose it is.
        name: Its name in the pod; empty for the sandbox.
        pid: Its first process.
    """

    node: Place
    pod: PodName
    name: str
    pid: int

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command`, a program of this machine, in the pod's network."""
        return ["nsenter", f"--target={self.pid}", "--net", "--", *command]


def running(namespace: str, pod: str = "") -> list[Container]:
    """Running containers of a namespace, or of its one pod whose name is given."""
    wanted = f'labels."{NAMESPACE_LABEL}"=={namespace}'
    if pod:
        wanted += f',labels."{POD_LABEL}"=={pod}'
    found = []
    for node in NODE_PLACES.values():
        pids = {}
        for line in ctr(node, "tasks", "list").splitlines()[1:]:
            identity, pid, status = line.split()
            if status == "RUNNING":
                pids[identity] = int(pid)
        for identity in ctr(node, "containers", "list", "--quiet", wanted).split():
            if identity in pids:
                labels = json.loads(ctr(node, "containers", "info", identity))["Labels"]
                name = PodName(namespace, labels[POD_LABEL])
                container = labels.get(CONTAINER_LABEL, "")
                found.append(Container(node, name, container, pids[identity]))
    return found


def sandbox(pod: PodName) -> Container:
    """The container that holds a pod's network.

    Raises:
        ClusterError: When no such pod runs.
    """
    for container in running(*pod):
        if not container.name:
            return container
    raise ClusterError(f"no pod {pod} runs; look: kubectl -n {pod.namespace} get pods")


def main_container(pod: PodName, name: str = "") -> Container:
    """A pod's container: the one that is named, or the first.

    Raises:
        ClusterError: When there is no such container.
    """
    there = [container for container in running(*pod) if container.name]
    for container in there:
        if name in ("", container.name):
            return container
    names = ", ".join(container.name for container in there) or "none"
    raise ClusterError(f"{pod} runs no container {name}; it runs {names}")


def tools_pod(namespace: str, node: Place) -> Container:
    """The pod of a node that commands are run as, in `clients` or `foreign`.

    Raises:
        ClusterError: When it does not run.
    """
    for container in running(namespace):
        if (
            container.node == node
            and not container.name
            and container.pod.name.startswith("tools-")
        ):
            return container
    raise ClusterError(f"{node.name} runs no pod of {namespace}; run: make cluster")
