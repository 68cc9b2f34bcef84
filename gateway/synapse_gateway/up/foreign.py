"""A server that the user already runs: what kind it is and which models it lists.

Told apart by what each kind alone answers, none of which generates a token:

=============  ====================================================================
ollama         ``GET /api/version`` has ``version``, ``GET /api/tags`` has ``models``
vllm, sglang,  ``owned_by`` of the entries of ``GET /v1/models``
llamacpp,
tensorrt-llm
llamacpp       ``GET /props`` has ``default_generation_settings`` (also before it named itself)
litellm        ``GET /health/liveliness`` answers 200 (its spelling)
=============  ====================================================================
"""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from typing import Any

import msgspec

from synapse_gateway.up.errors import UpError

API_KEY_VARIABLE = "BACKEND_API_KEY"
"""Environment variable with the key of a user's server."""

TIMEOUT = 5.0
_URL = re.compile(r"^https?://[^/\s?#@]+(/[^\s?#]*)?$")
_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "tensorrt_llm": "tensorrt-llm",
}
_NOT_CHAT = re.compile(r"embed|minilm|bge-|rerank|whisper|tts|piper|kokoro", re.IGNORECASE)


class Foreign(msgspec.Struct, frozen=True, kw_only=True):
    """A user's server, as it was found."""

    url: str
    """Base URL without `/v1`."""
    kind: str
    """The gateway's backend type."""
    models: tuple[str, ...]
    """Names that it lists, in its order."""

    @property
    def chat_model(self) -> str | None:
        """The first model that by its name is no embedding or speech model."""
        return next((name for name in self.models if not _NOT_CHAT.search(name)), None)


class _Server:
    """The few questions that are asked of a server."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._headers = {"accept": "application/json"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def get(self, path: str) -> tuple[int, Any]:
        """Status and JSON body (None when it is not JSON) of a GET request.

        Raises:
            UpError: The server cannot be reached.
        """
        request = urllib.request.Request(self.url + path, headers=self._headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
                return answer.status, _decoded(answer.read(1 << 22))
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise UpError(
                f"{self.url} does not answer ({reason}); is the server running, and is that its "
                "address?"
            ) from error


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def base_url(text: str) -> str:
    """Return a URL as the configuration wants it: no trailing slash, no `/v1`, no credentials.

    Raises:
        UpError: It is not a URL of a server.
    """
    url = text.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    if "@" in url:
        raise UpError(
            f"a backend's URL must not hold credentials; put its key into {API_KEY_VARIABLE}"
        )
    if not _URL.match(url):
        raise UpError(f"{text!r} is not a server's URL; give one such as http://127.0.0.1:11434")
    return url


def inspect(text: str, key: str | None) -> Foreign:
    """Look at the server at URL `text`.

    Args:
        text: Its URL, with or without `/v1`.
        key: Its API key, if it wants one.

    Raises:
        UpError: It cannot be reached, refuses the key, or speaks no API that is known here.
    """
    server = _Server(base_url(text), key)
    ollama = _ollama(server)
    if ollama is not None:
        return ollama
    status, listed = server.get("/v1/models")
    if status in {401, 403}:
        what = "refuses the key in" if key else "wants a key; put it into"
        raise UpError(f"{server.url} {what} {API_KEY_VARIABLE}")
    entries = _field(listed, "data")
    if status != 200 or not isinstance(entries, list):
        raise UpError(
            f"{server.url} answers, but neither as Ollama (/api/version) nor with an OpenAI model "
            f"list (/v1/models: status {status}); is that its address?"
        )
    names = tuple(str(name) for entry in entries if (name := _field(entry, "id")))
    owners = {str(_field(entry, "owned_by")) for entry in entries}
    return Foreign(url=server.url, kind=_openai_kind(server, owners), models=names)


def _ollama(server: _Server) -> Foreign | None:
    _, version = server.get("/api/version")
    if not _field(version, "version"):
        return None
    _, tags = server.get("/api/tags")
    models = _field(tags, "models")
    if not isinstance(models, list):
        return None
    names = tuple(str(name) for entry in models if (name := _field(entry, "name")))
    return Foreign(url=server.url, kind="ollama", models=names)


def _openai_kind(server: _Server, owners: set[str]) -> str:
    for owner, kind in _OWNERS.items():
        if owner in owners:
            return kind
    if _field(server.get("/props")[1], "default_generation_settings"):
        return "llamacpp"
    if server.get("/health/liveliness")[0] == 200:
        return "litellm"
    return "openai-compatible"
