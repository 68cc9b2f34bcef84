"""The models as callers see them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from synapse_gateway.ollama_api.catalog import same_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.routing.table import ModelRoute, RouteTable

_STARTED = int(time.time())


def visible_models(table: RouteTable, caller: Caller) -> Iterator[ModelRoute]:
    """Iterate over the models that a key may see, each once."""
    return (route for route in table.models.values() if caller.allows(route.name))


def find_model(table: RouteTable, name: str) -> ModelRoute | None:
    """Look a model up by a name or an alias; Ollama's default tag may be there or not."""
    route = table.model(name)
    if route is None:
        route = next((other for same in same_names(name) if (other := table.model(same))), None)
    return route


def model_object(route: ModelRoute) -> dict[str, Any]:
    """Return a model as OpenAI's API describes it."""
    return {
        "id": route.name,
        "object": "model",
        "created": _STARTED,
        "owned_by": "synapse",
        "aliases": list(route.aliases),
    }
