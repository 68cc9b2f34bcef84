"""Which Services of other namespaces lead to an Ollama, and what stands against moving each.

Pure: takes what the API server lists, and judges.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from synapse_gateway.decommission.changes import (
    REPLICAS,
    changed_by_others,
    is_aliased,
    is_ours,
    name_of,
    note,
    original_spec,
    replicas_of,
)
from synapse_gateway.decommission.errors import Refusal
from synapse_gateway.decommission.policies import admits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from synapse_gateway.decommission.kube import Object

PORT = 11434
"""The port of Ollama's API."""
NAME = "ollama"
"""The name under which applications look for it."""
Chosen: TypeAlias = frozenset[tuple[str, str]]
"""Namespace and name of Services."""
IMAGE = r"(^|/)ollama[a-z0-9._-]*$"
"""Repositories that hold an Ollama: `ollama/ollama`, `ghcr.io/some/ollama-rocm`."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What was read of the cluster; lists of objects, by kind."""

    services: Sequence[Object]
    pods: Sequence[Object]
    workloads: Sequence[Object]
    namespaces: Mapping[str, Object] = field(default_factory=dict)
    policies: Sequence[Object] = ()


@dataclass(frozen=True, kw_only=True)
class Target:
    """The Service that answers Ollama's API in front of the gateway.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        ports: The TCP ports that it answers.
        pod_labels: Labels of the gateway's pods, which NetworkPolicies select by.
        host: The DNS name that aliases are given.
    """

    namespace: str
    name: str
    ports: frozenset[int]
    pod_labels: Mapping[str, str]
    host: str


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A Service that leads to an Ollama, and what is known of it.

    Attributes:
        service: The Service.
        workloads: The Deployments and StatefulSets whose pods it selects.
        models: The names of its models; None where they were not or could not be listed.
        missing: Those of them that the gateway does not know.
        blockers: What stands against moving it, a sentence each.
        notes: What is worth knowing, a sentence each.
    """

    service: Object
    workloads: tuple[Object, ...] = ()
    models: tuple[str, ...] | None = None
    missing: tuple[str, ...] = ()
    blockers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        """The Service's namespace."""
        return str(self.service["metadata"]["namespace"])

    @property
    def name(self) -> str:
        """The Service's name."""
        return str(self.service["metadata"]["name"])

    @property
    def port(self) -> int:
        """The port under which it answers Ollama's API."""
        ports = _ports(original_spec(self.service))
        return PORT if PORT in ports or not ports else min(ports)

    @property
    def state(self) -> str:
        """`running`; `aliased`, when the name leads to the gateway; `stopped`, when all is done."""
        if not is_aliased(self.service):
            return "running"
        stopped = all(note(w, REPLICAS) is not None for w in self.workloads)
        return "stopped" if stopped else "aliased"

    def blocked(self, *sentences: str) -> Instance:
        """Return it with more that stands against moving it."""
        return replace(self, blockers=(*self.blockers, *sentences))


def find_target(listing: Listing, namespace: str, name: str, domain: str) -> Target:
    """Return the Service that aliases shall lead to.

    The one that is named may answer other ports only (the gateway's own has 8000); then it is the
    one beside it that selects the same pods and has Ollama's.

    Raises:
        Refusal: There is none.
    """
    there = [s for s in listing.services if s["metadata"]["namespace"] == namespace]
    named = next((s for s in there if s["metadata"]["name"] == name), None)
    if named is None:
        raise Refusal(
            f"there is no Service {namespace}/{name}; say where the gateway is: "
            "--gateway-service NAME.NAMESPACE"
        )
    selector = named["spec"].get("selector")
    same = [s for s in there if selector and s["spec"].get("selector") == selector]
    for service in [named, *same]:
        if PORT in _ports(service["spec"]):
            break
    else:
        raise Refusal(
            f"neither Service {namespace}/{name} nor another in front of its pods answers port "
            f"{PORT}; enable the gateway's Ollama port (gateway.ollamaService.enabled) first"
        )
    found = service["metadata"]["name"]
    pods = [p for p in listing.pods if _selects(service["spec"], p, namespace)]
    labels = pods[0]["metadata"].get("labels") if pods else selector
    return Target(
        namespace=namespace,
        name=found,
        ports=_ports(service["spec"]),
        pod_labels=labels or {},
        host=f"{found}.{namespace}.svc.{domain}",
    )


def is_candidate(service: Object, target_namespace: str, chosen: Chosen | None) -> bool:
    """Whether a Service may lead to an Ollama, by its name and ports, or by the user's choice.

    Args:
        service: Any Service.
        target_namespace: The gateway's, which is left out.
        chosen: Namespace and name of those that the user has chosen by their labels; None for
            those that are called or numbered like Ollama's.
    """
    meta, spec = service["metadata"], original_spec(service)
    if meta["namespace"] == target_namespace or is_ours(service) or not spec.get("selector"):
        return False
    if chosen is not None:
        return key_of(service) in chosen
    return is_aliased(service) or meta["name"] == NAME or PORT in _ports(spec)


def find_instances(
    listing: Listing, target: Target, image: str = IMAGE, chosen: Chosen | None = None
) -> list[Instance]:
    """Return the Ollama instances of other namespaces, by namespace and name.

    Args:
        listing: What there is.
        target: The gateway's Service, whose namespace is left out.
        image: Regular expression that the repository of a container's image must hold.
        chosen: As for `is_candidate`.
    """
    found: list[tuple[Instance, list[Object]]] = []
    for service in listing.services:
        if not is_candidate(service, target.namespace, chosen):
            continue
        workloads = tuple(w for w in listing.workloads if leads_to(service, w))
        spec, namespace = original_spec(service), service["metadata"]["namespace"]
        pods = [p for p in listing.pods if _selects(spec, p, namespace)]
        if is_aliased(service) or any(_runs(image, thing) for thing in (*workloads, *pods)):
            found.append((Instance(service=service, workloads=workloads), pods))
    moved = frozenset(key_of(instance.service) for instance, _ in found)
    judged = [_judge(instance, pods, listing, target, moved) for instance, pods in found]
    return sorted(judged, key=lambda i: (i.namespace, i.name))


def key_of(thing: Object) -> tuple[str, str]:
    """Return namespace and name."""
    return str(thing["metadata"]["namespace"]), str(thing["metadata"]["name"])


def leads_to(service: Object, workload: Object) -> bool:
    """Whether a Service selects the pods of a workload (or did, before it became an alias)."""
    labels = {"metadata": {**workload["spec"]["template"].get("metadata", {})}}
    labels["metadata"]["namespace"] = workload["metadata"]["namespace"]
    return _selects(original_spec(service), labels, service["metadata"]["namespace"])


def _judge(
    instance: Instance,
    pods: Sequence[Object],
    listing: Listing,
    target: Target,
    moved: Chosen,
) -> Instance:
    if is_aliased(instance.service):
        changed = changed_by_others(instance.service)
        return instance.blocked(*([changed] if changed else []))
    sentences = [
        *_service_blockers(instance, target),
        *_workload_blockers(instance, pods),
        *_other_services(instance, listing, moved),
        *_policy_blockers(instance, listing, target),
    ]
    return replace(instance.blocked(*sentences), notes=tuple(_notes(instance, listing)))


def _service_blockers(instance: Instance, target: Target) -> Iterable[str]:
    spec = instance.service["spec"]
    kind = spec.get("type", "ClusterIP")
    if kind != "ClusterIP":
        yield (
            f"{name_of(instance.service)} is of type {kind}, and callers from outside the cluster "
            "would lose it; make it a ClusterIP first"
        )
    unknown = sorted(_ports(spec) - target.ports)
    if unknown:
        yield (
            f"{name_of(instance.service)} has port {_list(unknown)}, which "
            f"{target.namespace}/{target.name} does not answer, and an alias keeps the port; move "
            f"its callers to {PORT} first"
        )


def _workload_blockers(instance: Instance, pods: Sequence[Object]) -> Iterable[str]:
    names = {(w["kind"], w["metadata"]["name"]) for w in instance.workloads}
    strays = [pod for pod in pods if _owner(pod) not in names]
    if strays:
        owner = _owner(strays[0])
        owned = f"of {owner[0]} {owner[1]}" if owner else "of nobody"
        yield (
            f"pod {instance.namespace}/{strays[0]['metadata']['name']} is {owned}, and only "
            "Deployments and StatefulSets can be scaled to zero; remove it by hand first"
        )
    for workload in instance.workloads:
        if note(workload, REPLICAS) is not None:
            yield (
                f"{name_of(workload)} was stopped by this command, but {name_of(instance.service)} "
                "is no alias any more; run --undo first"
            )


def _other_services(instance: Instance, listing: Listing, moved: Chosen) -> Iterable[str]:
    for workload in instance.workloads:
        for other in listing.services:
            if is_ours(other) or key_of(other) in moved or not leads_to(other, workload):
                continue
            yield (
                f"{name_of(other)} leads to {name_of(workload)} as well, and would lead nowhere; "
                "move or remove it first"
            )


def _policy_blockers(instance: Instance, listing: Listing, target: Target) -> Iterable[str]:
    labels = (listing.namespaces.get(instance.namespace) or {"metadata": {}})["metadata"].get(
        "labels"
    ) or {}
    policies = [p for p in listing.policies if p["metadata"]["namespace"] == target.namespace]
    if not admits(policies, target.pod_labels, labels, PORT):
        yield (
            f"no NetworkPolicy of {target.namespace} admits namespace {instance.namespace} to port "
            f"{PORT} of the gateway; kubectl label namespace {instance.namespace} "
            "synapse.io/access=true"
        )


def _notes(instance: Instance, listing: Listing) -> Iterable[str]:
    egress = [
        p["metadata"]["name"]
        for p in listing.policies
        if p["metadata"]["namespace"] == instance.namespace
        and "Egress" in (p["spec"].get("policyTypes") or [])
    ]
    if egress:
        yield (
            f"NetworkPolicies of {instance.namespace} limit what its pods may call "
            f"({', '.join(egress)}): they must admit the gateway on port {PORT}"
        )
    for thing in (instance.service, *instance.workloads):
        manager = _manager(thing)
        if manager:
            yield f"{name_of(thing)} is kept by {manager}, which may undo this: change it there too"
    for workload in instance.workloads:
        if replicas_of(workload) == 0:
            yield f"{name_of(workload)} is at zero replicas already"


def _manager(thing: Object) -> str | None:
    meta = thing["metadata"]
    notes, labels = meta.get("annotations") or {}, meta.get("labels") or {}
    if "argocd.argoproj.io/tracking-id" in notes or "argocd.argoproj.io/instance" in labels:
        return "Argo CD"
    if "kustomize.toolkit.fluxcd.io/name" in labels or "helm.toolkit.fluxcd.io/name" in labels:
        return "Flux"
    return "Helm" if labels.get("app.kubernetes.io/managed-by") == "Helm" else None


def _owner(pod: Object) -> tuple[str, str] | None:
    for owner in pod["metadata"].get("ownerReferences") or []:
        if not owner.get("controller"):
            continue
        kind, name = str(owner["kind"]), str(owner["name"])
        suffix = f"-{(pod['metadata'].get('labels') or {}).get('pod-template-hash')}"
        # A ReplicaSet is named after its Deployment and the hash of the pod template.
        if kind == "ReplicaSet" and name.endswith(suffix):
            return "Deployment", name.removesuffix(suffix)
        return kind, name
    return None


def _ports(spec: Mapping[str, Any]) -> frozenset[int]:
    return frozenset(int(port["port"]) for port in spec.get("ports") or [])


def _selects(spec: Mapping[str, Any], thing: Object, namespace: str) -> bool:
    selector: Mapping[str, str] = spec.get("selector") or {}
    meta = thing["metadata"]
    if not selector or meta["namespace"] != namespace:
        return False
    return selector.items() <= (meta.get("labels") or {}).items()


def _runs(image: str, thing: Object) -> bool:
    spec = thing["spec"]
    spec = spec["template"]["spec"] if "template" in spec else spec
    return any(re.search(image, repository(c.get("image", ""))) for c in spec["containers"])


def repository(image: str) -> str:
    """Return an image's reference without tag and digest."""
    path = image.partition("@")[0]
    head, slash, last = path.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
