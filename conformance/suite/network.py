"""Who reaches whom on the live cluster, and who may."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from conformance.suite.lab import LISTENER_PORTS
from conformance.suite.lines import NotSupported
from conformance.suite.timeouts import POLICY, eventually

if TYPE_CHECKING:
    from conformance.suite.cluster import Object
    from conformance.suite.release import Edge
    from conformance.suite.session import Session

APPLICATION = "an application"
STRANGER = "a stranger"
PROMETHEUS = "Prometheus"
DNS = "cluster DNS:53"
API_SERVER = "the API server:443"
PEERS = {"@applications": APPLICATION, "@prometheus": PROMETHEUS}
"""Peers of the table that there is a pod of."""
AT_ONCE = 4
"""Sources that are looked from at the same time."""


def _edges(deployment: Session) -> list[Edge]:
    return deployment.release.edges


def _running(deployment: Session) -> dict[str, Object]:
    """A ready pod of each name that the release has."""
    names = {end for edge in _edges(deployment) for end in (edge.source, edge.target)}
    found = {}
    for name in sorted(names):
        if not name.startswith(("@", "*")):
            pods = deployment.cluster.ready(name)
            if pods:
                found[name] = pods[0]
    return found


def targets(deployment: Session) -> list[str]:
    """Return the ports of running pods that the table leads to, as NAME:PORT."""
    running = _running(deployment)
    return sorted({f"{e.target}:{e.port}" for e in _edges(deployment) if e.target in running})


def sources(deployment: Session) -> list[str]:
    """Return the names of running pods that the table's policies select."""
    return sorted(_running(deployment))


class Matrix:
    """Every pair of source and target, tried once.

    Args:
        deployment: Where.
    """

    def __init__(self, deployment: Session) -> None:
        self._deployment = deployment
        if not deployment.release.edges:
            raise NotSupported("the release has no table of edges (NetworkPolicy default-deny)")
        self._pods = _running(deployment)
        self.to_downloads = {e.source for e in deployment.release.edges if e.target == "@downloads"}

    # -- what is

    @functools.cached_property
    def _outside(self) -> list[str]:
        address = self._deployment.lab.listener["status"]["podIP"]
        return [f"{address}:{port}" for port in LISTENER_PORTS]

    @functools.cached_property
    def _addresses(self) -> dict[str, str]:
        """Addresses to try, each with the target's name."""
        found = {}
        for target in targets(self._deployment):
            name, _, port = target.rpartition(":")
            found[f"{self._pods[name]['status']['podIP']}:{port}"] = target
        cluster = self._deployment.cluster
        dns = [
            pod
            for pod in cluster.all("Pod", "kube-system", "k8s-app=kube-dns")
            if pod["status"].get("podIP")
        ]
        if dns:
            found[f"{dns[0]['status']['podIP']}:53"] = DNS
        api = cluster.get("Service", "kubernetes", "default")
        found[f"{api['spec']['clusterIP']}:443"] = API_SERVER
        return found

    @functools.cached_property
    def _from(self) -> dict[str, Object]:
        """A pod for each source."""
        lab = self._deployment.lab
        found = {**self._pods, APPLICATION: lab.caller, STRANGER: lab.stranger}
        values = self._deployment.release.values
        namespace = values.get("monitoring", {}).get("namespace", "monitoring")
        selector = "app.kubernetes.io/name=prometheus"
        prometheus = self._deployment.cluster.all("Pod", namespace, selector)
        if prometheus:
            found[PROMETHEUS] = prometheus[0]
        return found

    @functools.cached_property
    def _seen(self) -> dict[str, dict[str, str]]:
        addresses = [*self._addresses, *self._outside]
        for pod in self._from.values():
            self._deployment.lab.agent(pod["spec"]["nodeName"])

        def look(pod: Object) -> dict[str, str]:
            found: dict[str, str] = self._deployment.lab.in_pod(pod, "reach", *addresses)
            return found

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(self._from, pool.map(look, self._from.values()), strict=True))

    @property
    def everybody(self) -> set[str]:
        """The sources that were looked from."""
        return set(self._from)

    def _address(self, target: str) -> str:
        return next(address for address, name in self._addresses.items() if name == target)

    def reached_by(self, target: str) -> set[str]:
        """Return the sources that reach a target."""
        address = self._address(target)
        own = target.rpartition(":")[0]  # a pod always reaches itself
        return {who for who, seen in self._seen.items() if seen[address] == "open" and who != own}

    def refusals(self, target: str) -> set[str]:
        """Return how the others were kept off."""
        address = self._address(target)
        return {seen[address] for seen in self._seen.values() if seen[address] != "open"}

    def reached_from(self, source: str) -> set[str]:
        """Return the targets that a source reaches, the host outside among them."""
        own = f"{source}:"
        seen = self._seen[source]
        found = {
            name
            for address, name in self._addresses.items()
            if seen[address] == "open" and not name.startswith(own)
        }
        if any(seen[address] == "open" for address in self._outside):
            found.add("a host outside")
        return found

    def outside(self, source: str) -> str:
        """Return how the host of another namespace was reached, or not."""
        return ", ".join(sorted({self._seen[source][address] for address in self._outside}))

    # -- what may be

    def may_call(self, target: str) -> set[str]:
        """Return the sources that the table lets call a target."""
        name, _, port = target.rpartition(":")
        found = set()
        for edge in self._deployment.release.edges:
            if edge.target == name and edge.port == int(port):
                found.add(PEERS.get(edge.source, edge.source))
        return (found & self.everybody) - {name}

    def may_be_called(self, source: str) -> set[str]:
        """Return the targets that the table lets a source call."""
        found = {DNS} & set(self._addresses.values())
        for edge in self._deployment.release.edges:
            if edge.source != source:
                continue
            if edge.target == "@api-server":
                found.add(API_SERVER)
            elif edge.target in self._pods and edge.target != source:
                found.add(f"{edge.target}:{edge.port}")
        return found

    # -- what would be

    def without_policies(self, name: str) -> tuple[str, str, str]:
        """Look out of a pod before its policies are removed, without them, and with them again."""
        cluster, pod = self._deployment.cluster, self._pods[name]
        chosen = [cluster.get("NetworkPolicy", policy) for policy in ("default-deny", name)]

        def look() -> str:
            seen: dict[str, str] = self._deployment.lab.in_pod(pod, "reach", self._outside[0])
            return seen[self._outside[0]]

        before = look()
        try:
            for policy in chosen:
                cluster.delete("NetworkPolicy", policy["metadata"]["name"])
            eventually("the pod gets out", lambda: look() == "open", POLICY)
            without = look()
        finally:
            for policy in chosen:
                cluster.create({**policy, "kind": "NetworkPolicy"})
        eventually("the policies are in force again", lambda: look() != "open", POLICY)
        return before, without, look()
