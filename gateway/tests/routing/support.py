"""Builds fleets, tables and plans without any I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_gateway.backends import adapter
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import Backend, Model, Settings, Target
from synapse_gateway.routing.fleet import BackendState, Fleet
from synapse_gateway.routing.table import RouteTable

if TYPE_CHECKING:
    from synapse_gateway.routing.table import Candidate, Plan

NOW = 1000.0


def fleet_of(settings: Settings) -> Fleet:
    fleet = Fleet()
    fleet.adopt(
        {
            name: BackendState(name, config, adapter(config.type))
            for name, config in settings.backends.items()
        }
    )
    return fleet


def backend(**fields: Any) -> Backend:
    return Backend(**{"url": "http://backend:8000", **fields})


def plan_of(
    *targets: Target,
    capability: Capability = Capability.CHAT,
    backends: dict[str, Backend] | None = None,
    **model: Any,
) -> Plan:
    """Return the plan of a model with these targets, each backend plain unless it is given."""
    given = backends or {}
    settings = Settings(
        backends={t.backend: given.get(t.backend, backend()) for t in targets},
        models={"m": Model(targets=targets, **model)},
    )
    return RouteTable(settings, fleet_of(settings)).models["m"].plan(capability)


def by_name(plan: Plan) -> dict[str, Candidate]:
    """Return a plan's candidates by the name of their backend."""
    return {c.state.backend.name: c for order in plan.orders for c in order}
