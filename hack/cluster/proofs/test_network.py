"""Services, DNS and policies within a node and across nodes; no way out."""

from __future__ import annotations

import pytest
from hack.cluster.proofs.conftest import Namespace, http, web
from hack.cluster.settings import NODES, OUTSIDE_ADDRESS, ClusterError
from hack.cluster.shell import eventually

OUTSIDE = "outside.default.svc.cluster.local"
CALLERS = ("clients@node1", "clients@node2", "foreign@node1", "foreign@node2")


def policy(name: str) -> dict[str, object]:
    """A policy that admits pods of the namespace `clients` alone to a pod."""
    peer = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "clients"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {"app": name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [peer], "ports": [{"port": 8080}]}],
        },
    }


def test_a_policy_admits_and_drops_within_and_across_nodes(namespace: Namespace) -> None:
    for node in NODES:
        namespace.apply(*web(f"web-{node}", node))
    namespace.wait("condition=Ready", "pod", "--all")
    urls = {node: f"http://web-{node}.{namespace.name}:8080" for node in NODES}
    for caller in CALLERS:
        for node in NODES:
            assert http(caller, urls[node]) == f"web-{node}", (caller, node)
    namespace.apply(*(policy(f"web-{node}") for node in NODES))
    for caller in CALLERS:
        for node in NODES:
            wanted = f"web-{node}" if caller.startswith("clients") else "timed out"
            eventually(
                f"{caller} to {node}: {wanted}",
                lambda caller=caller, node=node, wanted=wanted: (  # type: ignore[misc]
                    wanted in http(caller, urls[node])
                ),
                20,
            )


def test_a_pod_reaches_the_host_outside_until_a_policy_keeps_it(namespace: Namespace) -> None:
    namespace.apply(*web("caller", "node2"))
    namespace.wait("condition=Ready", "pod", "--all")
    get = ["curl", "-sS", "-m", "3", f"http://{OUTSIDE_ADDRESS}"]
    assert '"host": "outside"' in namespace.execute("caller", *get)
    deny = {"podSelector": {}, "policyTypes": ["Egress"]}
    meta = {"name": "deny"}
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    namespace.apply({**kind, "metadata": meta, "spec": deny})

    def dropped() -> bool:
        try:
            namespace.execute("caller", *get)
        except ClusterError as error:
            return "timed out" in str(error)
        return False

    eventually("the policy drops it", dropped, 20)
    namespace.kubectl("delete", "networkpolicy", "deny")
    eventually("it is let through again", lambda: not dropped(), 20)


def test_a_policy_admits_a_host_by_its_name(namespace: Namespace) -> None:
    namespace.apply(*web("caller", "node2"))
    dns = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s:k8s-app": "kube-dns"}
    ask = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
    egress = [
        {"toEndpoints": [{"matchLabels": dns}], "toPorts": [ask]},
        {"toFQDNs": [{"matchName": OUTSIDE}], "toPorts": [{"ports": [{"port": "80"}]}]},
    ]
    kind = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy"}
    spec = {"endpointSelector": {}, "egress": egress}
    namespace.apply({**kind, "metadata": {"name": "by-name"}, "spec": spec})
    namespace.wait("condition=Ready", "pod", "--all")

    def body(url: str) -> str:
        try:
            return namespace.execute("caller", "curl", "-sS", "-m", "3", url)
        except ClusterError as error:
            return str(error)

    eventually("the host is reached", lambda: '"outside"' in body(f"http://{OUTSIDE}"), 20)
    assert "timed out" in body(f"http://{OUTSIDE}:8080")
    assert "timed out" in body("http://prometheus.monitoring:9090")


@pytest.mark.parametrize("where", ["node1", "node2", "clients", "outside"])
@pytest.mark.parametrize("address", ["1.1.1.1", "192.0.2.1"])
def test_nothing_leaves_the_cluster(where: str, address: str) -> None:
    answer = http(where, f"http://{address}/")
    assert "timed out" in answer or "Failed to connect" in answer or "No route" in answer
