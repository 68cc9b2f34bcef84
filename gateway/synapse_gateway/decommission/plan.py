"""The plan: what the cluster holds, what each instance lacks at the gateway, what would be done."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from synapse_gateway.decommission.changes import (
    REPLICAS,
    SLICE_SERVICE,
    is_aliased,
    name_of,
    note,
    original_spec,
    replicas_of,
)
from synapse_gateway.decommission.errors import Refusal
from synapse_gateway.decommission.find import (
    IMAGE,
    PORT,
    Chosen,
    Instance,
    Listing,
    Target,
    find_instances,
    find_target,
    is_candidate,
    key_of,
)
from synapse_gateway.decommission.models import (
    Ollama,
    OllamaError,
    by_proxy,
    by_url,
    missing_models,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from synapse_gateway.decommission.kube import Kube, Object

WORKLOADS = ("Deployment", "StatefulSet")
HEADINGS = ("NAMESPACE", "SERVICE", "STATE", "WORKLOAD", "REPLICAS", "MODELS", "MISSING")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asks for.

    Attributes:
        namespaces: Where to look; empty for everywhere.
        selector: Label selector of Services; empty for those called or numbered like Ollama's.
        image: Regular expression of the repository of an Ollama's image.
        gateway: Namespace and name of the gateway's Service.
        gateway_url: Where the gateway answers this process; empty to go by the cluster.
        cluster_domain: The DNS domain of the cluster.
        allow_missing: Models that the gateway may lack.
        allow_unlisted: `NAMESPACE/SERVICE` whose models need not be listed.
        instance_urls: Where instances answer this process, by `NAMESPACE/SERVICE`.
        callers_send_keys: Whether applications send the gateway keys already.
        drain: Seconds from the alias until the old pods are stopped.
        timeout: Seconds to wait for pods and endpoints to be ready.
    """

    namespaces: tuple[str, ...] = ()
    selector: str = ""
    image: str = IMAGE
    gateway: tuple[str, str] = ("llm-infra", "synapse-gateway")
    gateway_url: str = ""
    cluster_domain: str = "cluster.local"
    allow_missing: frozenset[str] = frozenset()
    allow_unlisted: frozenset[str] = frozenset()
    instance_urls: Mapping[str, str] = field(default_factory=dict)
    callers_send_keys: bool = False
    drain: float = 300.0
    timeout: float = 600.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be moved.

    Attributes:
        target: The Service that the names will lead to.
        instances: By namespace and name.
        blockers: What stands against moving any.
    """

    target: Target
    instances: tuple[Instance, ...]
    blockers: tuple[str, ...] = ()

    @property
    def refusals(self) -> tuple[str, ...]:
        """Everything that stands against it, each sentence once."""
        each = (sentence for instance in self.instances for sentence in instance.blockers)
        return tuple(dict.fromkeys([*self.blockers, *each]))


def make_plan(kube: Kube, options: Options, key: str = "") -> Plan:
    """Read the cluster, ask every instance and the gateway for their models, and compare.

    Args:
        kube: The cluster.
        options: What the user asks for.
        key: A key of the gateway, for where it serves nobody without.

    Raises:
        DecommissionError: The cluster or the gateway cannot be asked.
    """
    services = read_services(kube, options)
    target = find_target(
        Listing(services=services, pods=kube.list("Pod", options.gateway[0]), workloads=()),
        *options.gateway,
        options.cluster_domain,
    )
    listing, chosen = read(kube, options, services, target)
    instances = find_instances(listing, target, options.image, chosen)
    if not instances:
        return Plan(target=target, instances=())
    blockers = []
    if not _has_endpoints(kube, target):
        blockers.append(f"Service {target.namespace}/{target.name} has no endpoint that is ready")
    central, refused = _central(kube, options, target, key)
    compared = tuple(_compared(kube, options, central, instance) for instance in instances)
    return Plan(target=target, instances=compared, blockers=(*blockers, *refused))


def read_services(kube: Kube, options: Options) -> list[Object]:
    """Return the Services of the namespaces in question, the gateway's included."""
    if not options.namespaces:
        return kube.list("Service")
    wanted = dict.fromkeys([*options.namespaces, options.gateway[0]])
    return [service for namespace in wanted for service in kube.list("Service", namespace)]


def read(
    kube: Kube, options: Options, services: Sequence[Object], target: Target
) -> tuple[Listing, Chosen | None]:
    """Return what is needed to judge, of the namespaces that have candidates only."""
    chosen = chosen_services(kube, options)
    candidates = [s for s in services if is_candidate(s, target.namespace, chosen)]
    namespaces = sorted({service["metadata"]["namespace"] for service in candidates})
    listing = Listing(
        services=services,
        pods=[pod for name in namespaces for pod in kube.list("Pod", name)],
        workloads=[
            workload
            for name in namespaces
            for kind in WORKLOADS
            for workload in kube.list(kind, name)
        ],
        namespaces={name: kube.get("Namespace", "", name) for name in namespaces},
        policies=[
            policy
            for name in [*namespaces, target.namespace]
            for policy in kube.list("NetworkPolicy", name)
        ],
    )
    return listing, chosen


def chosen_services(kube: Kube, options: Options) -> Chosen | None:
    """Return the Services that the user's label selector selects; None where there is none."""
    if not options.selector:
        return None
    places = options.namespaces or ("",)
    found = [s for place in places for s in kube.list("Service", place, options.selector)]
    return frozenset(map(key_of, found))


def _has_endpoints(kube: Kube, target: Target) -> bool:
    selector = f"{SLICE_SERVICE}={target.name}"
    slices = kube.list("EndpointSlice", target.namespace, selector)
    endpoints = [endpoint for found in slices for endpoint in found.get("endpoints") or []]
    # An absent condition means ready (discovery.k8s.io/v1, EndpointConditions).
    return any((e.get("conditions") or {}).get("ready") is not False for e in endpoints)


def _central(
    kube: Kube, options: Options, target: Target, key: str
) -> tuple[Ollama, tuple[str, ...]]:
    def central(key: str) -> Ollama:
        where = f"the gateway ({options.gateway_url or f'{target.namespace}/{target.name}'})"
        if options.gateway_url:
            return Ollama(where, by_url(options.gateway_url, key))
        if kube.cluster.inside:
            return Ollama(where, by_url(f"http://{target.host}:{PORT}", key))
        return Ollama(where, by_proxy(kube, target.namespace, target.name, PORT, key))

    if options.callers_send_keys:
        found = central(key)
        found.tags()
        return found, ()
    anonymous = central("")
    try:
        anonymous.tags()
    except OllamaError as error:
        if error.status not in {401, 403}:
            raise
        if not key:
            raise Refusal(
                f"{anonymous.where} serves nobody without a key, and Ollama's clients send none: "
                "set gateway.auth: anonymous (with gateway.anonymousLimits), or give your "
                "applications keys, say --callers-send-keys, and set SYNAPSE_API_KEY"
            ) from None
        sentence = (
            f"{anonymous.where} serves nobody without a key, and Ollama's clients send none: set "
            "gateway.auth: anonymous, or say --callers-send-keys when yours do"
        )
        return central(key), (sentence,)
    return anonymous, ()


def _compared(kube: Kube, options: Options, central: Ollama, instance: Instance) -> Instance:
    if is_aliased(instance.service):
        return instance
    key = f"{instance.namespace}/{instance.name}"
    try:
        models = _instance(kube, options, instance).tags()
    except OllamaError as error:
        sentence = f"the models of {key} cannot be listed: {error}"
        if key in options.allow_unlisted:
            return replace(instance, notes=(*instance.notes, sentence))
        return instance.blocked(
            f"{sentence}; start it, or say where to ask (--instance-url {key}=URL), or that it "
            f"needs none of them (--allow-unlisted {key})"
        )
    missing = missing_models(models, central)
    refused = [name for name in missing if name not in options.allow_missing]
    compared = replace(instance, models=models, missing=missing)
    if not refused:
        return compared
    return compared.blocked(
        f"the gateway lacks {', '.join(refused)} of {key}: add it to its models (or as an alias of "
        "one), or do without: " + " ".join(f"--allow-missing {name}" for name in refused)
    )


def _instance(kube: Kube, options: Options, instance: Instance) -> Ollama:
    key = f"{instance.namespace}/{instance.name}"
    if key in options.instance_urls:
        return Ollama(key, by_url(options.instance_urls[key]))
    if kube.cluster.inside:
        host = f"{instance.name}.{instance.namespace}.svc.{options.cluster_domain}"
        return Ollama(key, by_url(f"http://{host}:{instance.port}"))
    return Ollama(key, by_proxy(kube, instance.namespace, instance.name, instance.port))


def render(plan: Plan) -> str:
    """Return the plan as a table, and below it what is to be said."""
    if not plan.instances:
        return "No Ollama instance in other namespaces.\n"
    rows = [HEADINGS, *(row for instance in plan.instances for row in _rows(instance))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.append(f"\nTheir names will lead to {plan.target.host}.")
    lines += [f"note: {text}" for instance in plan.instances for text in instance.notes]
    lines += [f"refused: {text}" for text in plan.refusals]
    return "\n".join(lines) + "\n"


def _rows(instance: Instance) -> Iterator[tuple[str, ...]]:
    models = "-" if instance.models is None else str(len(instance.models))
    missing = ", ".join(instance.missing) or "-"
    cells = (instance.namespace, instance.name, instance.state)
    if not instance.workloads:
        yield (*cells, "-", "-", models, missing)
    for number, workload in enumerate(instance.workloads):
        name = f"{workload['kind']}/{workload['metadata']['name']}"
        if number:
            yield ("", "", "", name, _replicas(workload), "", "")
        else:
            yield (*cells, name, _replicas(workload), models, missing)


def _replicas(workload: Object) -> str:
    noted = note(workload, REPLICAS)
    now = replicas_of(workload)
    return str(now) if noted is None else f"{now} (was {noted})"


def as_json(plan: Plan, changes: Iterable[str] = ()) -> dict[str, Any]:
    """Return the plan, and what was done of it, for `--output json`."""
    return {
        "gateway": {
            "namespace": plan.target.namespace,
            "service": plan.target.name,
            "host": plan.target.host,
        },
        "instances": [_instance_object(instance) for instance in plan.instances],
        "refused": list(plan.refusals),
        "changes": list(changes),
    }


def _instance_object(instance: Instance) -> dict[str, Any]:
    return {
        "namespace": instance.namespace,
        "service": instance.name,
        "state": instance.state,
        "clusterIP": original_spec(instance.service).get("clusterIP"),
        "workloads": [
            {
                "kind": workload["kind"],
                "name": workload["metadata"]["name"],
                "replicas": replicas_of(workload),
            }
            for workload in instance.workloads
        ],
        "models": None if instance.models is None else list(instance.models),
        "missing": list(instance.missing),
        "refused": list(instance.blockers),
        "notes": list(instance.notes),
    }


def steps(plan: Plan, drain: float) -> list[str]:
    """Return what `--apply` would do, in its order, a sentence each."""
    names = [
        f"{name_of(i.service)}: its name leads to {plan.target.host}"
        for i in plan.instances
        if not is_aliased(i.service)
    ]
    workloads = {name_of(w): w for i in plan.instances for w in i.workloads}
    stops = [
        f"{name}: {replicas_of(workload)} -> 0 replicas, {drain:g} s later"
        for name, workload in workloads.items()
        if note(workload, REPLICAS) is None
    ]
    return [*names, *stops]
