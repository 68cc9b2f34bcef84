"""Generated requests for every operation of /openapi.json, right and wrong ones.

With healthy backends no input gives a 5xx; with faulty ones only 501 to 504; 500 never, and
nothing hangs. Every answer conforms to what the document declares.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.proxy.dialects import AudioDialect
from tests.contract.conftest import NAMES
from tests.contract.generated import (
    MODES,
    OPERATIONS,
    assert_no_server_error,
    explore,
    load,
    with_a_voice,
    with_recordings,
)

if TYPE_CHECKING:
    from schemathesis import Case
    from schemathesis.core.transport import Response
    from schemathesis.schemas import BaseSchema

pytestmark = [
    pytest.mark.slow,
    # the gateway's own thread draws random numbers while a strategy is at work
    pytest.mark.filterwarnings(
        "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    ),
]
UNSTREAMED = {
    path for path, route in OPENAI_ROUTES.items() if route.dialect in {None, AudioDialect}
}
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
    return load(healthy)


@pytest.fixture(scope="session")
def faulty_schema(faulty: str) -> BaseSchema:
    return load(faulty)


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
    explore(
        healthy_schema, method, path, kind, aim=partial(aim, path), judge=assert_no_server_error
    )


@each
def test_faulty_backends_show_as_what_the_contract_names(
    faulty_schema: BaseSchema, method: str, path: str, kind: str
) -> None:
    def judge(response: Response) -> None:
        status = response.status_code
        assert status < 500 or status in {501, 502, 503, 504}, f"{status} {response.text[:500]}"

    route = OPENAI_ROUTES.get(path)
    sounds = path == "/tts/stream" or path.startswith("/audio/")
    explore(
        faulty_schema,
        method,
        path,
        kind,
        aim=partial(aim, path),
        judge=judge,
        # sound that has begun cannot end with an error event
        may_break_off=sounds or (route is not None and not route.expects_json),
    )


def aim(path: str, case: Case[Any]) -> None:
    """Name a model that there is: most random names would go no further."""
    body = case.body
    with_recordings(body)
    with_a_voice(case)
    if isinstance(body, dict) and isinstance(body.get("model", ""), str | None):
        body["model"] = NAMES[len(body) % len(NAMES)]
        if path in UNSTREAMED:
            # the upstream of these tests would stream them as a chat, which no real one does
            body.pop("stream", None)
