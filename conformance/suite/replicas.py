"""The replicas of the gateway: whether all are there, and which configuration each has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from conformance.suite import scene as scenes
from conformance.suite.cluster import is_ready
from conformance.suite.release import GATEWAY
from conformance.suite.timeouts import RECOVERY, eventually

if TYPE_CHECKING:
    from conformance.suite.cluster import Cluster, Object
    from conformance.suite.session import Session


def await_replicas(cluster: Cluster, seconds: float = RECOVERY) -> list[Object]:
    """Wait until every replica is ready, and none is on its way out."""
    wanted = cluster.get("Deployment", GATEWAY)["spec"]["replicas"]

    def look() -> list[Object] | None:
        pods = cluster.pods(GATEWAY)
        good = len(pods) >= wanted and all(map(is_ready, pods))
        return pods if good else None

    return eventually("every replica of the gateway is ready", look, seconds, every=1.0)


def reloads(deployment: Session, result: str) -> float:
    """Return how many configurations the replicas have taken over, or refused."""
    metrics = scenes.replica_metrics(deployment)
    return scenes.value(metrics, "synapse_config_reloads_total", result=result)


def config_hashes(deployment: Session) -> set[str]:
    """Return the hashes of the configurations that run."""
    found: set[str] = set()
    for metrics in scenes.replica_metrics(deployment):
        found |= set(metrics.by_label("synapse_config_info", "hash"))
    return found


def write_config(cluster: Cluster, data: dict[str, str]) -> None:
    """Write the gateway's configuration, and have the kubelets bring it to the pods at once."""
    cluster.patch("ConfigMap", GATEWAY, {"data": data})
    for pod in cluster.pods(GATEWAY):
        # a pod that changes is looked after at once, and its volumes with it
        change: Any = {"metadata": {"annotations": {"conformance/touched": f"{time.time():.3f}"}}}
        cluster.patch("Pod", pod["metadata"]["name"], change)
