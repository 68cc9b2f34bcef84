"""What runs inside the cluster besides the release: DNS, metrics, volumes, monitoring."""

from __future__ import annotations

from string import Template

from hack.cluster.daemons import kubectl, tool
from hack.cluster.images import PART
from hack.cluster.settings import (
    CLIENTS_NAMESPACE,
    DNS_ADDRESS,
    FOREIGN_NAMESPACE,
    HERE,
    ClusterError,
    pins,
)
from hack.cluster.shell import eventually

MANIFESTS = HERE / "manifests"
WAIT_SECONDS = 180


def manifest(name: str) -> str:
    """A manifest with images and addresses filled in."""
    values = {part.name.replace("-", "_"): part.reference for part in PART.values()}
    values |= {
        "clients": CLIENTS_NAMESPACE,
        "foreign": FOREIGN_NAMESPACE,
        "dns_address": DNS_ADDRESS,
        "prometheus_version": pins()["PROMETHEUS_VERSION"],
        "alertmanager_version": pins()["ALERTMANAGER_VERSION"],
    }
    return Template((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")).substitute(values)


def apply(text: str) -> None:
    """Apply manifests; definitions of the Prometheus operator are too large for an annotation."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text, timeout=120)


def make_namespace(name: str) -> None:
    """Make a namespace, unless it is there."""
    apply(f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")


def apply_basics() -> None:
    """DNS, metrics, volumes, and namespaces for clients and strangers."""
    for name in ("coredns", "metrics-server", "local-path", "namespaces"):
        apply(manifest(name))


def apply_monitoring() -> None:
    """The Prometheus operator with a Prometheus and an Alertmanager."""
    make_namespace("monitoring")
    definitions = tool("crds") / "prometheus-operator.yaml"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definitions), timeout=120)
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    apply(manifest("monitoring"))


def rolled_out(namespace: str, name: str) -> bool:
    """Whether a workload is there and every pod of it is ready."""
    try:
        kubectl("-n", namespace, "rollout", "status", name, "--timeout=1s")
    except ClusterError:
        return False
    return True


def wait_for(namespace: str, *names: str) -> None:
    """Return when workloads have rolled out."""
    for name in names:
        eventually(
            f"{name} in {namespace} has rolled out",
            lambda name=name: rolled_out(namespace, name),  # type: ignore[misc]
            WAIT_SECONDS,
            lambda: kubectl("-n", namespace, "get", "pods,events"),
        )


def wait_for_basics() -> None:
    """Return when DNS, metrics and volumes can be used."""
    wait_for("kube-system", "deployment/coredns", "deployment/metrics-server")
    wait_for("local-path-storage", "deployment/local-path-provisioner")


def wait_for_monitoring() -> None:
    """Return when Prometheus and Alertmanager run."""
    wait_for(
        "monitoring",
        "deployment/prometheus-operator",
        "statefulset/prometheus-cluster",
        "statefulset/alertmanager-cluster",
    )
