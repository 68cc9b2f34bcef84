"""Volumes bind, outlive their pods, lie on one node, and go with their claims."""

from __future__ import annotations

from typing import Any

from hack.cluster.daemons import kubectl
from hack.cluster.places import NODE_PLACES
from hack.cluster.proofs.conftest import Namespace, pod_spec
from hack.cluster.shell import eventually


def stateful_set() -> dict[str, Any]:
    """Two pods that are not root, on two nodes, with a volume each."""
    note = 'echo "$(hostname)" >> /data/log && exec sleep infinity'
    mount = [{"name": "data", "mountPath": "/data"}]
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "keep"}},
    }
    spec = pod_spec(["sh", "-c", note], volumeMounts=mount, topologySpreadConstraints=[spread])
    spec["securityContext"] = {"runAsUser": 10001, "runAsNonRoot": True, "fsGroup": 10001}
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "keep"},
        "spec": {
            "replicas": 2,
            "serviceName": "keep",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "keep"}},
            "template": {"metadata": {"labels": {"app": "keep"}}, "spec": spec},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}],
        },
    }


def volumes() -> list[str]:
    """Folders of volumes on both nodes."""
    return [path.name for node in NODE_PLACES.values() for path in (node.var / "volumes").iterdir()]


def test_a_volume_outlives_its_pod_and_goes_with_its_claim(namespace: Namespace) -> None:
    namespace.apply(stateful_set())
    namespace.kubectl("rollout", "status", "statefulset/keep", "--timeout=120s")
    nodes = {pod["spec"]["nodeName"] for pod in namespace.get("pods")["items"]}
    assert nodes == set(NODE_PLACES)
    namespace.kubectl("delete", "pod", "keep-0", "keep-1")
    namespace.kubectl("rollout", "status", "statefulset/keep", "--timeout=120s")
    for pod in ("keep-0", "keep-1"):
        assert namespace.execute(pod, "cat", "/data/log").split() == [pod, pod]
    mine = [name for name in volumes() if f"_{namespace.name}_" in name]
    assert len(mine) == 2
    namespace.kubectl("delete", "statefulset", "keep")
    namespace.kubectl("delete", "pvc", "--all")
    eventually(
        "the volumes are gone",
        lambda: not set(mine) & set(volumes()) and namespace.name not in kubectl("get", "pv"),
        60,
    )
