"""What runs inside the cluster besides the release: DNS, metrics, volumes, monitoring."""

from __future__ import annotations

import base64
import secrets
import shutil
import tempfile
from pathlib import Path
from string import Template

from hack.cluster.daemons import kubectl, tool
from hack.cluster.images import PART
from hack.cluster.places import NODE_PLACES, log_of
from hack.cluster.programs import BY_NAME
from hack.cluster.settings import (
    CLIENTS_NAMESPACE,
    DNS_ADDRESS,
    FOREIGN_NAMESPACE,
    HERE,
    OUTSIDE_ADDRESS,
    ClusterError,
    pins,
)
from hack.cluster.shell import eventually, run

MANIFESTS = HERE / "manifests"
WAIT_SECONDS = 180
# What the Git server serves: git://git.argocd/NAME.git is NAME.git in here.
GIT_FOLDER = NODE_PLACES["node1"].var / "git"


def manifest(name: str) -> str:
    """A manifest with images and addresses filled in."""
    values = {part.name.replace("-", "_"): part.reference for part in PART.values()}
    values |= {
        "clients": CLIENTS_NAMESPACE,
        "foreign": FOREIGN_NAMESPACE,
        "dns_address": DNS_ADDRESS,
        "outside_address": OUTSIDE_ADDRESS,
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


def wait_for_definitions() -> None:
    """Return when objects of every kind that has been defined may be made."""
    kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


def wait_for_cilium_definitions() -> None:
    """Return when Cilium's operator has defined its policies."""
    name = "crd/ciliumnetworkpolicies.cilium.io"
    eventually(
        "Cilium's policies are defined",
        lambda: bool(kubectl("get", name, "--ignore-not-found", "-o", "name")),
        60,
        lambda: log_of("cilium-operator"),
    )
    wait_for_definitions()


def apply_basics() -> None:
    """DNS, metrics, volumes, and namespaces for clients and strangers."""
    for name in ("coredns", "metrics-server", "local-path", "namespaces"):
        apply(manifest(name))


def apply_monitoring() -> None:
    """The Prometheus operator with a Prometheus and an Alertmanager."""
    make_namespace("monitoring")
    definitions = tool("crds") / "prometheus-operator.yaml"
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(definitions), timeout=120)
    wait_for_definitions()
    apply(manifest("monitoring"))


def apply_argo_cd() -> None:
    """Argo CD without its server, and a Git server whose repositories lie on this machine."""
    GIT_FOLDER.mkdir(parents=True, exist_ok=True)
    make_namespace("argocd")
    name, _, tag = PART["argocd"].reference.rpartition(":")
    field = "jsonpath={.data.server\\.secretkey}"
    secret = ["get", "secret/argocd-secret", "--ignore-not-found", "-o", field]
    there = kubectl("-n", "argocd", *secret)
    key = base64.b64decode(there).decode() or secrets.token_urlsafe(32)
    values = {"argocd_name": name, "argocd_tag": tag, "secret_key": key}
    with tempfile.TemporaryDirectory() as folder:
        core = BY_NAME["argocd"].folder / "manifests/core-install.yaml"
        shutil.copy(core, folder)
        text = (MANIFESTS / "argocd-kustomization.yaml").read_text(encoding="utf-8")
        kustomization = Path(folder) / "kustomization.yaml"
        kustomization.write_text(Template(text).substitute(values), encoding="utf-8")
        apply(run([tool("kubectl"), "kustomize", folder]))
    wait_for_definitions()
    apply(manifest("git"))


def wait_for_argo_cd() -> None:
    """Return when Argo CD can be given an Application.

    An Application whose first comparison fails is looked at again only minutes later.
    """
    wait_for(
        "argocd",
        "deployment/argocd-redis",
        "deployment/argocd-repo-server",
        "deployment/argocd-applicationset-controller",
        "statefulset/argocd-application-controller",
        "deployment/git",
    )


def apply_traefik() -> None:
    """Traefik behind node ports."""
    apply(manifest("traefik"))


def wait_for_traefik() -> None:
    """Return when Traefik runs."""
    wait_for("ingress", "deployment/traefik")


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
