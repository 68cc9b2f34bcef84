"""The configuration as the rest of the gateway sees it: one tree of frozen values.

A native configuration file is this tree written as YAML. The loaders of the other dialects (an
existing registry, a LiteLLM file, a worker group file) produce the same tree, so no other room
knows where a setting came from. Durations are seconds, sizes are bytes, rates are per minute.
"""

from __future__ import annotations

import enum
import functools
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

Seconds = Annotated[float, Meta(gt=0, le=86400)]
Positive = Annotated[int, Meta(ge=1)]
NonNegative = Annotated[int, Meta(ge=0)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Url = Annotated[
    str,
    Meta(
        pattern=r"^https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[!$->@-~]*)?$",
        extra={
            "wish": "an http or https URL in ASCII without credentials or query, such as "
            "http://vllm:8000"
        },
    ),
]
UrlPath = Annotated[
    str, Meta(pattern=r"^/[!$-~]*$", extra={"wish": "an absolute path in ASCII, such as /health"})
]
ServerName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_:][A-Za-z0-9._:-]*$", extra={"wish": "a host name or address"})
]
BackendName = Annotated[Name, Meta(extra={"refers_to": "backends"})]
ModelName = Annotated[Name, Meta(extra={"refers_to": "models"})]
Digest = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{64}$",
        extra={"wish": "64 digits of lower-case hex, as sha256sum prints them", "secret": True},
    ),
]


class _Section(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A mapping of the file; unknown fields are refused."""


class BackendType(enum.StrEnum):
    """What kind of server a backend is; decides which adapter speaks to it."""

    OPENAI_COMPATIBLE = "openai-compatible"
    OLLAMA = "ollama"
    VLLM = "vllm"
    LLAMACPP = "llamacpp"
    SGLANG = "sglang"
    TENSORRT_LLM = "tensorrt-llm"
    LITELLM = "litellm"
    SPEACHES = "speaches"
    FASTER_WHISPER = "faster-whisper"
    PIPER = "piper"
    OPENVOICE = "openvoice"
    CHATTERBOX = "chatterbox"
    PYANNOTE = "pyannote"
    DEEPFILTER = "deepfilter"


class Device(enum.StrEnum):
    """Where a backend computes; a GPU target without a CPU order is worth a warning."""

    GPU = "gpu"
    CPU = "cpu"


class Service(enum.StrEnum):
    """What a request asks for; decides the default deadlines."""

    LLM = "llm"
    EMBEDDINGS = "embeddings"
    TTS = "tts"
    STT = "stt"
    SPEAKER = "speaker"
    AUDIO = "audio"
    OTHER = "other"


class AuthMode(enum.StrEnum):
    """Who may call: holders of a key, or anybody (within `limits.anonymous`)."""

    KEYS = "keys"
    ANONYMOUS = "anonymous"


class Policy(enum.StrEnum):
    """How one target is chosen among those of an order."""

    LEAST_OUTSTANDING = "least-outstanding"
    PREFIX_AFFINITY = "prefix-affinity"


class Timeouts(_Section, frozen=True):
    """Deadlines of a request; what is left out comes from the service's defaults."""

    connect: Seconds | UnsetType = UNSET
    """Until the connection to a backend stands (TLS included)."""
    first_token: Seconds | UnsetType = UNSET
    """From sending the request to the first real content of a streamed answer."""
    first_byte: Seconds | UnsetType = UNSET
    """From sending the request to the first byte of an answer that is not streamed: a backend
    sends it when all of it is made, so it is long."""
    between_tokens: Seconds | UnsetType = UNSET
    """Between two reads of a stream that has begun."""
    overall: Seconds | UnsetType = UNSET
    """The whole request, with all its attempts and its wait in the queue."""


class Tls(_Section, frozen=True):
    """How an https backend's certificate is checked."""

    ca_file: str | None = None
    """PEM bundle to trust in place of the system's."""
    server_name: ServerName | None = None
    """Name to expect in the certificate, where it is not the URL's host."""
    verify: bool = True
    """False accepts any certificate; for a laboratory only."""


class Vram(_Section, frozen=True):
    """Video memory of a backend, in bytes."""

    awake: NonNegative = 0
    """While it can answer."""
    asleep: NonNegative = 0
    """While it sleeps with its weights in main memory."""


class Backend(_Section, frozen=True):
    """A server that answers requests."""

    url: Url
    """Base URL; a trailing `/v1` is accepted and dropped. Credentials have no place in it."""
    type: BackendType = BackendType.OPENAI_COMPATIBLE
    """Kind of server; decides how it is probed and what it can do."""
    health: UrlPath | None = None
    """Path probed for health in place of the adapter's own; must not generate tokens."""
    device: Device | None = None
    """Where it computes; a CPU gets more time to its first token."""
    slots: Positive | None = None
    """Requests that the engine computes at once; read from the engine where it tells."""
    max_in_flight: Positive | None = None
    """Requests sent to it at once by this replica; further ones go elsewhere or wait."""
    max_waiting: NonNegative = 0
    """Requests in the engine's own queue above which others are asked first."""
    api_key_env: Name | None = None
    """Environment variable that holds the backend's own key."""
    api_key_file: Name | None = None
    """File that holds the backend's own key."""
    headers: dict[str, str] = {}
    """Sent with every request to it."""
    timeouts: Timeouts = Timeouts()
    """Deadlines of its requests, where the model or route names none."""
    tls: Tls = Tls()
    """How its certificate is checked, where the URL is https."""
    probe_interval: Seconds = 5.0
    """Time between two looks at its health and load."""
    vram: Vram | None = None
    """Video memory that it takes. The chart checks the sum against the card; nothing else does."""


class Target(_Section, frozen=True):
    """One way to serve a model: a backend, and the model's name there."""

    backend: BackendName
    """Name of an entry of `backends`."""
    model: Name | None = None
    """Name at the backend; None means the caller's canonical name."""
    order: Positive = 1
    """1 is tried first; a higher order serves while all of the lower ones are out."""
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """Share within its order."""
    max_in_flight: Positive | None = None
    """Requests for this model sent to it at once by this replica."""
    weights: Name | None = None
    """Identity of the weights; embeddings fail over only between targets that declare the same."""


class Queue(_Section, frozen=True):
    """Where requests wait while every target is at its cap."""

    size: NonNegative = 1024
    """Requests that may wait; 0 refuses at once."""
    deadline: Seconds = 30.0
    """How long one may wait before it is answered 503."""


class Model(_Section, frozen=True):
    """A model that callers may name, and the targets that serve it."""

    targets: Annotated[tuple[Target, ...], Meta(min_length=1)]
    """Ways to serve it."""
    aliases: tuple[Name, ...] = ()
    """Further names that mean this model; each belongs to one model only."""
    service: Service | None = None
    """What it does; None means by what its backends are."""
    policy: Policy = Policy.LEAST_OUTSTANDING
    """How one target is chosen among those of an order."""
    rewrite_model: bool = False
    """True writes the caller's own name into `model` of the answer; False leaves the backend's."""
    fallbacks: tuple[ModelName, ...] = ()
    """Models that serve when no target of this one can."""
    context_fallback: ModelName | None = None
    """Model with a larger context, tried when a backend says that the prompt does not fit."""
    timeouts: Timeouts = Timeouts()
    """Deadlines of its requests; they win over the backend's."""
    queue: Queue | None = None
    """Where its requests wait; None means as `limits.queue` says."""
    attempts: Annotated[int, Meta(ge=1, le=10)] | None = None
    """Attempts of one request at most; None means as `limits.attempts` says."""


class Route(_Section, frozen=True):
    """What serves a path when the request names no model of the table."""

    backend: BackendName | None = None
    """Name of an entry of `backends`."""
    model: ModelName | None = None
    """Name of an entry of `models`, whose targets serve the path; in place of `backend`."""
    rewrite_model: bool = False
    """True writes the caller's own model name into `model` of the answer."""
    timeouts: Timeouts = Timeouts()
    """Deadlines of its requests; they win over the backend's."""


class AutoRule(_Section, frozen=True):
    """A rule of automatic choice; every condition that is given must hold."""

    name: Name
    """What `x-synapse-route` and the log call it."""
    model: Name
    """Model that it chooses."""
    keywords: tuple[Name, ...] = ()
    """Any of them as a whole word in the last user message, letter case ignored."""
    min_chars: NonNegative | None = None
    """At least this many characters of text in all messages."""
    max_chars: NonNegative | None = None
    """At most this many characters of text in all messages."""
    tools: bool | None = None
    """Whether the request offers tools."""
    images: bool | None = None
    """Whether a message holds an image."""
    keys: tuple[Name, ...] = ()
    """Names of the API keys that it applies to."""


class Auto(_Section, frozen=True):
    """Automatic choice of a model (`model` omitted, empty, or `auto`)."""

    default: Name | None = None
    """Model when no rule holds; None means the first model of the file that chats."""
    rules: tuple[AutoRule, ...] = ()
    """The first one that holds decides."""


class KeyLimits(_Section, frozen=True):
    """What one caller may use; None is unlimited."""

    models: tuple[Name, ...] | None = None
    """Models it may see and call; a trailing `*` matches a prefix."""
    requests_per_minute: Positive | None = None
    """Requests that it may begin in a minute, lists of models among them."""
    tokens_per_minute: Positive | None = None
    """Tokens of prompts and answers together in a minute."""
    concurrency: Positive | None = None
    """Requests that it may have in flight at once."""
    priority: Annotated[int, Meta(ge=0, le=9)] = 5
    """Who leaves the queue first; 9 before 0."""


class Key(KeyLimits, frozen=True):
    """An API key: exactly one of `sha256`, `env`, `file` says which."""

    sha256: Digest | None = None
    """SHA-256 of the key, 64 digits of lower-case hex."""
    env: Name | None = None
    """Environment variable that holds the key."""
    file: Name | None = None
    """File that holds the key; relative to the configuration file."""
    group: Name | None = None
    """Worker group: it reaches the models of that one's workers and those that `models` names."""


class WorkerGroup(_Section, frozen=True):
    """Workers that share their models, and the keys that reach them."""

    ws_auth_keys_sha256: tuple[Digest, ...] = ()
    """SHA-256 of each key that lets a worker join."""


class Breaker(_Section, frozen=True):
    """When a target is left alone."""

    failures: Positive = 5
    """Consecutive failures that open it."""
    cool_down: Seconds = 30.0
    """Until the single half-open probe."""


class RetryBudget(_Section, frozen=True):
    """Bound on the attempts beyond a request's first on each target, for the whole gateway."""

    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """Further attempts for each request of the window."""
    window: Seconds = 10.0
    """How far back requests count."""
    minimum_per_second: NonNegative = 10
    """Further attempts that are always allowed."""


class Spool(_Section, frozen=True):
    """Where uploads lie until they are answered, in memory or in the directory
    `SYNAPSE_SPOOL_DIR`.
    """

    memory_bytes: NonNegative = 256 * 1024
    """Largest upload that stays in memory."""
    max_bytes: Positive = 2 * 1024 * 1024 * 1024
    """All uploads together; one that finds no room is answered 503 with Retry-After."""
    stall: Seconds = 30.0
    """How long a caller may pause within an upload."""


class Limits(_Section, frozen=True):
    """Bounds that hold for every request."""

    max_body_bytes: Positive = 32 * 1024 * 1024
    """Largest JSON body."""
    max_buffered_bytes: Positive = 256 * 1024 * 1024
    """JSON bodies of all requests together that are kept in memory; a request for which there is no
    room is answered 503."""
    max_upload_bytes: Positive = 512 * 1024 * 1024
    """Largest multipart body (audio files)."""
    spool: Spool = Spool()
    """Where uploads lie until they are answered."""
    hold_bytes: Positive = 1024 * 1024
    """Bytes of an answer that is not streamed held back so that a cut can still fail over."""
    max_event_bytes: Positive = 8 * 1024 * 1024
    """Largest server-sent event that is taken for one."""
    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Attempts of one request at most."""
    queue: Queue = Queue()
    """Where requests wait while every target is at its cap."""
    breaker: Breaker = Breaker()
    """When a target is left alone."""
    retry_budget: RetryBudget = RetryBudget()
    """Bound on repeated attempts, for the whole gateway."""
    anonymous: KeyLimits = KeyLimits()
    """What callers without a key may use, all of them together."""
    shutdown_grace: Seconds = 300.0
    """How long in-flight requests may take after SIGTERM."""


class Voices(_Section, frozen=True):
    """The library of voices."""

    allow_standard: bool = False
    """Whether the standard voice may speak where the one that is asked for cannot be had; a request
    may say so for itself."""


class Settings(_Section, frozen=True):
    """A whole configuration."""

    auth: AuthMode = AuthMode.KEYS
    """Who may call."""
    backends: dict[Name, Backend] = {}
    """Servers, by a name of your choice."""
    models: dict[Name, Model] = {}
    """Models, by the name that callers use; those that only a backend lists are served as well."""
    routes: dict[Name, Route] = {}
    """Backends by path (`/v1/embeddings`) or prefix (`tts/*`); the backend's name alone will do."""
    auto: Auto = Auto()
    """Automatic choice of a model."""
    keys: dict[Name, Key] = {}
    """API keys, by a name that logs and metrics may show."""
    groups: dict[Name, WorkerGroup] = {}
    """Groups of workers."""
    groups_file: Name | None = None
    """Worker group file whose groups and keys are added; relative to the configuration file."""
    voices: Voices = Voices()
    """The library of voices."""
    limits: Limits = Limits()
    """Bounds that hold for every request."""
    downloads: Url | None = None
    """Where the progress of model downloads is told, for `/health`: every address of the host is
    asked for a JSON object, as the chart's downloads answer with (`backends/downloads.py`)."""

    def as_plain(self) -> dict[str, Any]:
        """Return the tree as plain values, defaults left out; equal trees give equal values."""
        plain: dict[str, Any] = _plain(self)
        return plain


def _plain(value: Any) -> Any:
    """Take a tree apart; unlike `omit_defaults`, this compares with defaults by value."""
    if isinstance(value, msgspec.Struct):
        fields = ((name, default, getattr(value, name)) for name, default in _defaults(type(value)))
        return {
            name: _plain(each)
            for name, default, each in fields
            if each is not UNSET and each != default
        }
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return value.value if isinstance(value, enum.Enum) else value


@functools.cache
def _defaults(struct: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (
            field.name,
            field.default
            if field.default_factory is msgspec.NODEFAULT
            else field.default_factory(),
        )
        for field in msgspec.structs.fields(struct)
    )
