"""The network policies allow exactly the edges of the table, judged pod by pod."""

from __future__ import annotations

import ipaddress
import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import (
    ALL_VALUES,
    NAMESPACE,
    Manifest,
    Pod,
    identify,
    manifests,
    matches,
    of_kind,
    pods,
)

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

PUBLIC, PRIVATE = "93.184.216.34", "10.11.12.13"


@dataclass(frozen=True)
class Party:
    """Somebody who calls or is called: a pod somewhere, or an address."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()
    namespace: str = NAMESPACE
    namespace_labels: tuple[tuple[str, str], ...] = ()
    address: str = ""

    def in_peer(self, peer: dict[str, Any]) -> bool:
        """Whether a NetworkPolicyPeer takes it, by the rules of the Kubernetes API reference."""
        if "ipBlock" in peer:
            if not self.address:
                return False
            address, block = ipaddress.ip_address(self.address), peer["ipBlock"]
            excluded = [ipaddress.ip_network(one) for one in block.get("except", [])]
            inside = address in ipaddress.ip_network(block["cidr"])
            return inside and not any(address in one for one in excluded)
        if self.address:
            return False
        if "namespaceSelector" in peer:
            if not selects(peer["namespaceSelector"], dict(self.namespace_labels)):
                return False
        elif self.namespace != NAMESPACE:
            return False
        return selects(peer.get("podSelector", {}), dict(self.labels))


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Label selection with matchLabels and the operator In."""
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return matches(selector.get("matchLabels", {}), labels)


def namespace(name: str, **labels: str) -> tuple[tuple[str, str], ...]:
    """Labels of a namespace, its name among them."""
    return (("kubernetes.io/metadata.name", name), *labels.items())


OUTSIDERS = [
    Party(
        "application",
        namespace="app",
        namespace_labels=(*namespace("app"), ("synapse.io/access", "true")),
    ),
    Party("stranger", namespace="other", namespace_labels=namespace("other")),
    Party("prometheus", namespace="monitoring", namespace_labels=namespace("monitoring")),
    Party("ingress", namespace="ingress-nginx", namespace_labels=namespace("ingress-nginx")),
    Party("traefik", namespace="kube-system", namespace_labels=namespace("kube-system")),
    Party(
        "dns",
        labels=(("k8s-app", "kube-dns"),),
        namespace="kube-system",
        namespace_labels=namespace("kube-system"),
    ),
    Party("public-host", address=PUBLIC),
    Party("private-host", address=PRIVATE),
]


def insiders(objects: list[Manifest]) -> list[Party]:
    own = namespace(NAMESPACE)
    return [
        Party(pod.name, tuple(pod.labels.items()), NAMESPACE, own) for pod in unique_pods(objects)
    ]


def unique_pods(objects: list[Manifest]) -> list[Pod]:
    return list({pod.name: pod for pod in pods(objects)}.values())


def allowed(
    objects: list[Manifest], source: Party, target: Party, port: int, protocol: str = "TCP"
) -> bool:
    """Whether every policy that concerns either end lets the connection pass."""
    return _side(objects, source, target, "Egress", port, protocol) and _side(
        objects, target, source, "Ingress", port, protocol
    )


def _side(
    objects: list[Manifest], mine: Party, other: Party, direction: str, port: int, protocol: str
) -> bool:
    if mine.namespace != NAMESPACE or mine.address:
        return True  # not ours to restrict
    field, ends = ("egress", "to") if direction == "Egress" else ("ingress", "from")
    isolated = False
    for policy in of_kind(objects, "NetworkPolicy"):
        spec = policy["spec"]
        if direction not in spec["policyTypes"]:
            continue
        if not selects(spec["podSelector"], dict(mine.labels)):
            continue
        isolated = True
        for rule in spec.get(field) or []:
            ports = {(one["port"], one["protocol"]) for one in rule["ports"]}
            peers = rule[ends]
            if (port, protocol) in ports and any(other.in_peer(peer) for peer in peers):
                return True
    return not isolated


def table_of(objects: list[Manifest]) -> list[dict[str, Any]]:
    (deny,) = [
        p for p in of_kind(objects, "NetworkPolicy") if p["metadata"]["name"] == "default-deny"
    ]
    table: list[dict[str, Any]] = json.loads(deny["metadata"]["annotations"]["synapse.io/edges"])
    return table


def ports_of(objects: list[Manifest]) -> set[int]:
    declared = {port for pod in unique_pods(objects) for port in pod.ports().values()}
    return declared | {22, 53, 443, 6443, 8443} | {int(edge["port"]) for edge in table_of(objects)}


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_pods_reach_each_other_exactly_as_the_table_says(values: Path) -> None:
    objects = manifests(values)
    edges = {(edge["from"], edge["to"], int(edge["port"])) for edge in table_of(objects)}
    parties = insiders(objects)
    ports = sorted(ports_of(objects))
    wrong = []
    for source, target in itertools.product(parties, parties):
        for port in ports:
            wanted = (source.name, target.name, port) in edges
            if allowed(objects, source, target, port) != wanted:
                wrong.append((source.name, target.name, port, wanted))
    assert wrong == []


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_outsiders_reach_pods_exactly_as_the_table_says(values: Path) -> None:
    objects = manifests(values)
    edges = {(edge["from"], edge["to"], int(edge["port"])) for edge in table_of(objects)}
    forge = values.stem == "forge"
    peer_of = {
        "application": "@applications",
        "prometheus": "@prometheus",
        "ingress": None if forge else "@ingress",
        "traefik": "@ingress" if forge else None,
        "dns": "@ingress" if forge else None,  # K3s runs its DNS in the namespace of Traefik
    }
    wrong = []
    for source, target in itertools.product(OUTSIDERS, insiders(objects)):
        for port in sorted(ports_of(objects)):
            wanted = (peer_of.get(source.name), target.name, port) in edges
            if allowed(objects, source, target, port) != wanted:
                wrong.append((source.name, target.name, port, wanted))
    assert wrong == []


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_pods_reach_the_outside_exactly_as_the_table_says(values: Path) -> None:
    objects = manifests(values)
    edges = {(edge["from"], edge["to"], int(edge["port"])) for edge in table_of(objects)}
    cilium = bool(of_kind(objects, "CiliumNetworkPolicy"))
    by_name = {name: party for party in OUTSIDERS for name in [party.name]}
    for source in insiders(objects):
        for port in sorted(ports_of(objects)):
            downloads = (source.name, "@downloads", port) in edges and not cilium
            api_server = (source.name, "@api-server", port) in edges and not cilium
            reached = allowed(objects, source, by_name["public-host"], port)
            assert reached == (downloads or api_server), (source.name, "public", port)
            reached = allowed(objects, source, by_name["private-host"], port)
            assert reached == api_server, (source.name, "private", port)
            assert not allowed(objects, source, by_name["stranger"], port)
        for protocol in ("UDP", "TCP"):
            assert allowed(objects, source, by_name["dns"], 53, protocol), source.name


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_port_of_a_pod_has_an_edge(values: Path) -> None:
    objects = manifests(values)
    reached = {(edge["to"], int(edge["port"])) for edge in table_of(objects)}
    gateway = any(pod.name == "synapse-gateway" for pod in pods(objects))
    for pod in unique_pods(objects):
        for name, port in pod.ports().items():
            if name == "progress" and not gateway:
                continue  # nobody asks yet, and the pod must stay the same when somebody does
            assert (pod.name, port) in reached, f"{pod.owner}: nobody may call port {name} ({port})"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_edge_has_a_reason_and_ends_that_exist(values: Path) -> None:
    objects = manifests(values)
    names = {pod.name for pod in pods(objects)}
    for edge in table_of(objects):
        assert len(edge["why"]) > 5, edge
        for end in (edge["from"], edge["to"]):
            assert end in names or end == "*" or end.startswith("@"), edge


def test_cilium_opens_model_hosts_by_name_and_the_api_server_as_an_entity() -> None:
    path = next(path for path in ALL_VALUES if path.stem == "cilium-values")
    found = {
        one["metadata"]["name"]: one for one in of_kind(manifests(path), "CiliumNetworkPolicy")
    }
    names = found["ollama-downloads"]["spec"]["egress"][1]["toFQDNs"]
    assert {"matchName": "registry.ollama.ai"} in names
    assert found["litellm-roll-api-server"]["spec"]["egress"] == [
        {"toEntities": ["kube-apiserver"]}
    ]


def test_phase_5_closes_the_engines_to_applications() -> None:
    by_phase = {path.stem: path for path in ALL_VALUES}
    application = OUTSIDERS[0]

    def engines_open(phase: str) -> bool:
        objects = manifests(by_phase[phase])
        return any(
            allowed(objects, application, party, port)
            for party in insiders(objects)
            for port in (11434, 8000)
            if party.name in ("ollama", "vllm-inference")
        )

    opened = {phase: engines_open(phase) for phase in sorted(by_phase) if phase.startswith("phase")}
    assert opened == {
        "phase1": True,
        "phase2": True,
        "phase3": True,
        "phase4": True,
        "phase5": False,
        "phase6": False,
    }
