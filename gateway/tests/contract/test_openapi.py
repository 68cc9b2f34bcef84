"""Generated requests for every operation of /openapi.json, right and wrong ones.

With healthy backends no input gives a 5xx; with faulty ones only 502, 503 and 504; 500 never, and
nothing hangs. Every answer conforms to what the document declares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.proxy.dialects import AudioDialect
from tests.contract.conftest import NAMES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from schemathesis import Case
    from schemathesis.schemas import BaseSchema

pytestmark = [
    pytest.mark.slow,
    # the gateway's own thread draws random numbers while a strategy is at work
    pytest.mark.filterwarnings(
        "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    ),
]
TIMEOUT = 20.0
"""Seconds after which a request counts as hung."""
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
CATALOGUE = [
    *("/health", "/livez", "/readyz", "/metrics"),
    *("/v1/models", "/v1/models/{model}", "/api/tags", "/api/ps", "/api/version"),
]
OPERATIONS = [
    *(("post", path) for path in (*OPENAI_ROUTES, *OLLAMA_ROUTES, "/api/show")),
    *(("get", path) for path in CATALOGUE),
]
UNSTREAMED = {
    path for path, route in OPENAI_ROUTES.items() if route.dialect in {None, AudioDialect}
}
MODES = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}
each = pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        pytest.param(method, path, kind, id=f"{path}-{kind}")
        for method, path in OPERATIONS
        # without a body or parameters there is nothing to do wrong
        for kind in (MODES if method == "post" else ["right"])
    ],
)


@pytest.fixture(scope="session")
def healthy_schema(healthy: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{healthy}/openapi.json")


@pytest.fixture(scope="session")
def faulty_schema(faulty: str) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{faulty}/openapi.json")


def test_every_operation_is_tried(healthy_schema: BaseSchema) -> None:
    declared = {
        (method, path)
        for path, operations in healthy_schema.raw_schema["paths"].items()
        for method in operations
    }
    assert declared == set(OPERATIONS)


@each
def test_no_input_makes_a_gateway_with_healthy_backends_fail(
    healthy_schema: BaseSchema, method: str, path: str, kind: str
) -> None:
    def statuses(status: int) -> bool:
        return status < 500

    explore(healthy_schema, method, path, kind, statuses)


@each
def test_faulty_backends_show_as_what_the_contract_names(
    faulty_schema: BaseSchema, method: str, path: str, kind: str
) -> None:
    def statuses(status: int) -> bool:
        return status < 500 or status in {502, 503, 504}

    opaque = {path for path, route in OPENAI_ROUTES.items() if not route.expects_json}
    explore(faulty_schema, method, path, kind, statuses, opaque)


def explore(
    schema: BaseSchema,
    method: str,
    path: str,
    kind: str,
    allowed: Callable[[int], bool],
    opaque: Collection[str] = (),
) -> None:
    """Send what hypothesis makes of an operation's schema."""

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=schema[path][method].as_strategy(generation_mode=MODES[kind]))
    def send(case: Case[Any]) -> None:
        aim(case, path)
        try:
            response = case.call(timeout=TIMEOUT)
        except requests.exceptions.ChunkedEncodingError:
            # sound that has begun cannot end with an error event: it breaks off
            assert path in opaque
            return
        reached.append("x-synapse-attempts" in response.headers)
        assert allowed(response.status_code), f"{response.status_code} {response.text[:500]}"
        case.validate_response(response, checks=CONFORMANCE)

    reached: list[bool] = []
    send()
    assert any(reached) or kind == "wrong" or path not in {*OPENAI_ROUTES, *OLLAMA_ROUTES}


def aim(case: Case[Any], path: str) -> None:
    """Name a model that there is: most random names would go no further."""
    body = case.body
    if isinstance(body, dict) and isinstance(body.get("model", ""), str | None):
        body["model"] = NAMES[len(body) % len(NAMES)]
        if path in UNSTREAMED:
            # the upstream of these tests would stream them as a chat, which no real one does
            body.pop("stream", None)
