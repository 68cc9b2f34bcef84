"""Carries a plan out, and undoes it. The order is what keeps requests from being lost.

Apply: every name first, then the drain, then the pods. While it drains, connections to an old
address still reach the old pods; new ones go by the name, to the gateway.
Undo: the pods first; when one is ready, the name goes back to the address that was kept for it.

Each step changes one object in one request, with its note in it: a run that is cut anywhere is
continued by the same command, or undone. Every patch names the version of the object it was made
from; a conflict is looked at again, and is only then repeated when nobody changed what counts.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from synapse_gateway.decommission.changes import (
    CONTROLLER,
    FOR,
    MADE,
    REPLICAS,
    SLICE_MANAGER,
    SLICE_SERVICE,
    address_name,
    address_service,
    alias_patch,
    bridges,
    changed_by_others,
    drain_left,
    is_aliased,
    is_ours,
    name_of,
    note,
    original_spec,
    replicas_of,
    restore_patch,
    scale_down_patch,
    scale_up_patch,
)
from synapse_gateway.decommission.errors import KubeError, Refusal
from synapse_gateway.decommission.find import Instance, key_of, leads_to
from synapse_gateway.decommission.plan import WORKLOADS, chosen_services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_gateway.decommission.kube import Kube, Object
    from synapse_gateway.decommission.plan import Options, Plan

TRIES = 5
"""How often a change is tried against a controller that writes the object's status meanwhile."""
ENDPOINTS_WAIT = 15.0
"""Seconds for the controller to write the endpoints of a Service that has just got an address."""
POLL = 0.5
"""Seconds between two looks."""


class Run:
    """One run of the command.

    Args:
        kube: The cluster.
        options: What the user asks for.
        say: Gets a line for each change.
        sleep: Waits some seconds.
        now: Tells the time.
    """

    def __init__(
        self,
        kube: Kube,
        options: Options,
        say: Callable[[str], None],
        sleep: Callable[[float], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._options = options
        self._say = say
        self._sleep = sleep
        self._now = now
        self.changes: list[str] = []
        """What was done, a sentence each."""

    def apply(self, plan: Plan) -> None:
        """Carry a plan out, from wherever an earlier run has left it.

        Raises:
            Refusal: Something stands against it; the first step that did was the last.
        """
        if plan.refusals:
            raise Refusal("\n".join([*plan.refusals, "nothing was changed"]))
        aliased = [self._alias(instance, plan.target.host) for instance in plan.instances]
        workloads = _each_once(w for instance in plan.instances for w in instance.workloads)
        if any(note(workload, REPLICAS) is None for workload in workloads):
            self._drain(aliased)
        for service in aliased:
            self._still_aliased(service)
        for workload in workloads:
            self._scale_down(workload)
        for service in aliased:
            for bridge in self._bridges_of(service["metadata"]["namespace"], _address_of(service)):
                self._kube.delete(bridge)

    def undo(self) -> list[str]:
        """Put everything back, as far as others have let it be.

        Returns:
            What could not be put back, a sentence each.
        """
        refused: list[str] = []
        services, workloads = self._noted()
        for workload in workloads:
            try:
                self._scale_up(workload)
            except Refusal as error:
                refused.append(str(error))
        for service in services:
            try:
                restore_patch(service)  # refuses before anything of it is touched
                self._restore(service, has_pods=self._await_pods(service))
            except Refusal as error:
                refused.append(str(error))
        self._sweep()
        return refused

    def undo_steps(self) -> list[str]:
        """Return what `undo` would do, a sentence each."""
        services, workloads = self._noted()
        scaled = [f"{name_of(w)}: back to {note(w, REPLICAS)} replicas" for w in workloads]
        named = [
            changed_by_others(s) or f"{name_of(s)}: {_address_text(original_spec(s))}"
            for s in services
        ]
        return [*scaled, *named]

    def _done(self, sentence: str) -> None:
        self.changes.append(sentence)
        self._say(sentence)

    # apply

    def _alias(self, instance: Instance, host: str) -> Object:
        service = instance.service
        namespace, keeper = instance.namespace, address_service(service)
        if not is_aliased(service):
            if keeper is not None:
                self._bridge(namespace, instance.name, keeper["metadata"]["name"])
            service = self._change(service, lambda found: alias_patch(found, host, self._now()))
            self._done(f"{name_of(service)}: its name leads to {host}")
        if keeper is None or self._exists(keeper):
            return service
        try:
            self._kube.create(keeper)
        except KubeError as error:
            if error.status != 422:
                raise
            self._say(f"{name_of(service)}: its old address is taken already ({error})")
            return service
        address = keeper["spec"]["clusterIP"]
        self._done(f"{name_of(keeper)}: keeps the address {address} in front of the old pods")
        self._await_endpoints(namespace, keeper["metadata"]["name"])
        return service

    def _drain(self, services: Iterable[Object]) -> None:
        left = drain_left(services, self._options.drain, self._now())
        if left > 0:
            self._say(f"the old pods are stopped in {left:.0f} s; callers may have their address")
            self._sleep(left)

    def _still_aliased(self, service: Object) -> None:
        fresh = self._kube.get("Service", *key_of(service))
        if not is_aliased(fresh):
            raise Refusal(f"{name_of(service)} is no alias any more; nothing of it was stopped")
        changed = changed_by_others(fresh)
        if changed is not None:
            raise Refusal(changed)

    def _scale_down(self, workload: Object) -> None:
        fresh = self._kube.get(workload["kind"], *key_of(workload))
        if note(fresh, REPLICAS) is None and _what_counts(fresh) != _what_counts(workload):
            raise Refusal(_changed_since_plan(workload))
        scaled = self._change(fresh, scale_down_patch)
        if scaled is not fresh:
            self._done(f"{name_of(workload)}: {note(scaled, REPLICAS)} -> 0 replicas")

    # undo

    def _noted(self) -> tuple[list[Object], list[Object]]:
        """Return the aliases, and the workloads that were stopped, that the options select."""
        places = self._options.namespaces or ("",)
        chosen = chosen_services(self._kube, self._options)
        services = [
            service
            for place in places
            for service in self._kube.list("Service", place)
            if is_aliased(service) and (chosen is None or key_of(service) in chosen)
        ]
        workloads = [
            workload
            for place in places
            for kind in WORKLOADS
            for workload in self._kube.list(kind, place)
            if note(workload, REPLICAS) is not None
            and (chosen is None or any(leads_to(service, workload) for service in services))
        ]
        return services, workloads

    def _scale_up(self, workload: Object) -> None:
        was = replicas_of(workload)
        scaled = self._change(workload, scale_up_patch)
        if replicas_of(scaled) != was:
            self._done(f"{name_of(workload)}: {was} -> {replicas_of(scaled)} replicas")

    def _await_pods(self, service: Object) -> bool:
        """Wait until a pod is ready; return whether there is to be any."""
        namespace = service["metadata"]["namespace"]
        wanted: list[Object] = []

        def ready() -> bool:
            all_there = (w for kind in WORKLOADS for w in self._kube.list(kind, namespace))
            wanted[:] = [w for w in all_there if leads_to(service, w) and replicas_of(w)]
            return not wanted or any(_is_ready(workload) for workload in wanted)

        if not self._until(ready, self._options.timeout):
            raise Refusal(
                f"{name_of(service)}: none of its pods is ready after {self._options.timeout:g} s; "
                "its name still leads to the gateway; find out why, and run --undo again"
            )
        return bool(wanted)

    def _restore(self, service: Object, *, has_pods: bool) -> None:
        namespace, name = key_of(service)
        keeper = address_service(service)
        if keeper is not None and self._exists(keeper):
            if has_pods:
                self._has_endpoints(namespace, keeper["metadata"]["name"])
            self._bridge(namespace, keeper["metadata"]["name"], name)
            self._kube.delete(keeper)
        try:
            restored = self._change(service, restore_patch)
        except KubeError as error:
            if error.status != 422 or keeper is None:
                raise
            restored = self._change(service, lambda s: restore_patch(s, with_address=False))
            self._say(f"{name_of(service)}: its address was taken meanwhile; it got a new one")
        self._done(f"{name_of(service)}: {_address_text(restored['spec'])}")
        if keeper is not None:
            self._await_endpoints(namespace, name)

    def _sweep(self) -> None:
        """Delete what was made for Services that are no aliases (any more)."""
        for place in self._options.namespaces or ("",):
            aliases = {key_of(s) for s in self._kube.list("Service", place) if is_aliased(s)}
            kept = {(namespace, address_name(name)) for namespace, name in aliases}
            for made in self._kube.list("Service", place, f"{MADE}=address"):
                owner = (made["metadata"]["namespace"], note(made, FOR))
                if owner not in aliases and self._options.selector == "":
                    self._kube.delete(made)
                    self._done(f"{name_of(made)}: deleted")
            for made in self._kube.list("EndpointSlice", place, f"{MADE}=bridge"):
                service = made["metadata"]["labels"].get(SLICE_SERVICE)
                if (made["metadata"]["namespace"], service) not in kept:
                    self._kube.delete(made)

    # both

    def _change(self, planned: Object, patch_of: Callable[[Object], Object | None]) -> Object:
        """Patch an object unless others have changed what counts of it since it was read."""
        thing = planned
        for _ in range(TRIES):
            patch = patch_of(thing)
            if patch is None:
                return thing
            try:
                return self._kube.patch(thing, patch)
            except KubeError as error:
                if error.status not in {404, 409}:
                    raise
                thing = self._again(planned)
        raise Refusal(f"{name_of(planned)} is being changed all the time; run this again")

    def _again(self, planned: Object) -> Object:
        try:
            fresh = self._kube.get(planned["kind"], *key_of(planned))
        except KubeError as error:
            if error.status != 404:
                raise
            raise Refusal(f"{name_of(planned)} was deleted by others meanwhile") from None
        if _what_counts(fresh) != _what_counts(planned):
            raise Refusal(_changed_since_plan(planned))
        return fresh

    def _exists(self, thing: Object) -> bool:
        try:
            found = self._kube.get(thing["kind"], *key_of(thing))
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        if not is_ours(found):
            raise Refusal(f"{name_of(thing)} is not of this command; rename or remove it first")
        return True

    def _bridge(self, namespace: str, from_service: str, to_service: str) -> None:
        slices = self._kube.list("EndpointSlice", namespace, f"{SLICE_SERVICE}={from_service}")
        for bridge in bridges(slices, to_service):
            try:
                self._kube.create(bridge)
            except KubeError as error:
                if error.status != 409:  # an earlier run has made it
                    raise

    def _bridges_of(self, namespace: str, service: str) -> list[Object]:
        selector = f"{SLICE_SERVICE}={service},{MADE}=bridge"
        return self._kube.list("EndpointSlice", namespace, selector)

    def _await_endpoints(self, namespace: str, service: str) -> None:
        """Let the bridge stand until the Service has endpoints of its own."""
        bridge = self._bridges_of(namespace, service)
        if not bridge:
            return
        if not self._has_endpoints(namespace, service):
            self._say(f"Service {namespace}/{service}: has no endpoints of its own yet; kept ours")
            return
        for made in bridge:
            self._kube.delete(made)

    def _has_endpoints(self, namespace: str, service: str) -> bool:
        """Wait a little for the endpoints that the controller writes; False if there are none."""
        selector = f"{SLICE_SERVICE}={service},{SLICE_MANAGER}={CONTROLLER}"

        def written() -> bool:
            slices = self._kube.list("EndpointSlice", namespace, selector)
            return any(found.get("endpoints") for found in slices)

        return self._until(written, min(ENDPOINTS_WAIT, self._options.timeout))

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        start = self._now()
        while not condition():
            if (self._now() - start).total_seconds() >= seconds:
                return False
            self._sleep(POLL)
        return True


def _each_once(workloads: Iterable[Object]) -> list[Object]:
    return list({name_of(workload): workload for workload in workloads}.values())


def _what_counts(thing: Object) -> Object:
    # An autoscaler may change the replicas at any time; that is no change of what the thing is.
    return {key: value for key, value in thing["spec"].items() if key != "replicas"}


def _changed_since_plan(thing: Object) -> str:
    return f"{name_of(thing)} was changed by others since the plan was made; run this again"


def _is_ready(workload: Object) -> bool:
    status = workload.get("status") or {}
    # A status of before the last change still counts the pods of before it.
    current = status.get("observedGeneration", 0) >= workload["metadata"].get("generation", 0)
    return current and int(status.get("readyReplicas") or 0) > 0


def _address_of(service: Object) -> str:
    return address_name(service["metadata"]["name"])


def _address_text(spec: Object) -> str:
    return f"its name leads to its own pods again (ClusterIP {spec.get('clusterIP')})"
