"""Which models an Ollama has, and which of them the gateway does not know.

API: Ollama's docs/api.md, `GET /api/tags` and `POST /api/show`. The gateway answers the second for
aliases too, which its list leaves out.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from synapse_gateway.decommission.errors import DecommissionError, KubeError
from synapse_gateway.decommission.kube import Kube, service_proxy_path
from synapse_gateway.ollama_api.catalog import same_names

Exchange: TypeAlias = Callable[[str, str, object], tuple[int, bytes]]
"""Method, path and JSON body in; status and body out. Raises OSError, HTTPException, KubeError."""

TIMEOUT = 20.0
"""Seconds for one request."""


class OllamaError(DecommissionError):
    """It does not answer as an Ollama does.

    Attributes:
        status: HTTP status; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Ollama:
    """Something that answers Ollama's API.

    Attributes:
        where: How sentences name it.
        exchange: How it is reached.
    """

    where: str
    exchange: Exchange

    def tags(self) -> tuple[str, ...]:
        """Return the names of its models, sorted.

        Raises:
            OllamaError: It does not tell.
        """
        status, body = self._ask("GET", "/api/tags", None)
        if status != 200:
            raise OllamaError(f"{self.where} answers /api/tags with {status}", status)
        try:
            return tuple(sorted(str(model["name"]) for model in json.loads(body)["models"] or []))
        except (ValueError, KeyError, TypeError):
            raise OllamaError(f"{self.where} answers /api/tags as no Ollama does") from None

    def knows(self, model: str) -> bool:
        """Whether requests for a model would be served.

        Raises:
            OllamaError: It does not tell.
        """
        status, _ = self._ask("POST", "/api/show", {"model": model})
        if status not in {200, 404}:
            raise OllamaError(f"{self.where} answers /api/show with {status}", status)
        return status == 200

    def _ask(self, method: str, path: str, body: object) -> tuple[int, bytes]:
        try:
            return self.exchange(method, path, body)
        except (OSError, http.client.HTTPException, KubeError) as error:
            raise OllamaError(f"{self.where} does not answer: {error}") from None


def missing_models(models: Iterable[str], central: Ollama) -> tuple[str, ...]:
    """Return those models that the gateway does not know.

    Args:
        models: Names as an instance lists them.
        central: The gateway.

    Raises:
        OllamaError: The gateway does not tell.
    """
    listed = {same for name in central.tags() for same in same_names(name)}
    unlisted = [name for name in models if listed.isdisjoint(same_names(name))]
    return tuple(name for name in unlisted if not central.knows(name))


def by_url(url: str, key: str = "") -> Exchange:
    """Return the way to an Ollama at a URL."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection

    def exchange(method: str, path: str, body: object) -> tuple[int, bytes]:
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, parts.path.rstrip("/") + path, data, _headers(key))
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    return exchange


def by_proxy(kube: Kube, namespace: str, service: str, port: int, key: str = "") -> Exchange:
    """Return the way to an Ollama through the API server's proxy of Services."""

    def exchange(method: str, path: str, body: object) -> tuple[int, bytes]:
        path = service_proxy_path(namespace, service, port, path)
        try:
            answer: Any = kube.call(method, path, body, headers=_headers(key))
        except KubeError as error:
            # What the API server itself says (a Status object, with a reason) is no answer of
            # the Ollama behind it.
            if error.reason or not error.status:
                raise
            return error.status, b""
        return 200, json.dumps(answer).encode()

    return exchange


def _headers(key: str) -> dict[str, str]:
    # Not `Authorization`: that one is the API server's own on the way through its proxy.
    return {"Content-Type": "application/json", **({"x-api-key": key} if key else {})}
