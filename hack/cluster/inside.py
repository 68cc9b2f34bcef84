"""Running a program of this machine in the network of the cluster, as one who lives there."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from hack.cluster import daemons, pods, release
from hack.cluster.places import NODE_PLACES, OUTSIDE
from hack.cluster.settings import (
    CLIENTS_NAMESPACE,
    DNS_ADDRESS,
    FOREIGN_NAMESPACE,
    KUBECONFIG,
    NAMESPACE,
    RUN,
    ClusterError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT = CLIENTS_NAMESPACE
RESOLVER = f"""\
nameserver {DNS_ADDRESS}
search {NAMESPACE}.svc.cluster.local svc.cluster.local cluster.local
options ndots:5 timeout:2
"""


def write_tools() -> None:
    """Write what a command inside finds: the cluster's resolver, kubectl and helm."""
    (RUN / "resolv.conf").write_text(RESOLVER, encoding="utf-8")
    folder = RUN / "bin"
    folder.mkdir(exist_ok=True)
    for name, link in (("kubectl", "kubectl"), ("helm4", "helm")):
        if not (folder / link).is_symlink():
            (folder / link).symlink_to(daemons.tool(name))


def holder(where: str) -> int:
    """The process whose network a command is to have.

    Args:
        where: A node, `outside`, or `clients` or `foreign`, where `@node2` may follow.

    Raises:
        ClusterError: When there is no such place, or it is not up.
    """
    places = {place.name: place for place in (*NODE_PLACES.values(), OUTSIDE)}
    if where in places:
        return places[where].pid
    namespace, _, node = where.partition("@")
    if namespace in (CLIENTS_NAMESPACE, FOREIGN_NAMESPACE) and (node or "node1") in NODE_PLACES:
        return pods.tools_pod(namespace, NODE_PLACES[node or "node1"]).pid
    raise ClusterError(
        f"there is nobody called {where}: {CLIENTS_NAMESPACE}, {FOREIGN_NAMESPACE} (at node1, or "
        f"{CLIENTS_NAMESPACE}@node2), {', '.join(places)}"
    )


def command(where: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The command that runs `words` in the network of `where`, and its environment."""
    script = f'mount --bind {shlex.quote(str(RUN / "resolv.conf"))} /etc/resolv.conf && exec "$@"'
    line = ["nsenter", f"--target={holder(where)}", "--net", "--"]
    line += ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words]
    environment = {
        name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
    }
    environment["KUBECONFIG"] = str(KUBECONFIG)
    environment["PHASE_VALUES"] = f"{release.OVERLAY},{release.TAGS}"
    environment["PATH"] = f"{RUN / 'bin'}:{environment['PATH']}"
    return line, environment
