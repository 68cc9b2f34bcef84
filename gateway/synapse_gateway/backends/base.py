"""What the gateway asks of every kind of backend, and the values it gets."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class Capability(enum.StrEnum):
    """Something that a backend can be asked for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    RERANK = "rerank"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    DIARIZATION = "diarization"
    VERIFICATION = "verification"
    DENOISING = "denoising"
    CONVERSION = "conversion"
    CLONING = "cloning"
    """Speech in the voice of reference recordings."""
    INTERPOLATION = "interpolation"
    """Speech in a voice between several."""
    OLLAMA = "ollama"
    """Ollama's own API, natively."""
    TRANSCRIBE = "transcribe"
    """`/transcribe`, `/stream` and `/detect-language`, natively."""


class Refusal(enum.StrEnum):
    """What an error answer of a backend means beyond its status."""

    MODEL_NOT_FOUND = "model_not_found"
    CONTEXT_EXCEEDED = "context_exceeded"
    CREDENTIALS = "credentials"
    OVERLOADED = "overloaded"
    INVALID_REQUEST = "invalid_request"
    """The request's own fault, whatever the status says."""
    VOICE_NOT_FOUND = "voice_not_found"
    """The voice that it shall speak with is not there (any more)."""
    NOT_SUPPORTED = "not_supported"
    """The model cannot do this kind of request."""


class Reply(msgspec.Struct, frozen=True):
    """A small answer, whole."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


class Http(Protocol):
    """A backend's HTTP interface, as a probe sees it: base URL, key and TLS already applied."""

    async def request(
        self, method: str, path: str, *, body: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        """Send one request and return the whole answer.

        Args:
            method: HTTP method.
            path: Absolute path at the backend.
            body: JSON body, or nothing.
            timeout: Seconds for all of it.

        Raises:
            OSError: It could not be reached, or broke off.
            TimeoutError: It did not answer in time.
        """
        ...


class ModelFile(msgspec.Struct, frozen=True):
    """What a backend tells of a model's file; what it does not tell keeps its default."""

    size: int = 0
    """Bytes on disk."""
    digest: str = ""
    """SHA-256, in hex."""
    modified_at: str = ""
    """RFC 3339."""
    format: str = ""
    """Such as `gguf`."""
    family: str = ""
    """Architecture, such as `llama`."""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    """In people's words, such as `134.52M`."""
    quantization_level: str = ""
    """Such as `Q4_1`."""


class DiscoveredModel(msgspec.Struct, frozen=True):
    """A model that a backend says it has."""

    id: str
    state: str = "hot"
    """`hot` (loaded), `warm` (asleep, weights in memory), `cold` (not loaded)."""
    context: int | None = None
    """Tokens of context it was loaded with."""
    size: int | None = None
    """Bytes of memory, loaded."""
    size_vram: int | None = None
    """Bytes of them on the GPU."""
    capabilities: frozenset[Capability] = frozenset()
    """Empty: what the backend can."""
    expires_at: str = ""
    """When it will be unloaded, RFC 3339; empty for never, or not told."""
    file: ModelFile | None = None


class Probe(msgspec.Struct, frozen=True):
    """What one look at a backend showed."""

    up: bool
    status: int = 0
    """HTTP status of the health path; 0 if it could not be reached."""
    detail: str = ""
    """A few words for people; no address."""
    models: tuple[DiscoveredModel, ...] | None = None
    """None: it does not tell."""
    slots: int | None = None
    """Requests that it computes at once."""
    busy: int | None = None
    """Requests that it computes now, from all callers."""
    waiting: int | None = None
    """Requests that wait in its own queue."""
    asleep: bool = False
    version: str = ""
    languages: tuple[tuple[str, str], ...] = ()
    """Code and English name of each language that it speaks, where it tells."""
    voices: tuple[str, ...] = ()
    """Voices of its own, where it tells; the first one is its standard."""


class Adapter(Protocol):
    """One kind of backend."""

    capabilities: frozenset[Capability]

    async def probe(self, http: Http, health: str | None) -> Probe:
        """Look at the backend without generating a token.

        Args:
            http: Its interface.
            health: Path from the configuration, in place of the adapter's own.
        """
        ...

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means, if more than its status does.

        Args:
            status: HTTP status, 400 or above.
            body: The first 64 KiB of the body.
        """
        ...

    def upstream_path(self, path: str) -> str:
        """Return the backend's path for one of the gateway's OpenAI paths."""
        ...
