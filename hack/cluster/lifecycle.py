"""Bringing the cluster up and down."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster import (
    addons,
    cgroups,
    daemons,
    images,
    inside,
    leftovers,
    machine,
    pki,
    places,
    programs,
    release,
)
from hack.cluster.progress import Step, say
from hack.cluster.settings import KUBECONFIG, LOGS, NAME, NAMESPACE, RUN, STATE, ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NODES = tuple(places.NODE_PLACES.values())
HELP = f"""
The cluster is up. It has a network of its own; commands run in it by hack/cluster/enter, as a pod
of the namespace clients would:

  hack/cluster/enter kubectl -n {NAMESPACE} get pods
  hack/cluster/enter curl -s http://synapse-gateway.{NAMESPACE}:8000/readyz
  hack/cluster/fault --help          what can be broken, and mended

kubeconfig {KUBECONFIG}
logs       {LOGS}
down       make cluster-down
"""


def build_programs(names: Sequence[str] = programs.CORE) -> None:
    """Build what is missing of the programs, and bring the tools that need no building."""
    for name in ("kubectl", "helm4", "etcd", "crds"):
        daemons.tool(name)
    for name in names:
        programs.build(programs.BY_NAME[name])


def prepare_images(references: Sequence[str]) -> None:
    """Bring images into the nodes, before the kubelets ask for them."""
    for node in NODES:
        daemons.start_containerd(node, kubernetes=False)
        images.tidy(node, references)
    images.load(references)
    for node in NODES:
        places.stop(f"{node.name}-containerd")
        daemons.start_containerd(node)


def bring_up(references: Sequence[str]) -> None:
    """Start the cluster from nothing."""
    bring_down()  # what an earlier start may have left
    leftovers.remember()
    RUN.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(LOGS, ignore_errors=True)
    for node in NODES:
        cgroups.make(f"{cgroups.SLICE}/{node.name}")
    with Step("network and certificates"):
        places.make_network()
        pki.make()
        inside.write_tools()
    with Step("control plane"), ThreadPoolExecutor() as pool:
        loaded = pool.submit(prepare_images, references)
        daemons.start_etcd()
        daemons.start_apiserver()
        daemons.wait_for_api()
        daemons.start_controllers()
        addons.apply_basics()
        loaded.result()
    with Step("nodes"):
        for node in NODES:
            daemons.start_node(node)
            daemons.start_cilium(node)
        # The agents compile for a while; meanwhile the API server is given what the nodes will run.
        addons.apply_monitoring()
        addons.wait_for_cilium_definitions()
        release.install(wait=False)
        for node in NODES:
            daemons.join_network(node)
        daemons.wait_for_nodes()
    leftovers.note()


def is_up() -> bool:
    """Whether a cluster runs and answers."""
    return KUBECONFIG.exists() and daemons.CONTROL.is_up and daemons.api_is_ready()


def build() -> list[str]:
    """Build what is missing of programs and images, and return the images' names."""
    machine.check()
    build_programs()
    return images.build(images.PARTS, images.CORE)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the cluster for the length of a block, so that no two commands change it at once."""
    STATE.mkdir(parents=True, exist_ok=True)
    with (STATE / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting: another command is at work on the cluster {NAME}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@alone()
def up() -> None:
    """Bring the cluster up with the chart in it; what is there already is kept."""
    references = build()
    if is_up():
        say(f"the cluster {NAME} is up")
        images.load(references)
        addons.apply_basics()
        addons.apply_monitoring()
        with Step("helm upgrade", release.waits_for):
            release.install()
    else:
        bring_up(references)
    with Step("DNS, metrics, volumes"):
        addons.wait_for_basics()
    with Step("the release's pods", release.waits_for):
        release.wait_until_ready()
    with Step("Prometheus and Alertmanager"):
        addons.wait_for_monitoring()
    leftovers.note()
    sys.stdout.write(HELP)


@alone()
def add(name: str) -> None:
    """Add Argo CD or Traefik to a cluster that is up, or the images of the phases."""
    if not is_up():
        raise ClusterError("the cluster is down; run: make cluster")
    if name == "phases":
        images.load(images.build([], images.PHASES))
        return
    build_programs((name,))
    images.load(images.build([images.PART[name]], []))
    apply, wait = {
        "argocd": (addons.apply_argo_cd, addons.wait_for_argo_cd),
        "traefik": (addons.apply_traefik, addons.wait_for_traefik),
    }[name]
    with Step(name):
        apply()
        wait()
    leftovers.note()


def bring_down() -> None:
    """End every process of the cluster, and remove what it leaves."""
    if pids := cgroups.processes():
        leftovers.note()
        places.let_go_of_sockets(pids)
    if stay := cgroups.kill():
        raise ClusterError(f"processes that cannot be killed: {' '.join(map(str, stay))}")
    cgroups.remove()
    leftovers.restore_settings()
    shutil.rmtree(RUN, ignore_errors=True)


@alone()
def down() -> None:
    """Take the cluster down, and say what is left of it."""
    with Step(f"taking the cluster {NAME} down"):
        bring_down()
    with Step("looking for what is left"):
        found = leftovers.left()
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise ClusterError(f"The cluster is down, and this is left of it:\n{lines}")
    say("nothing is left")
    if others := cgroups.others():
        say(f"BPF objects were not looked at: {', '.join(others)} is up as well")


def status() -> None:
    """Say whether the cluster is up, and what is not ready."""
    if not is_up():
        sys.stdout.write(f"the cluster {NAME} is down\n")
        return
    sys.stdout.write(daemons.kubectl("get", "nodes", "-o", "wide"))
    sys.stdout.write(daemons.kubectl("get", "pods", "-A", "-o", "wide"))


@alone()
def load(references: Sequence[str]) -> None:
    """Load images that buildah has into both nodes."""
    for name in references:
        if not images.is_built(name):
            raise ClusterError(f"buildah has no image {name}; buildah images lists what it has")
    images.load(references)


def collect(folder: str) -> None:
    """Write logs, events and descriptions of everything into a folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    if LOGS.is_dir():
        shutil.copytree(LOGS, target / "daemons", dirs_exist_ok=True)
    if not is_up():
        return

    def write(name: str, *arguments: str) -> None:
        try:
            text = daemons.kubectl(*arguments, timeout=60)
        except ClusterError as error:
            text = f"{error}\n"
        (target / name).write_text(text, encoding="utf-8")

    write("nodes.txt", "describe", "nodes")
    write("pods.txt", "get", "pods", "-A", "-o", "wide")
    write("events.txt", "get", "events", "-A", "--sort-by=.lastTimestamp")
    write("describe.txt", "-n", NAMESPACE, "describe", "all,networkpolicies,pvc,hpa")
    restarts = "R:.status.containerStatuses[*].restartCount"
    pods = daemons.kubectl(
        *("get", "pods", "-A", "--no-headers"),
        *("-o", f"custom-columns=N:.metadata.namespace,P:.metadata.name,{restarts}"),
    )
    (target / "pods").mkdir(exist_ok=True)
    for namespace, pod, counts in (line.split() for line in pods.splitlines()):
        arguments = ["-n", namespace, "logs", pod, "--all-containers", "--tail=2000"]
        write(f"pods/{namespace}_{pod}.log", *arguments)
        if set(counts) - set("0,<none>"):
            write(f"pods/{namespace}_{pod}.previous.log", *arguments, "--previous")
