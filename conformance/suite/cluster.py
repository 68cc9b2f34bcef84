"""The cluster, by its API; by kubectl only where the API is no plain HTTP (exec, forwarding)."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from conformance.suite.lines import SuiteError
from conformance.suite.timeouts import EXEC
from synapse_gateway.decommission.errors import KubeError, Refusal
from synapse_gateway.decommission.kube import Kube
from synapse_gateway.decommission.kubeconfig import find_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conformance.suite.options import Options

Object = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
MANAGER = "synapse-conformance"
RESOURCES = {
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "Pod": ("api/v1", "pods"),
    "Service": ("api/v1", "services"),
    "Secret": ("api/v1", "secrets"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Event": ("api/v1", "events"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "ReplicaSet": ("apis/apps/v1", "replicasets"),
    "Job": ("apis/batch/v1", "jobs"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "HorizontalPodAutoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "PrometheusRule": ("apis/monitoring.coreos.com/v1", "prometheusrules"),
    "ServiceMonitor": ("apis/monitoring.coreos.com/v1", "servicemonitors"),
    "Prometheus": ("apis/monitoring.coreos.com/v1", "prometheuses"),
    "PodMetrics": ("apis/metrics.k8s.io/v1beta1", "pods"),
}
CLUSTER_WIDE = {"Namespace", "Node"}
# Scripts come by standard input, and are kept so that they can start themselves again.
BOOTSTRAP = """\
import runpy, sys, tempfile
path = tempfile.mkdtemp() + "/" + sys.argv[1]
with open(path, "w") as file:
    file.write(sys.stdin.read())
sys.argv[:] = [path, *sys.argv[2:]]
runpy.run_path(path, run_name="__main__")
"""


@dataclass(frozen=True)
class Output:
    """What a command in a pod said.

    Attributes:
        code: Its exit code.
        text: Its standard output.
        error: Its standard error.
    """

    code: int
    text: str
    error: str


def run(
    command: Sequence[str | Path],
    what: str,
    seconds: float,
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Output:
    """Run a program of this machine.

    Args:
        command: Program and arguments.
        what: What it is, for the error.
        seconds: When to give up.
        text: Standard input; this process's own if it is None.
        environment: Its environment; this process's own if it is None.

    Raises:
        SuiteError: It was given up.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the suite's own commands
            command,
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise SuiteError(f"{what}: not done in {seconds:g} s") from None
    return Output(done.returncode, done.stdout, done.stderr)


class Cluster:
    """One cluster.

    Args:
        options: Names its kubeconfig, and the namespace of the release.

    Raises:
        SuiteError: It cannot be reached.
    """

    def __init__(self, options: Options) -> None:
        self._kubeconfig = options.kubeconfig
        self._context = options.context
        self.namespace = options.namespace
        self._written: set[tuple[str, str, str]] = set()
        try:
            found = find_cluster(options.kubeconfig, options.context or None, os.environ)
            self.kube = Kube(found)
            self.version: str = self.kube.call("GET", "/version")["gitVersion"]
        except (Refusal, KubeError) as error:
            raise SuiteError(str(error)) from None

    # -- objects

    def path(self, kind: str, namespace: str = "", name: str = "") -> str:
        """Return the path of an object, or of a list."""
        prefix, plural = RESOURCES[kind]
        scope = "" if kind in CLUSTER_WIDE or not namespace else f"/namespaces/{namespace}"
        return f"/{prefix}{scope}/{plural}" + (f"/{name}" if name else "")

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """Return an object of a namespace (the release's, if none is named).

        Raises:
            KubeError: Status 404 where there is none.
        """
        found: Object = self.kube.call("GET", self.path(kind, self._in(namespace), name))
        return found

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return an object, None where there is none."""
        try:
            return self.get(kind, name, namespace)
        except KubeError as error:
            if error.status == 404:
                return None
            raise

    def all(self, kind: str, namespace: str | None = None, selector: str = "") -> list[Object]:
        """Return the objects of a namespace; all namespaces where it is empty."""
        path = self.path(kind, self._in(namespace))
        query = urlencode({"labelSelector": selector}) if selector else ""
        try:
            found: list[Object] = self.kube.call("GET", f"{path}?{query}")["items"]
        except KubeError as error:
            if error.status == 404:  # the kind is not served
                return []
            raise
        return found

    def apply(self, thing: Object) -> Object:
        """Make an object so, by server-side apply."""
        meta = thing["metadata"]
        path = self.path(thing["kind"], meta.get("namespace", ""), meta["name"])
        prefix, _ = RESOURCES[thing["kind"]]
        whole = {"apiVersion": prefix.split("/", 1)[1], **thing}
        if prefix == "api/v1":
            whole["apiVersion"] = "v1"
        return self._write("PATCH", path, whole, "apply-patch+yaml", force="true")

    def create(self, thing: Object) -> Object:
        """Create an object that was taken from the cluster, without what the cluster had added."""
        added = {"resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"}
        meta = {name: value for name, value in thing["metadata"].items() if name not in added}
        prefix, _ = RESOURCES[thing["kind"]]
        version = "v1" if prefix == "api/v1" else prefix.split("/", 1)[1]
        body = {**thing, "apiVersion": version, "metadata": meta}
        created = self._write("POST", self.path(thing["kind"], meta["namespace"]), body)
        self._written.add((thing["kind"], meta["namespace"], meta["name"]))
        return created

    def replace(self, kind: str, thing: Object) -> None:
        """Write an object anew.

        Raises:
            KubeError: Status 409 where somebody has changed it meanwhile.
        """
        meta = thing["metadata"]
        self._write("PUT", self.path(kind, meta["namespace"], meta["name"]), thing)
        self._written.add((kind, meta["namespace"], meta["name"]))

    def patch(
        self, kind: str, name: str, change: Object, namespace: str | None = None, sub: str = ""
    ) -> Object:
        """Change an object by a JSON merge patch (RFC 7396)."""
        path = self.path(kind, self._in(namespace), name) + (f"/{sub}" if sub else "")
        self._written.add((kind, self._in(namespace), name))
        return self._write("PATCH", path, change, "merge-patch+json")

    def _write(self, method: str, path: str, body: Any, kind: str = "json", **query: str) -> Object:
        query["fieldManager"] = MANAGER
        headers = {"Content-Type": f"application/{kind}"}
        found: Object = self.kube.call(method, f"{path}?{urlencode(query)}", body, headers)
        return found

    def hand_back(self) -> None:
        """Give up every field that was written, so that who applies the object next may set it.

        kubernetes.io, "Server-Side Apply", clearing managedFields: without it Helm would refuse an
        upgrade over a field that has a value of the suite's, though it be as it was.
        """
        for kind, namespace, name in sorted(self._written):
            found = self.find(kind, name, namespace)
            entries = found["metadata"].get("managedFields", []) if found else []
            others = [entry for entry in entries if entry["manager"] != MANAGER]
            if found is None or others == entries:
                continue
            meta = found["metadata"]
            change = [
                {
                    "op": "test",
                    "path": "/metadata/resourceVersion",
                    "value": meta["resourceVersion"],
                },
                {"op": "replace", "path": "/metadata/managedFields", "value": others or [{}]},
            ]
            self.kube.call(
                "PATCH",
                self.path(kind, namespace, name),
                change,
                {"Content-Type": "application/json-patch+json"},
            )
        self._written.clear()

    def delete(
        self, kind: str, name: str, namespace: str | None = None, *, grace: int | None = None
    ) -> None:
        """Delete an object; it is no error if it is gone."""
        body = {} if grace is None else {"gracePeriodSeconds": grace}
        try:
            self.kube.call("DELETE", self.path(kind, self._in(namespace), name), body)
        except KubeError as error:
            if error.status != 404:
                raise

    def scale(self, name: str, replicas: int, namespace: str | None = None) -> None:
        """Set the replicas of a Deployment."""
        self.patch("Deployment", name, {"spec": {"replicas": replicas}}, namespace)

    def _in(self, namespace: str | None) -> str:
        return self.namespace if namespace is None else namespace

    def text(self, path: str) -> str:
        """Return what a path of the API answers, which is no JSON."""
        return self._kubectl("get", "--raw", path)

    # -- pods

    def pods(self, name: str, namespace: str | None = None) -> list[Object]:
        """Return the pods of a component that are not on their way out."""
        found = self.all("Pod", namespace, f"app.kubernetes.io/name={name}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def ready(self, name: str, namespace: str | None = None) -> list[Object]:
        """Return those of them that are ready."""
        return [pod for pod in self.pods(name, namespace) if is_ready(pod)]

    # -- kubectl

    @functools.cached_property
    def kubectl(self) -> list[str]:
        """The command."""
        found = shutil.which("kubectl")
        if not found:
            script = str(ROOT / "hack" / "tools" / "install.sh")
            done = subprocess.run(  # noqa: S603 - a script of this repository
                [script, "kubectl"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise SuiteError(f"kubectl is not there: {done.stderr.strip()}")
            found = done.stdout.strip()
        flags = [f"--kubeconfig={self._kubeconfig}"]
        if self._context:
            flags.append(f"--context={self._context}")
        return [found, *flags]

    def _kubectl(self, *arguments: str, seconds: float = EXEC) -> str:
        what = f"kubectl {arguments[0]}"
        done = run([*self.kubectl, *arguments], what, seconds)
        if done.code != 0:
            raise SuiteError(f"{what}: {done.error.strip()}")
        return done.text

    def exec(
        self,
        namespace: str,
        pod: str,
        command: Sequence[str],
        text: str = "",
        *,
        container: str = "",
        seconds: float = EXEC,
    ) -> Output:
        """Run a command in a pod.

        Args:
            namespace: The pod's.
            pod: Its name.
            command: Program and arguments.
            text: Standard input.
            container: Which; the first where none is named.
            seconds: When to give up.

        Raises:
            SuiteError: It was given up.
        """
        line = [*self.kubectl, "exec", "-i", "-n", namespace, pod]
        line += ["-c", container] if container else []
        what = f"{command[0]} in {namespace}/{pod}"
        return run([*line, "--", *command], what, seconds, text=text)

    def python(
        self,
        namespace: str,
        pod: str,
        script: Path,
        *arguments: str,
        seconds: float = EXEC,
        container: str = "",
    ) -> Any:
        """Run a script of `conformance/pods` in a pod, and return the JSON that it prints.

        Raises:
            SuiteError: It failed.
        """
        done = self.exec(
            namespace,
            pod,
            ["python3", "-c", BOOTSTRAP, script.name, *arguments],
            script.read_text(encoding="utf-8"),
            seconds=seconds,
            container=container,
        )
        if done.code != 0:
            texts = done.error.strip().splitlines()
            said = [text for text in texts if not text.startswith("command terminated")]
            said = said or ["no reason given"]
            raise SuiteError(f"{script.name} in {namespace}/{pod}: {said[-1]}")
        return json.loads(done.text)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def restarts(pod: Mapping[str, Any]) -> int:
    """How often containers of a pod were started again."""
    return sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
