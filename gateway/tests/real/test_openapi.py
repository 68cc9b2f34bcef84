"""Generated requests for every operation of /openapi.json, answered by the real models."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.up.plan import EMBEDDED
from tests.contract.generated import FORMS, MODES, OPERATIONS, explore, load, with_recordings

if TYPE_CHECKING:
    from schemathesis import Case
    from schemathesis.core.transport import Response
    from schemathesis.schemas import BaseSchema

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]
FEW = 4
"""Tokens that a model may make for one request."""
MODELS = {
    "/v1/embeddings": "all-minilm",
    "/v1/audio/speech": "piper",
    "/v1/audio/transcriptions": "whisper",
    "/v1/audio/translations": "whisper",
    "/api/embed": "all-minilm",
    "/api/embeddings": "all-minilm",
}
"""By path; every other is for the chat model."""
BOUNDS = {
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
}


@pytest.fixture(scope="session")
def schema(stack: Stack) -> BaseSchema:
    return load(stack.url)


NEEDS = {"/speakers/": "pyannote", "/audio/": "deepfilter", "/tts/interpolate": "openvoice"}
"""Kind of server that paths need which begin so."""
KINDS = {server.kind for server in EMBEDDED}
PATHS = [
    path
    for method, path in OPERATIONS
    if method == "post"
    # no backend takes part in the library's
    and path not in FORMS
    and all(kind in KINDS or not path.startswith(start) for start, kind in NEEDS.items())
]


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("path", PATHS)
def test_no_input_makes_real_backends_look_faulty(
    stack: Stack, schema: BaseSchema, path: str, kind: str
) -> None:
    def judge(response: Response) -> None:
        status = response.status_code
        assert status < 500 or status == 501, f"{status} {response.text[:500]}"

    headers = {"authorization": "Bearer sk-full"}
    explore(
        schema,
        "post",
        path,
        kind,
        aim=partial(aim, path),
        judge=judge,
        headers=headers,
        examples=12,
    )


def aim(path: str, case: Case[Any]) -> None:
    """Name a model that can do it, and keep it from talking for minutes."""
    body = case.body
    with_recordings(body)
    if not isinstance(body, dict):
        return
    if isinstance(body.get("model", ""), str | None):
        body["model"] = MODELS.get(path, "smollm2")
    if path in BOUNDS:
        body[BOUNDS[path]] = FEW
    elif path in OLLAMA_ROUTES and isinstance(options := body.get("options"), dict | None):
        body["options"] = {**(options or {}), "num_predict": FEW}
