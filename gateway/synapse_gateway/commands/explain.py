"""`synapse routes explain`: what the gateway would do with a request, and why.

The request goes through the same code as in the gateway, over a route table of the file alone: no
backend is asked, so models that only a backend lists, and what is busy or down, are unknown here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec
from starlette.routing import Match

from synapse_gateway.api.audio import AUDIO_ROUTES
from synapse_gateway.api.gateway import HOT_PATHS
from synapse_gateway.api.http import make_app
from synapse_gateway.api.ollama import OLLAMA_ROUTES, prepare_ollama
from synapse_gateway.api.prepare import Resolver, prepare_json
from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.api.speech import SPEECH_ROUTES
from synapse_gateway.auth.keys import ANONYMOUS, Caller
from synapse_gateway.backends import adapter
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.findings import suggest
from synapse_gateway.config.settings import AutoRule, KeyLimits, Policy
from synapse_gateway.errors import ConfigError, InvalidRequest, RequestError, RouteNotFound
from synapse_gateway.routing.fleet import BackendState, Fleet
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.telemetry.record import RequestRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Scope

    from synapse_gateway.api.call import Call
    from synapse_gateway.api.gateway import Gateway
    from synapse_gateway.config import Settings
    from synapse_gateway.routing.table import Candidate, ModelRoute

DEFAULT_PATH = "/v1/chat/completions"
_UNKNOWN = "as configured; which backends are busy, asleep or down now is not looked at"


class _Request(NamedTuple):
    """A request as far as the gateway's preparation reads it."""

    path: str
    body: bytes
    headers: dict[bytes, bytes]


def parse_request(text: str) -> tuple[str, bytes]:
    """Return the path and body of a request that somebody typed.

    Args:
        text: `[METHOD] [PATH] [JSON]`, or `@FILE` that holds the same; without a path it is a chat.

    Raises:
        ConfigError: The file cannot be read.
    """
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{text[1:]}: cannot be read: {error}") from error
    text = re.sub("^(GET|HEAD|POST) +", "", text.strip())
    if text.startswith("{"):
        return DEFAULT_PATH, text.encode()
    path, brace, body = text.partition("{")
    return path.strip(), (brace + body).encode() or b"{}"


def explain(settings: Settings, text: str, key: str | None = None) -> tuple[str, bool]:
    """Say where a request goes.

    Args:
        settings: The configuration.
        text: The request, as `parse_request` takes it.
        key: Name of the caller's key; None is a caller who may use everything.

    Returns:
        Lines to print, and whether the request would be served at all.

    Raises:
        ConfigError: There is no such key.
    """
    path, body = parse_request(text)
    fleet = Fleet()
    fleet.adopt(
        {
            name: BackendState(name, config, adapter(config.type))
            for name, config in settings.backends.items()
        }
    )
    table = RouteTable(settings, fleet)
    record = RequestRecord(id="", method="POST", route=path, started=0.0, started_unix=0.0)
    try:
        route, capability = _resolve(table, _caller(settings, key), path, body, record)
    except RequestError as error:
        return f"refused: {error.status} {error.code or error.kind}: {error.message}\n", False
    if route is None:
        return "no backend: the gateway answers this itself\n", True
    lines = list(_lines(table, route, capability, record))
    return "\n".join([*lines, f"({_UNKNOWN})", ""]), True


def _caller(settings: Settings, key: str | None) -> Caller:
    if key is None:
        return Caller.build(ANONYMOUS, KeyLimits())
    if key not in settings.keys:
        raise ConfigError(f"--key: unknown key {key!r}; {suggest(key, settings.keys)}")
    return Caller.build(key, settings.keys[key], group=settings.keys[key].group)


def _resolve(
    table: RouteTable, caller: Caller, path: str, body: bytes, record: RequestRecord
) -> tuple[ModelRoute | None, Capability | None]:
    """Return what serves a request, and what it asks for if the path says that.

    Nothing serves what the gateway answers itself.

    Raises:
        RequestError: The gateway would refuse it.
    """
    resolver = Resolver(table, caller, record)
    hot = OPENAI_ROUTES.get(path)
    if hot is not None and hot.body is not None:
        request = prepare_json(hot, body, {}, resolver, caller, record)
        return request.route, request.capability
    if hot is not None:
        asked = _model_of(body)
        return resolver.resolve(asked, path, hot.capability, None), hot.capability
    if path in OLLAMA_ROUTES:
        call = cast("Call", _Request(path, body, {}))
        prepared = prepare_ollama(call, resolver, caller, record)
        if isinstance(prepared, bytes):
            return None, None
        return prepared.route, prepared.capability
    capability = _NAMELESS.get(path)
    if capability is not None:
        return resolver.service(path, capability), capability
    route = table.path(path)
    if route is None and _is_answered_here(path):
        return None, None
    if route is None:
        known = dict.fromkeys((*OPENAI_ROUTES, *OLLAMA_ROUTES, *_NAMELESS, *table.settings.routes))
        raise RouteNotFound(f"no route has the path {path!r}; {suggest(path, known)}")
    return route, None


def _is_answered_here(path: str) -> bool:
    """Say whether the gateway has an answer of its own: lists, descriptions, health."""
    # nobody is asked, so no gateway is needed
    app = make_app(cast("Gateway", None))
    asks: list[Scope] = [{"type": "http", "method": "GET", "path": path, "headers": []}]
    asks.append({**asks[0], "method": "POST"})
    return path not in HOT_PATHS and any(
        route.matches(ask)[0] is Match.FULL for route in app.routes for ask in asks
    )


_NAMELESS: dict[str, Capability] = {
    **{path: route.capability for path, route in AUDIO_ROUTES.items()},
    **dict.fromkeys(SPEECH_ROUTES, Capability.SPEECH),
    "/tts/interpolate": Capability.INTERPOLATION,
}
"""Paths whose requests name no model, and what they ask for."""


def _model_of(body: bytes) -> str | None:
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The body is not a JSON object: {error}") from None
    model = fields.get("model")
    return model if isinstance(model, str) else None


def _lines(
    table: RouteTable, route: ModelRoute, capability: Capability | None, record: RequestRecord
) -> Iterator[str]:
    if record.auto_rule:
        yield f"automatic choice: {_rule(table.settings.auto.rules, record.auto_rule)}"
    if route.name:
        asked = record.model_asked
        note = f" ({asked!r} is an alias of it)" if asked in route.aliases else ""
        yield f"model: {route.name}{note}"
    else:
        yield f"no model of the table: the route of the path {record.route} serves it"
    if capability is None:
        yield from (f"  backend {state.backend.name}" for state in route.states)
        return
    plan = route.plan(capability)
    yield f"targets, by {_policy(plan.policy)} within an order:"
    for order in plan.orders:
        for candidate in order:
            yield f"  {_target(candidate)}"
    chosen = {candidate.state for candidate in plan.candidates}
    for state in route.states:
        if state not in chosen:
            reason = _why_not(state.backend, capability)
            yield f"  not {state.backend.name}: {reason}"
    for name in route.config.fallbacks:
        yield f"then model {name}"
    if route.config.context_fallback is not None:
        yield f"if the prompt does not fit: model {route.config.context_fallback}"
    yield f"at most {route.attempts} attempts within {plan.overall:g} s"


def _rule(rules: tuple[AutoRule, ...], name: str) -> str:
    rule = next((rule for rule in rules if rule.name == name), None)
    if rule is None:
        return "no rule holds, so the default"
    given = msgspec.to_builtins(rule)
    conditions = [
        f"{field} {_value(value)}"
        for field, value in given.items()
        if field not in ("name", "model")
    ]
    return f"rule {name!r} holds ({'; '.join(conditions) or 'it has no condition'})"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list | tuple) else str(value)


def _policy(policy: Policy) -> str:
    return {
        Policy.LEAST_OUTSTANDING: "the least outstanding work",
        Policy.PREFIX_AFFINITY: "the prompt's beginning",
    }[policy]


def _target(candidate: Candidate) -> str:
    state = candidate.state
    config = state.backend.config
    there = f" as {state.model}" if state.model else ""
    facts = [config.type.value]
    if config.device is not None:
        facts.append(config.device.value)
    if candidate.weight != 1:
        facts.append(f"weight {candidate.weight:g}")
    facts.append(f"first token within {candidate.timeouts.first_token:g} s")
    return f"{candidate.order}. {state.backend.name}{there} ({', '.join(facts)})"


def _why_not(backend: BackendState, capability: Capability) -> str:
    if capability not in backend.adapter.capabilities:
        return f"a backend of type {backend.config.type.value} cannot do this ({capability.value})"
    return "it does not declare the same weights as the first target"
