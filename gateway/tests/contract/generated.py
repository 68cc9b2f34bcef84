"""Requests that hypothesis makes of an operation's schema, and what their answers must be like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from synapse_gateway.api.audio import AUDIO_ROUTES
from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.api.speech import SPEECH_ROUTES
from synapse_gateway.testing.answers import wav

if TYPE_CHECKING:
    from collections.abc import Callable

    from schemathesis import Case
    from schemathesis.core.transport import Response
    from schemathesis.schemas import BaseSchema

TIMEOUT = 20.0
"""Seconds after which a request counts as hung."""
CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
CATALOGUE = [
    *("/health", "/livez", "/readyz", "/metrics"),
    *("/v1/models", "/v1/models/{model}", "/api/tags", "/api/ps", "/api/version"),
    *("/voices", "/voices/{voice_id}", "/voices/{voice_id}/export", "/tts/languages"),
]
FORMS = ("/voices", "/voices/import", "/voices/{voice_id}/references")
HOT_PATHS = (*OPENAI_ROUTES, *OLLAMA_ROUTES, *AUDIO_ROUTES, *SPEECH_ROUTES)
OPERATIONS = [
    *(("post", path) for path in (*HOT_PATHS, "/api/show", *FORMS)),
    ("delete", "/voices/{voice_id}"),
    *(("get", path) for path in CATALOGUE),
]
MODES = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}


def explore(
    schema: BaseSchema,
    method: str,
    path: str,
    kind: str,
    *,
    aim: Callable[[Case[Any]], None],
    judge: Callable[[Response], None],
    examples: int = 25,
    may_break_off: bool = False,
    headers: dict[str, str] | None = None,
) -> None:
    """Send what hypothesis makes of an operation's schema.

    Args:
        schema: The gateway's own document.
        method: HTTP method.
        path: Path, as the document has it.
        kind: `right` for requests by the schema, `wrong` for such that break it.
        aim: Changes a request so that it goes further than a random one would.
        judge: Asserts on an answer beyond its conformance.
        examples: How many are sent.
        may_break_off: Whether an answer may end within its body.
        headers: Sent with each.
    """

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    @given(case=schema[path][method].as_strategy(generation_mode=MODES[kind]))
    def send(case: Case[Any]) -> None:
        aim(case)
        try:
            response = case.call(timeout=TIMEOUT, headers=headers)
        except requests.exceptions.ChunkedEncodingError:
            assert may_break_off
            return
        reached.append("x-synapse-attempts" in response.headers)
        judge(response)
        case.validate_response(response, checks=CONFORMANCE)

    reached: list[bool] = []
    send()
    assert any(reached) or kind == "wrong" or path not in HOT_PATHS


def with_recordings(body: Any) -> None:
    """Put a recording in place of every file: random bytes are refused for their first ones."""
    if isinstance(body, dict):
        for name, value in body.items():
            if not name.startswith("file"):
                continue
            if isinstance(value, list):
                body[name] = [wav() for _ in value]
            elif isinstance(getattr(value, "data", value), bytes):
                body[name] = wav()


def with_a_voice(case: Case[Any]) -> None:
    """Name a voice that there is, or give one that was exported."""
    body: Any = case.body
    if case.path == "/voices/import":
        if isinstance(body, dict) and "file" in body:
            body["file"] = _exported(case)
    elif "voice_id" in case.path_parameters:
        case.path_parameters["voice_id"] = _new_voice(case)
    elif isinstance(body, dict):
        if isinstance(body.get("voice_id"), str):
            body["voice_id"] = _new_voice(case)
        if case.path == "/tts/interpolate" and isinstance(body.get("voices"), list):
            body["voices"] = [{"voice_id": _new_voice(case), "weight": 0.5}] * 2


def _new_voice(case: Case[Any]) -> str:
    url = f"{_base(case)}/voices"
    files = {"files": ("a.wav", wav())}
    made = requests.post(url, {"name": "generated"}, files=files, timeout=TIMEOUT)
    assert made.status_code == 201, made.text
    voice: str = made.json()["voice_id"]
    return voice


def _base(case: Case[Any]) -> str:
    return str(case.operation.base_url).rstrip("/")


def _exported(case: Case[Any]) -> bytes:
    url = f"{_base(case)}/voices/{_new_voice(case)}/export"
    return requests.get(url, timeout=TIMEOUT).content


def assert_no_server_error(response: Response) -> None:
    """Healthy backends leave no reason for one."""
    assert response.status_code < 500, f"{response.status_code} {response.text[:500]}"


def load(url: str) -> BaseSchema:
    """Read a gateway's own document."""
    return schemathesis.openapi.from_url(f"{url}/openapi.json")
