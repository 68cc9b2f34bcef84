"""A model with a backend to break and another that is to answer meanwhile."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.suite.cluster import is_ready
from conformance.suite.gateway import CHAT
from conformance.suite.lab import PODS
from conformance.suite.lines import NotSupported
from conformance.suite.release import GATEWAY
from conformance.suite.timeouts import POD_GONE, RECOVERY, eventually
from synapse_gateway.testing.wire import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.suite.cluster import Cluster, Object
    from conformance.suite.lab import Lab
    from conformance.suite.session import Session


@dataclass(frozen=True)
class Scene:
    """What is broken, and who stands behind it.

    Attributes:
        deployment: Where.
        model: The model that is asked.
        first: Its first choice: a backend, and the Deployment of the same name.
        others: The backends behind it.
    """

    deployment: Session
    model: str
    first: str
    others: tuple[str, ...]

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return self.deployment.cluster

    @property
    def lab(self) -> Lab:
        """The suite's own pods."""
        return self.deployment.lab

    @functools.cached_property
    def workload(self) -> Object:
        """The Deployment of the first choice, as it was."""
        return self.cluster.get("Deployment", self.first)

    @property
    def pod(self) -> Object:
        """A ready pod of the first choice."""
        return self.cluster.ready(self.first)[0]

    def await_pods_gone(self, seconds: float = POD_GONE) -> None:
        """Wait until the first choice has no pod."""

        def gone() -> bool:
            name = f"app.kubernetes.io/name={self.first}"
            return not self.cluster.all("Pod", None, name)

        eventually(f"the pods of {self.first} are gone", gone, seconds)

    def await_ready(self, seconds: float = RECOVERY) -> None:
        """Wait until the first choice has as many ready pods as it had, and they are alone."""
        wanted = self.workload["spec"]["replicas"]

        def ready() -> bool:
            pods = self.cluster.pods(self.first)
            return len(pods) == wanted and all(map(is_ready, pods))

        eventually(f"{self.first} is ready again", ready, seconds, every=1.0)


def find(deployment: Session) -> Scene:
    """Return a scene.

    Raises:
        NotSupported: No chat model has a second backend, or the first is not in the cluster.
    """
    config = deployment.release.config
    components = set(deployment.release.components)
    reasons = []
    for model in deployment.gateway.capable[CHAT]:
        targets = sorted(
            config["models"][model]["targets"], key=lambda one: int(one.get("order", 1))
        )
        names = list(dict.fromkeys(target["backend"] for target in targets))
        if len(names) < 2:
            reasons.append(f"{model} has no second backend")
        elif names[0] not in components:
            reasons.append(f"{names[0]} is no Deployment of the release")
        else:
            return Scene(deployment, model, names[0], tuple(names[1:]))
    raise NotSupported("; ".join(reasons) or "no model of the deployment does chat")


def slots(deployment: Session) -> int:
    """Return how many requests all replicas together hold at the backends of the chat model."""
    config, model = deployment.release.config, deployment.gateway.model(CHAT)
    names = {target["backend"] for target in config["models"][model]["targets"]}
    each = sum(int(config["backends"][name].get("slots", 1)) for name in names)
    return each * len(deployment.cluster.ready(GATEWAY))


def replica_metrics(deployment: Session) -> list[Metrics]:
    """Read the metrics of every ready replica of the gateway, each from within its pod."""
    cluster = deployment.cluster
    texts = [page(cluster, pod, "/metrics") for pod in cluster.ready(GATEWAY)]
    return [Metrics(text) for text in texts if text]


def page(cluster: Cluster, pod: Object, path: str) -> str:
    """Return what a replica of the gateway answers within its pod; empty if it does not."""
    meta = pod["metadata"]
    url = f"http://127.0.0.1:8000{path}"
    (text,) = cluster.python(
        meta["namespace"], meta["name"], PODS / "fetch.py", url, container="gateway"
    )
    return str(text)


def value(metrics: Sequence[Metrics], name: str, **labels: str) -> float:
    """Return the sum of a metric over all replicas."""
    return sum(one.value(name, **labels) for one in metrics)


def outcomes(metrics: Sequence[Metrics], backend: str) -> dict[str, float]:
    """Return how attempts at a backend ended so far, by outcome."""
    found: dict[str, float] = {}
    for one in metrics:
        for outcome, count in one.by_label(
            "synapse_attempts_total", "outcome", backend=backend
        ).items():
            found[outcome] = found.get(outcome, 0.0) + count
    return found
