"""The namespaces that the suite makes for itself, and the pods in them that it works from.

`synapse-conformance` has the label that admits applications; `synapse-conformance-foreign` has not;
`synapse-conformance-nodes` holds one privileged pod a node, which enters the networks of other pods
to look from there, and breaks what a run with `--disruptive` asks it to. All of them run the Python
of the gateway's own image, so that nothing has to be pulled. They go when the run ends.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.suite.cluster import is_ready
from conformance.suite.lines import NotSupported, SuiteError
from conformance.suite.timeouts import NAMESPACE_GONE, POD_READY, eventually
from synapse_gateway.decommission.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.suite.cluster import Cluster, Object
    from conformance.suite.release import Release

PODS = Path(__file__).resolve().parents[1] / "pods"
CALLERS = "synapse-conformance"
FOREIGN = "synapse-conformance-foreign"
NODES = "synapse-conformance-nodes"
LISTENER_PORTS = (443, 8000)
LABELS = {"app.kubernetes.io/part-of": "synapse-conformance"}
IDLE = ["python3", "-c", "import signal; signal.sigwait([signal.SIGTERM])"]


class Lab:
    """The suite's own pods.

    Args:
        cluster: Where.
        release: Whose image they run.
    """

    def __init__(self, cluster: Cluster, release: Release) -> None:
        self._cluster = cluster
        self._release = release
        self._made: list[str] = []

    # -- namespaces

    def namespace(self, name: str, **labels: str) -> str:
        """Make a namespace, which goes when the run ends."""
        if name not in self._made:
            there = self._cluster.find("Namespace", name, "")
            if there is not None and "deletionTimestamp" in there["metadata"]:
                self._await_gone(name)
            self._cluster.apply(
                {"kind": "Namespace", "metadata": {"name": name, "labels": {**LABELS, **labels}}}
            )
            self._made.append(name)
        return name

    def close(self) -> None:
        """Delete everything that was made."""
        for name in self._made:
            self._cluster.delete("Namespace", name, "")

    def _await_gone(self, name: str) -> None:
        eventually(
            f"the namespace {name} of an earlier run is gone",
            lambda: self._cluster.find("Namespace", name, "") is None,
            NAMESPACE_GONE,
        )

    # -- pods, each made anew where it went with a node that was lost

    def pod(self, namespace: str, name: str, command: Sequence[str] = IDLE, **more: Any) -> Object:
        """Run a pod of the gateway's image, and wait until it is ready.

        Args:
            namespace: Where.
            name: Its name.
            command: What it runs.
            more: More fields of its spec; `labels`, and of its container `security` and `ports`.
        """
        security = more.pop("security", None) or {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        labels = {**LABELS, "app": name, **more.pop("labels", {})}
        spec = self._release.gateway["spec"]["template"]["spec"]
        container = {
            "name": "main",
            "image": self._release.image,
            "command": [*command],
            "securityContext": security,
            "ports": more.pop("ports", []),
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}},
        }
        manifest = {
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "imagePullSecrets": spec.get("imagePullSecrets", []),
                "containers": [container],
                **more,
            },
        }
        try:
            self._cluster.apply(manifest)
        except KubeError as error:
            if error.status == 403:
                raise NotSupported(f"the cluster admits no pod like {name}: {error}") from None
            raise
        return self.await_ready(namespace, name)

    def await_ready(self, namespace: str, name: str) -> Object:
        """Wait until a pod is ready."""

        def look() -> Object | None:
            found = self._cluster.find("Pod", name, namespace)
            return found if found and is_ready(found) else None

        try:
            return eventually(f"pod {namespace}/{name} is ready", look, POD_READY)
        except AssertionError as error:
            raise SuiteError(str(error)) from None

    @property
    def caller(self) -> Object:
        """A pod of an application: its namespace is admitted to the gateway."""
        namespace = self.namespace(CALLERS, **{"synapse.io/access": "true"})
        return self.pod(namespace, "caller")

    def caller_off(self, node: str) -> Object:
        """Return such a pod on another node than one that is to be lost."""
        if self.caller["spec"]["nodeName"] != node:
            return self.caller
        term = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": [node]}
        required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
        affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
        return self.pod(CALLERS, "caller-elsewhere", affinity=affinity)

    @property
    def stranger(self) -> Object:
        """A pod that nobody admits."""
        return self.pod(self.namespace(FOREIGN), "stranger")

    @property
    def listener(self) -> Object:
        """A host in another namespace, which accepts whoever comes."""
        script = (PODS / "listen.py").read_text(encoding="utf-8")
        ports = [str(port) for port in LISTENER_PORTS]
        return self.pod(
            self.namespace(FOREIGN),
            "listener",
            ["python3", "-c", script, *ports],
            securityContext={
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
            },
        )

    # -- nodes

    def agent(self, node: str) -> str:
        """Return the name of the privileged pod of a node.

        Raises:
            NotSupported: The cluster admits none.
        """
        return self._agents(node)

    @functools.cache  # noqa: B019 - one lab a run
    def _agents(self, node: str) -> str:
        namespace = self.namespace(NODES, **{"pod-security.kubernetes.io/enforce": "privileged"})
        pod = self.pod(
            namespace,
            f"agent-{node}"[:63].rstrip("-."),
            nodeName=node,
            hostPID=True,
            hostNetwork=True,
            tolerations=[{"operator": "Exists"}],
            security={"privileged": True, "runAsUser": 0},
        )
        return str(pod["metadata"]["name"])

    def on_node(self, node: str, *arguments: str, seconds: float = 60) -> Any:
        """Run `pods/node.py` on a node, and return what it prints."""
        return self._cluster.python(
            NODES, self.agent(node), PODS / "node.py", *arguments, seconds=seconds
        )

    def in_pod(self, pod: Object, *arguments: str, seconds: float = 60) -> Any:
        """Run `pods/node.py` on a pod's node, about that pod."""
        node = pod["spec"]["nodeName"]
        verb, *rest = arguments
        return self.on_node(node, verb, pod["metadata"]["uid"], *rest, seconds=seconds)
