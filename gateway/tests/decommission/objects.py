"""Kubernetes objects as the API server lists them, cut to what is read."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def service(
    name: str = "ollama",
    namespace: str = "my-app",
    *,
    port: int = 11434,
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    **spec: Any,
) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": "1",
            "annotations": annotations or {},
            "labels": labels or {},
        },
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.0.0.7",
            "clusterIPs": ["10.0.0.7"],
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": {"app": "ollama"},
            "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": 11434}],
            **spec,
        },
    }


def workload(
    name: str = "ollama",
    namespace: str = "my-app",
    *,
    kind: str = "Deployment",
    replicas: int = 2,
    image: str = "ollama/ollama:0.17.4",
    annotations: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
) -> Object:
    selector = labels or {"app": "ollama"}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "resourceVersion": "1",
            "annotations": annotations or {},
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": selector},
            "template": {
                "metadata": {"labels": selector},
                "spec": {"containers": [{"name": "main", "image": image}]},
            },
            **({"serviceName": "ollama"} if kind == "StatefulSet" else {}),
        },
    }


def pod(
    name: str = "ollama-7d9f-x",
    namespace: str = "my-app",
    *,
    image: str = "ollama/ollama",
    owner: tuple[str, str] | None = ("ReplicaSet", "ollama-7d9f"),
) -> Object:
    owners = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app": "ollama", "pod-template-hash": "7d9f"},
            "ownerReferences": owners,
        },
        "spec": {"containers": [{"name": "main", "image": image}]},
    }


def namespace(name: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": {k.replace("__", "/"): v for k, v in labels.items()}},
    }


def policy(name: str = "gateway", namespace: str = "llm-infra", **spec: Any) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def merged(thing: Any, patch: Any) -> Any:
    """Return what a JSON merge patch makes of a value (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(thing) if isinstance(thing, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result
