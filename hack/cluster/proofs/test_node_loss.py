"""A node whose cable is pulled, and the API server gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hack.cluster import daemons, faults
from hack.cluster.places import NODE_PLACES
from hack.cluster.proofs.conftest import Namespace, http, pod_spec, web
from hack.cluster.shell import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def healed() -> Iterator[None]:
    """Whatever a test broke is mended after it."""
    yield
    faults.heal()
    daemons.wait_for_nodes(120)


def deployment() -> dict[str, Any]:
    """Two pods that prefer node2."""
    preference = {
        "weight": 100,
        "preference": {
            "matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node2"]}
            ]
        },
    }
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preference]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "app"}},
            "template": {
                "metadata": {"labels": {"app": "app"}},
                "spec": pod_spec(["sleep", "infinity"], affinity=affinity),
            },
        },
    }


def ready_on(namespace: Namespace, node: str) -> int:
    """How many pods are ready on a node."""
    return sum(
        pod["spec"].get("nodeName") == node
        and any(
            condition["type"] == "Ready" and condition["status"] == "True"
            for condition in pod["status"].get("conditions", [])
        )
        for pod in namespace.get("pods", "-l", "app=app")["items"]
    )


def test_pods_of_a_lost_node_run_elsewhere_and_the_node_comes_back(namespace: Namespace) -> None:
    namespace.apply(deployment())
    namespace.kubectl("rollout", "status", "deployment/app", "--timeout=120s")
    assert ready_on(namespace, "node2") == 2
    node2 = NODE_PLACES["node2"]
    faults.cut("node2")
    eventually("node2 is NotReady", lambda: not daemons.node_is_ready(node2), 60)
    eventually("both pods run on node1", lambda: ready_on(namespace, "node1") == 2, 120)
    faults.mend("node2")
    eventually("node2 is Ready again", lambda: daemons.node_is_ready(node2), 60)


def test_services_go_on_without_the_api_server(namespace: Namespace) -> None:
    namespace.apply(*web("web", "node2"))
    namespace.wait("condition=Ready", "pod", "--all")
    url = f"http://web.{namespace.name}:8080"
    eventually("it answers", lambda: http("clients", url) == "web", 20)
    faults.stop_api()
    assert not daemons.api_is_ready()
    assert http("clients@node1", url) == "web"
    assert http("clients@node2", url) == "web"
    faults.start_api()
    assert daemons.api_is_ready()
