"""The gateway as callers reach it: official clients, plain HTTP, and what it says that it has."""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import anthropic
import httpx
import ollama
import openai

from conformance.suite.lines import Exchange, NotSupported
from conformance.suite.timeouts import REQUEST
from synapse_gateway.testing.wire import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHOWN = 2000
"""Characters of a body that a report shows."""
SECRET = re.compile(r"(?i)^(authorization|x-api-key|cookie|set-cookie)$")
UNINTERESTING = re.compile(
    r"(?i)^(accept|accept-encoding|connection|content-length|host|user-agent|x-stainless-.*)$"
)
CHAT, EMBEDDINGS, SPEECH, TRANSCRIPTION = "chat", "embeddings", "speech", "transcription"
QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


class Gateway:
    """One gateway, and a caller of it.

    Args:
        url: Base URL without `/v1`.
        key: API key; empty sends none.
    """

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.key = key
        self.exchanges: list[Exchange] = []
        """Requests since the last `forget`, with their answers, for reports of failures."""
        self.errors: list[str] = []
        """Every error body that was seen in the run."""
        hooks: dict[str, list[Callable[..., Any]]] = {
            "request": [self._sent],
            "response": [self._answered],
        }
        headers = {"authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(
            base_url=url, headers=headers, timeout=REQUEST, event_hooks=hooks, trust_env=False
        )
        self.openai = openai.OpenAI(
            base_url=f"{url}/v1",
            api_key=key or "none",
            max_retries=0,
            timeout=REQUEST,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks, trust_env=False),
        )
        self.anthropic = anthropic.Anthropic(
            base_url=url,
            api_key=key or "none",
            max_retries=0,
            timeout=REQUEST,
            http_client=anthropic.DefaultHttpxClient(event_hooks=hooks, trust_env=False),
        )
        self.ollama = ollama.Client(
            host=url, headers=headers, timeout=REQUEST, event_hooks=hooks, trust_env=False
        )

    def as_caller(self, key: str) -> Gateway:
        """Return the same gateway, called with another key."""
        other = Gateway(self.url, key)
        other.exchanges, other.errors = self.exchanges, self.errors
        return other

    def close(self) -> None:
        """Close every connection."""
        for client in (self.http, self.openai, self.anthropic, self.ollama):
            client.close()

    def forget(self) -> None:
        """Begin a new list of exchanges."""
        self.exchanges.clear()

    # -- what was sent and answered

    def _sent(self, request: Any) -> None:
        body = (
            b""
            if request.headers.get("content-type", "").startswith("multipart")
            else _read(request)
        )
        self.exchanges.append(
            Exchange(
                method=request.method,
                url=str(request.url),
                headers={
                    name: _redacted(name, value)
                    for name, value in request.headers.items()
                    if not UNINTERESTING.match(name)
                },
                body=body.decode(errors="replace"),
            )
        )
        request.extensions["exchange"] = self.exchanges[-1]

    def _answered(self, response: Any) -> None:
        exchange: Exchange = response.request.extensions["exchange"]
        exchange.status = response.status_code
        exchange.answer_headers = {
            name: _redacted(name, value) for name, value in response.headers.items()
        }
        if response.status_code >= 400:
            response.read()
            self.errors.append(response.text)
        if response.is_closed or response.status_code >= 400:
            exchange.answer = response.text[:SHOWN]

    # -- what it says that it has

    def get(self, path: str) -> Any:
        """Return a path's JSON.

        Raises:
            NotSupported: The gateway does not answer with 200.
        """
        answer = self.http.get(path)
        if answer.status_code != 200:
            raise NotSupported(f"GET {path} answers {answer.status_code}")
        return answer.json()

    @functools.cached_property
    def models(self) -> list[dict[str, Any]]:
        """The models that `GET /v1/models` lists."""
        found: list[dict[str, Any]] = self.get("/v1/models").get("data", [])
        return found

    @functools.cached_property
    def health(self) -> dict[str, Any]:
        """What `GET /health` says."""
        found: dict[str, Any] = self.get("/health")
        return found

    @functools.cached_property
    def paths(self) -> dict[str, Any]:
        """The paths of its OpenAPI document, empty where there is none."""
        try:
            found: dict[str, Any] = self.get("/openapi.json").get("paths", {})
        except NotSupported:
            return {}
        return found

    def need(self, path: str) -> None:
        """Go on only if the API has a path.

        Raises:
            NotSupported: It has not.
        """
        if path not in self.paths:
            raise NotSupported(f"the API has no {path}")

    @functools.cached_property
    def capable(self) -> dict[str, list[str]]:
        """The models that can do a thing, by thing: asked for with the smallest request of each."""
        kinds = {kind: names for kind, names in self._by_backend().items() if names}
        found: dict[str, list[str]] = {CHAT: [], EMBEDDINGS: [], SPEECH: [], TRANSCRIPTION: []}
        audio = {name for kind in (SPEECH, TRANSCRIPTION) for name in kinds.get(kind, ())}
        for model in self.models:
            name = model["id"]
            names = {name, *model.get("aliases", [])}
            if names & audio:
                for kind in (SPEECH, TRANSCRIPTION):
                    if names & set(kinds.get(kind, ())):
                        found[kind].append(name)
            elif self._answers(
                "/v1/chat/completions", {"messages": QUESTION, "max_tokens": 1}, name
            ):
                found[CHAT].append(name)
            elif self._answers("/v1/embeddings", {"input": "a"}, name):
                found[EMBEDDINGS].append(name)
        return found

    def _by_backend(self) -> dict[str, list[str]]:
        kinds = {
            "piper": SPEECH,
            "chatterbox": SPEECH,
            "openvoice": SPEECH,
            "faster-whisper": TRANSCRIPTION,
            "speaches": TRANSCRIPTION,
        }
        found: dict[str, list[str]] = {}
        for backend in self.health.get("backends", {}).values():
            kind = kinds.get(backend.get("type", ""))
            if kind:
                found.setdefault(kind, []).extend(backend.get("models", []))
        return found

    def _answers(self, path: str, body: dict[str, Any], model: str) -> bool:
        if path not in self.paths:
            return False
        return self.http.post(path, json={"model": model, **body}).status_code == 200

    def model(self, kind: str) -> str:
        """Return the first model that can do a thing.

        Raises:
            NotSupported: There is none.
        """
        if not self.capable[kind]:
            raise NotSupported(f"no model of the deployment does {kind}")
        return self.capable[kind][0]

    def metrics(self) -> Metrics:
        """Read its metrics."""
        answer = self.http.get("/metrics")
        if answer.status_code != 200:
            raise NotSupported(f"GET /metrics answers {answer.status_code}")
        return Metrics(answer.text)

    def config_hash(self) -> str:
        """Return the hash of the configuration that runs, empty where it does not say."""
        answer = self.http.get("/metrics")
        found = re.search(r'synapse_config_info\{[^}]*hash="([0-9a-f]+)"', answer.text)
        return found[1] if found else ""


def model_path(name: str) -> str:
    """Return the path of a model in the catalogue."""
    return f"/v1/models/{quote(name, safe='')}"


def chat_body(model: str, **more: Any) -> dict[str, Any]:
    """Return the body of a small chat whose answer does not vary."""
    return {
        "model": model,
        "messages": QUESTION,
        "max_tokens": 8,
        "temperature": 0,
        "seed": 1,
        **more,
    }


def sse(text: str) -> list[str]:
    """Return the data of every server-sent event."""
    found = []
    for block in text.replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"]
        if lines:
            found.append("\n".join(lines))
    return found


def deltas(events: Sequence[str]) -> str:
    """Return the text of a streamed chat."""
    chunks = (json.loads(event) for event in events if event != "[DONE]")
    choices = (choice for chunk in chunks for choice in chunk.get("choices", []))
    return "".join((choice.get("delta") or {}).get("content") or "" for choice in choices)


def _read(request: Any) -> bytes:
    try:
        body: bytes = request.content
    except Exception as error:  # noqa: BLE001 - httpx and httpx2 have an error each
        del error
        return b""
    return body[: 10 * SHOWN]


def _redacted(name: str, value: str) -> str:
    if not SECRET.match(name):
        return value
    return "Bearer $SYNAPSE_API_KEY" if value.startswith("Bearer ") else "$SYNAPSE_API_KEY"


def error_of(answer: Any) -> Mapping[str, Any]:
    """Return the error object of an answer.

    Raises:
        AssertionError: It has none, or not OpenAI's.
    """
    try:
        body = answer.json()
    except ValueError:
        raise AssertionError(
            f"{answer.status_code} with a body that is no JSON: {answer.text[:200]}"
        ) from None
    found = body.get("error") if isinstance(body, dict) else None
    if not isinstance(found, dict) or not {"message", "type", "param", "code"} <= found.keys():
        raise AssertionError(
            f"{answer.status_code} without OpenAI's error object: {answer.text[:200]}"
        )
    return found
