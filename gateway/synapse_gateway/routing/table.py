"""The route table: which targets may serve a request, in which order.

A table is built from the settings and the fleet and never changes afterwards; a reload or a newly
discovered model makes a new one. What changes from second to second is in `routing.fleet`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.backends.base import Capability
from synapse_gateway.config.defaults import ResolvedTimeouts, effective_timeouts
from synapse_gateway.config.settings import (
    BackendType,
    Device,
    Model,
    Policy,
    Queue,
    Service,
    Target,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_gateway.config.settings import Route, Settings
    from synapse_gateway.routing.fleet import BackendState, Fleet, TargetState

SERVICE_OF: dict[Capability, Service] = {
    Capability.CHAT: Service.LLM,
    Capability.COMPLETIONS: Service.LLM,
    Capability.RESPONSES: Service.LLM,
    Capability.MESSAGES: Service.LLM,
    Capability.COUNT_TOKENS: Service.OTHER,
    Capability.EMBEDDINGS: Service.EMBEDDINGS,
    Capability.RERANK: Service.EMBEDDINGS,
    Capability.SPEECH: Service.TTS,
    Capability.TRANSCRIPTIONS: Service.STT,
    Capability.TRANSLATIONS: Service.STT,
    Capability.TRANSCRIBE: Service.STT,
    Capability.DIARIZATION: Service.SPEAKER,
    Capability.VERIFICATION: Service.SPEAKER,
    Capability.DENOISING: Service.AUDIO,
    Capability.CONVERSION: Service.AUDIO,
    Capability.CLONING: Service.TTS,
    Capability.INTERPOLATION: Service.TTS,
}

_ORDER = {
    BackendType.CHATTERBOX: 1,
    BackendType.OPENVOICE: 2,
    BackendType.PIPER: 3,
    BackendType.FASTER_WHISPER: 1,
}
_LAST = 4
"""Order of the kinds of backends among those that can do the same: for speech the better voice
first, for all else the server that is made for it."""


class Candidate:
    """A target as one plan sees it."""

    __slots__ = ("cap", "order", "state", "timeouts", "weight")

    def __init__(self, state: TargetState, target: Target, timeouts: ResolvedTimeouts) -> None:
        self.state = state
        self.order = target.order
        self.weight = target.weight
        self.cap = target.max_in_flight
        self.timeouts = timeouts

    def __repr__(self) -> str:
        return f"<order {self.order} {self.state!r}>"


class Plan(NamedTuple):
    """The candidates of one model for one kind of request, a tuple an order."""

    orders: tuple[tuple[Candidate, ...], ...]
    policy: Policy
    overall: float
    """Seconds that the whole request may take."""

    @property
    def candidates(self) -> list[Candidate]:
        """All of them, by order."""
        return [candidate for order in self.orders for candidate in order]

    def narrowed(self, wanted: Callable[[Candidate], bool]) -> Plan:
        """Return the plan with some of its candidates only."""
        orders = (tuple(filter(wanted, order)) for order in self.orders)
        return self._replace(orders=tuple(order for order in orders if order))


class ModelRoute:
    """A model that callers can name."""

    __slots__ = ("_plans", "aliases", "attempts", "config", "discovered", "name", "queue", "states")

    def __init__(
        self,
        name: str,
        config: Model,
        states: tuple[TargetState, ...],
        *,
        attempts: int,
        queue: Queue,
        discovered: bool = False,
    ) -> None:
        self.name = name
        self.config = config
        self.aliases = config.aliases
        self.states = states
        self.attempts = config.attempts or attempts
        self.queue = config.queue or queue
        self.discovered = discovered
        self._plans: dict[Capability, Plan] = {}

    def plan(self, capability: Capability) -> Plan:
        """Return the candidates for a kind of request; no orders if none of them can do it."""
        plan = self._plans.get(capability)
        if plan is None:
            plan = self._plans[capability] = self._make_plan(capability)
        return plan

    def _make_plan(self, capability: Capability) -> Plan:
        declared = self.config.service
        # Ollama's own API serves whatever the model is for
        service = SERVICE_OF.get(capability) or declared or Service.LLM
        pairs = (
            []
            if declared is not None and service not in (declared, Service.OTHER)
            else self._able(capability)
        )
        if service is Service.EMBEDDINGS:
            pairs = _of_the_same_weights(pairs)
        orders: dict[int, list[Candidate]] = {}
        for target, state in pairs:
            backend = state.backend.config
            timeouts = effective_timeouts(
                service, backend.device, self.config.timeouts, backend.timeouts
            )
            orders.setdefault(target.order, []).append(Candidate(state, target, timeouts))
        ranked = tuple(tuple(orders[order]) for order in sorted(orders))
        longest = max((c.timeouts.overall for group in ranked for c in group), default=60.0)
        return Plan(ranked, self.config.policy, longest)

    def _able(self, capability: Capability) -> list[tuple[Target, TargetState]]:
        return [
            (target, state)
            for target, state in zip(self.config.targets, self.states, strict=True)
            if _can(state, capability)
        ]


def _can(state: TargetState, capability: Capability) -> bool:
    known = state.backend.known(state.model)
    if known is not None and known.capabilities:
        return capability in known.capabilities
    return capability in state.backend.adapter.capabilities


def _of_the_same_weights(
    pairs: list[tuple[Target, TargetState]],
) -> list[tuple[Target, TargetState]]:
    """Vectors of different weights do not compare: keep the first target and its declared twins."""
    if len(pairs) < 2:
        return pairs
    first = min(pairs, key=lambda pair: pair[0].order)
    weights = first[0].weights
    if weights is None:
        return [first]
    return [pair for pair in pairs if pair[0].weights == weights]


class RouteTable:
    """Everything that a request's model and path are looked up in."""

    def __init__(self, settings: Settings, fleet: Fleet) -> None:
        self.settings = settings
        self.models: dict[str, ModelRoute] = {}
        """By name, in the order of the file; discovered models follow."""
        self._by_name: dict[str, ModelRoute] = {}
        self._prefixes: list[tuple[str, Route]] = []
        self._path_routes: dict[str, ModelRoute] = {}
        self._services: dict[Capability, ModelRoute] = {}
        self._fleet = fleet
        for name, model in settings.models.items():
            self._add(name, model, fleet)
        self._add_discovered(fleet)
        for path, route in settings.routes.items():
            self._add_path(path, route)
        self._prefixes.sort(key=lambda pair: len(pair[0]), reverse=True)

    def model(self, name: str) -> ModelRoute | None:
        """Find a model by its name or an alias."""
        return self._by_name.get(name)

    def path(self, path: str) -> ModelRoute | None:
        """Find what serves a path for models that are in no table."""
        found = self._path_routes.get(path)
        if found is None:
            for prefix, _ in self._prefixes:
                if path.startswith(prefix):
                    return self._path_routes[prefix]
        return found

    def service(self, path: str, capability: Capability) -> ModelRoute | None:
        """Find what serves a path whose requests name no model.

        What the configuration says of the path; else every backend that is made for it, the better
        kinds first; else the first model that is declared for the service.
        """
        named = self.path(path)
        if named is not None:
            return named if named.plan(capability).orders else None
        route = self._services.get(capability)
        if route is None:
            route = self._services[capability] = self._made_for(capability)
        if route.plan(capability).orders:
            return route
        service = SERVICE_OF[capability]
        return next(
            (
                model
                for model in self.models.values()
                if model.config.service is service and model.plan(capability).orders
            ),
            None,
        )

    def names(self) -> Iterable[str]:
        """Return the names of all models, aliases left out."""
        return self.models.keys()

    def offers(self, capability: Capability) -> bool:
        """Say whether any model can be asked for this."""
        routes = (*self.models.values(), *self._path_routes.values())
        return any(route.plan(capability).orders for route in routes)

    def _add(self, name: str, model: Model, fleet: Fleet, *, discovered: bool = False) -> None:
        limits = self.settings.limits
        states = tuple(
            fleet.target(fleet.backends[t.backend], t.model or name, limits.breaker)
            for t in model.targets
        )
        route = ModelRoute(
            name,
            model,
            states,
            attempts=limits.attempts,
            queue=limits.queue,
            discovered=discovered,
        )
        self.models[name] = route
        for known in (name, *model.aliases):
            self._by_name.setdefault(known, route)

    def _add_discovered(self, fleet: Fleet) -> None:
        """Make models that only the backends know callable under the names that they use."""
        serving = {
            (state.backend.name, state.model): route
            for route in self.models.values()
            for state in route.states
        }
        found: dict[str, list[BackendState]] = {}
        for backend in fleet.backends.values():
            for name in backend.models:
                route = serving.get((backend.name, name)) or serving.get(
                    # Ollama lists one that is named without a tag as `:latest`
                    (backend.name, name.removesuffix(":latest"))
                )
                if route is not None:
                    self._by_name.setdefault(name, route)
                elif name not in self._by_name:
                    found.setdefault(name, []).append(backend)
        for name, backends in found.items():
            if name not in self._by_name:
                targets = tuple(
                    Target(
                        backend=b.name,
                        model=name,
                        order=1 if b.config.device is Device.GPU or not _any_gpu(backends) else 2,
                    )
                    for b in backends
                )
                self._add(name, Model(targets=targets), fleet, discovered=True)

    def _add_path(self, path: str, route: Route) -> None:
        key = path if path.startswith("/") else f"/{path}"
        if key.endswith("*"):
            key = key[:-1]
            self._prefixes.append((key, route))
        if route.model is not None:
            self._path_routes[key] = self.models[route.model]
            return
        assert route.backend is not None  # noqa: S101 - the loader refuses a route to nowhere
        self._path_routes[key] = self._nameless(
            Model(
                # without a model of its own, the caller's is passed on
                targets=(Target(backend=route.backend),),
                rewrite_model=route.rewrite_model,
                timeouts=route.timeouts,
            )
        )

    def _made_for(self, capability: Capability) -> ModelRoute:
        """Make the route to every backend that does nothing but such things."""
        targets: list[Target] = []
        for state in self._fleet.backends.values():
            able = state.adapter.capabilities
            if capability not in able or Capability.CHAT in able:
                continue
            models = [m.id for m in state.models.values() if capability in m.capabilities]
            order = _ORDER.get(state.config.type, _LAST)
            targets.append(
                Target(backend=state.name, model=models[0] if models else None, order=order)
            )
        return self._nameless(Model(targets=tuple(targets)))

    def _nameless(self, model: Model) -> ModelRoute:
        limits = self.settings.limits
        states = tuple(
            self._fleet.target(self._fleet.backends[t.backend], t.model or "", limits.breaker)
            for t in model.targets
        )
        return ModelRoute("", model, states, attempts=limits.attempts, queue=limits.queue)


def _any_gpu(backends: list[BackendState]) -> bool:
    return any(backend.config.device is Device.GPU for backend in backends)
