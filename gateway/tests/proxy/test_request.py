from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import Backend, BackendType, Model, Settings, Target
from synapse_gateway.routing.table import Candidate, RouteTable
from tests.proxy.support import chat_form, request_for
from tests.routing.support import fleet_of

if TYPE_CHECKING:
    from synapse_gateway.proxy.request import Form, ProxyRequest
    from synapse_gateway.routing.fleet import BackendState

NATIVE = chat_form(path="/api/chat")
TRANSLATED = chat_form()


def ask(kind: BackendType, **fields: object) -> tuple[ProxyRequest, Candidate]:
    settings = Settings(
        backends={"b": Backend(url="http://b", type=kind)},
        models={"m": Model(targets=(Target(backend="b"),))},
    )
    route = RouteTable(settings, fleet_of(settings)).models["m"]
    [[candidate]] = route.plan(Capability.CHAT).orders
    return request_for(route, 0.0, **fields), candidate


def test_each_backend_can_be_asked_in_its_own_way() -> None:
    def choose_form(backend: BackendState) -> Form:
        return NATIVE if backend.config.type is BackendType.OLLAMA else TRANSLATED

    request, candidate = ask(BackendType.OLLAMA, choose_form=choose_form)
    assert request.form_for(candidate) is NATIVE
    request, candidate = ask(BackendType.VLLM, choose_form=choose_form)
    assert request.form_for(candidate) is TRANSLATED


def test_else_all_are_asked_alike() -> None:
    request, candidate = ask(BackendType.OLLAMA)
    assert request.form_for(candidate) is request.form
