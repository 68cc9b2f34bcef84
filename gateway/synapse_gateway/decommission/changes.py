"""What is changed on each object, how that is noted on the object itself, and how it is undone.

Everything here is pure: objects in, JSON merge patches or new objects out.

A Service becomes an `ExternalName` of the gateway's. Its name is what applications hold, and DNS is
the one place where a name can lead into another namespace:

- A Service without a selector cannot do it. Its endpoints may not be another Service's ClusterIP,
  because kube-proxy translates a packet's address once (kubernetes.io/docs, Service, "Services
  without selectors"), and the addresses of the gateway's pods change at every rollout.
- NetworkPolicies see what they should: a connection of the application's own pod to the gateway's.
- A name has no port: the gateway's Service must answer on the port that applications use.

Turning a ClusterIP into a name frees the address, while clients still hold it for as long as their
DNS answer lives (30 s with CoreDNS), and some for good. So a second Service takes that address over
at once, in front of the same pods: old connections end where they began, and the address is still
there when it is asked back. Its endpoints are written before it exists: it never is without.

| object | note (`synapse.io/decommission-...`) | holds |
| --- | --- | --- |
| Service | service | its spec, as JSON |
| Service | alias | the name that it was given |
| Service | time | when, RFC 3339: the drain counts from here |
| Deployment, StatefulSet | replicas | its replicas before |
| the second Service | for | the name of the first |

What is made carries the label `synapse.io/decommission`: `address` the second Service, `bridge` the
endpoints that are written ahead.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from synapse_gateway.decommission.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_gateway.decommission.kube import Object

ORIGINAL = "synapse.io/decommission-service"
ALIAS = "synapse.io/decommission-alias"
TIME = "synapse.io/decommission-time"
REPLICAS = "synapse.io/decommission-replicas"
FOR = "synapse.io/decommission-for"
MADE = "synapse.io/decommission"
"""Label of the objects that are made, and that `--undo` deletes: `address` or `bridge`."""

SLICE_SERVICE = "kubernetes.io/service-name"
SLICE_MANAGER = "endpointslice.kubernetes.io/managed-by"
OUR_MANAGER = "synapse-decommission"
CONTROLLER = "endpointslice-controller.k8s.io"

_ADDRESS_FIELDS = (
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "internalTrafficPolicy",
)
"""What an ExternalName has not."""
_KEPT_FIELDS = ("ports", "selector")


def name_of(thing: Object) -> str:
    """Return kind, namespace and name, as sentences name an object."""
    meta = thing["metadata"]
    return f"{thing['kind']} {meta['namespace']}/{meta['name']}"


def note(thing: Object, key: str) -> str | None:
    """Return an annotation; None where there is none."""
    value: str | None = (thing["metadata"].get("annotations") or {}).get(key)
    return value


def is_aliased(service: Object) -> bool:
    """Whether the Service was turned into an alias by this command, and not back."""
    return note(service, ORIGINAL) is not None


def is_ours(thing: Object) -> bool:
    """Whether the object was made by this command."""
    return MADE in (thing["metadata"].get("labels") or {})


def original_spec(service: Object) -> Object:
    """Return the spec of a Service as it was before it became an alias.

    Raises:
        Refusal: The note on it was damaged.
    """
    text = note(service, ORIGINAL)
    if text is None:
        spec: Object = service["spec"]
        return spec
    try:
        original = json.loads(text)
    except ValueError:
        original = None
    if not isinstance(original, dict):
        raise Refusal(f"{name_of(service)}: its annotation {ORIGINAL} was changed and is no JSON")
    return original


def alias_patch(service: Object, host: str, now: datetime) -> Object:
    """Return the patch that lets a Service's name lead to another host.

    Args:
        service: A Service of type ClusterIP.
        host: DNS name of the gateway's Service, without a dot at the end.
        now: The drain counts from here.
    """
    spec = service["spec"]
    notes = {
        ORIGINAL: json.dumps(spec, sort_keys=True, separators=(",", ":")),
        ALIAS: host,
        TIME: now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    gone = dict.fromkeys(field for field in _ADDRESS_FIELDS if field in spec)
    return {
        "metadata": {"annotations": notes},
        "spec": {**gone, "type": "ExternalName", "externalName": host},
    }


def restore_patch(service: Object, *, with_address: bool = True) -> Object:
    """Return the patch that undoes `alias_patch`.

    Args:
        service: The alias.
        with_address: Whether to ask for the ClusterIP that it had; without, it gets a new one.

    Raises:
        Refusal: Others have changed the Service meanwhile.
    """
    changed = changed_by_others(service)
    if changed is not None:
        raise Refusal(changed)
    original = dict(original_spec(service))
    if not with_address:
        original.pop("clusterIP", None)
        original.pop("clusterIPs", None)
    removed = dict.fromkeys(field for field in service["spec"] if field not in original)
    return {
        "metadata": {"annotations": {ORIGINAL: None, ALIAS: None, TIME: None}},
        "spec": {**removed, **original},
    }


def changed_by_others(service: Object) -> str | None:
    """Return a sentence where an alias is no longer what this command made of it."""
    spec, original = service["spec"], original_spec(service)
    expected = {
        "type": "ExternalName",
        "externalName": note(service, ALIAS),
        **{field: original.get(field) for field in _KEPT_FIELDS},
    }
    for field, value in expected.items():
        if _comparable(spec.get(field)) != _comparable(value):
            return (
                f"{name_of(service)} was changed by others since it became an alias "
                f"(spec.{field}); put that back, or remove its annotations {ORIGINAL}, {ALIAS} and "
                f"{TIME} to keep it as it is"
            )
    return None


def _comparable(value: object) -> object:
    # A node port is dropped with the type, and is never one of ours to begin with.
    if isinstance(value, list):
        return [{k: v for k, v in port.items() if k != "nodePort"} for port in value]
    return value


def drain_left(services: Iterable[Object], drain: float, now: datetime) -> float:
    """Return the seconds until the youngest of these aliases has drained."""
    left = 0.0
    for service in services:
        try:
            since = datetime.fromisoformat(note(service, TIME) or "")
        except ValueError:
            since = now  # damaged: the whole time, to be safe
        if since.tzinfo is None:
            since = since.replace(tzinfo=UTC)
        left = max(left, drain - (now - since).total_seconds())
    return min(left, drain)


def address_name(service_name: str) -> str:
    """Return the name of the Service that keeps an alias's old address."""
    return f"{service_name[:47].rstrip('-')}-synapse-address"


def address_service(service: Object) -> Object | None:
    """Return the Service that takes the old address over; None where the alias had none.

    Args:
        service: The Service, before or after it became an alias.
    """
    original = original_spec(service)
    if original.get("clusterIP") in {None, "", "None"}:
        return None
    meta = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": address_name(meta["name"]),
            "namespace": meta["namespace"],
            "labels": {MADE: "address"},
            "annotations": {
                FOR: meta["name"],
                "synapse.io/description": f"Keeps the address that {meta['name']} had before its "
                "name was given to the gateway. `synapse decommission --undo` gives it back.",
            },
        },
        "spec": {key: value for key, value in original.items() if key != "healthCheckNodePort"},
    }


def bridges(slices: Iterable[Object], to_service: str) -> list[Object]:
    """Return endpoints for a Service that is about to take over from another.

    Its own follow from the controller a moment later; until then these stand in.

    Args:
        slices: The EndpointSlices of the Service that has them now.
        to_service: The name of the one that will need them.
    """
    made = []
    for number, found in enumerate(slices):
        if is_ours(found) or not found.get("endpoints"):
            continue
        fields = ("addressType", "endpoints", "ports")
        made.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{to_service}-bridge-{number}",
                    "namespace": found["metadata"]["namespace"],
                    "labels": {
                        MADE: "bridge",
                        SLICE_SERVICE: to_service,
                        SLICE_MANAGER: OUR_MANAGER,
                    },
                },
                **{field: found[field] for field in fields if field in found},
            }
        )
    return made


def scale_down_patch(workload: Object) -> Object | None:
    """Return the patch that stops a workload and notes how many replicas it had; None if done.

    Raises:
        Refusal: Others have scaled it up since this command had stopped it.
    """
    replicas = replicas_of(workload)
    noted = note(workload, REPLICAS)
    if noted is None:
        return {"metadata": {"annotations": {REPLICAS: str(replicas)}}, "spec": {"replicas": 0}}
    if replicas == 0:
        return None
    raise Refusal(
        f"{name_of(workload)} was scaled to {replicas} by others since this command stopped it; "
        f"--undo it, or remove its annotation {REPLICAS} to have it stopped again"
    )


def scale_up_patch(workload: Object) -> Object | None:
    """Return the patch that undoes `scale_down_patch`; None where there is nothing to undo.

    Raises:
        Refusal: Others have scaled it meanwhile, or damaged the note.
    """
    noted = note(workload, REPLICAS)
    if noted is None:
        return None
    if not noted.isdecimal():
        raise Refusal(
            f"{name_of(workload)}: its annotation {REPLICAS} must be a number (got {noted!r})"
        )
    replicas = replicas_of(workload)
    if replicas not in {0, int(noted)}:
        raise Refusal(
            f"{name_of(workload)} was scaled to {replicas} by others since this command stopped "
            f"it (it had {noted}); remove its annotation {REPLICAS} to keep it as it is"
        )
    return {"metadata": {"annotations": {REPLICAS: None}}, "spec": {"replicas": int(noted)}}


def replicas_of(workload: Object) -> int:
    """Return how many replicas are asked for."""
    replicas = workload["spec"].get("replicas")
    return 1 if replicas is None else int(replicas)
