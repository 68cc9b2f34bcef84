from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import Backend, BackendType, Model, Settings, Target
from synapse_gateway.routing.table import Candidate, RouteTable
from tests.proxy.support import chat_form, request_for
from tests.routing.support import fleet_of

if TYPE_CHECKING:
    from synapse_gateway.proxy.request import ProxyRequest

NATIVE = chat_form(path="/api/chat")


def ask(kind: BackendType, **fields: object) -> tuple[ProxyRequest, Candidate]:
    settings = Settings(
        backends={"b": Backend(url="http://b", type=kind)},
        models={"m": Model(targets=(Target(backend="b"),))},
    )
    route = RouteTable(settings, fleet_of(settings)).models["m"]
    [[candidate]] = route.plan(Capability.CHAT).orders
    return request_for(route, 0.0, **fields), candidate


def test_only_an_ollama_is_asked_natively() -> None:
    request, candidate = ask(BackendType.OLLAMA, native=NATIVE)
    assert request.form_for(candidate) is NATIVE
    request, candidate = ask(BackendType.VLLM, native=NATIVE)
    assert request.form_for(candidate) is request.form


def test_without_a_native_form_all_are_asked_alike() -> None:
    request, candidate = ask(BackendType.OLLAMA)
    assert request.form_for(candidate) is request.form
