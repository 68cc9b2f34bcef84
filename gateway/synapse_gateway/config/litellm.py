"""LiteLLM proxy files, as far as they speak of backends that this gateway can reach.

What each setting means is taken from the pages "Config settings", "Routing" and "Reliability" of
LiteLLM's own documentation (docs.litellm.ai). Settings that have no counterpart here are named in
a warning.
"""

from __future__ import annotations

import itertools
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from synapse_gateway.config.findings import Place, suggest
from synapse_gateway.config.settings import (
    Backend,
    BackendType,
    Breaker,
    Key,
    Limits,
    Model,
    Name,
    NonNegative,
    Seconds,
    Service,
    Settings,
    Target,
    Timeouts,
    Url,
)
from synapse_gateway.config.shape import Places, shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.config import source
    from synapse_gateway.config.findings import Findings, Path

ENVIRONMENT = "os.environ/"
"""What a value that stands in an environment variable begins with."""
MASTER_KEY = "litellm-master"
"""Name of the key that a file's `master_key` becomes."""
_MAX_ATTEMPTS = 10
_LEAST_SHARE = 0.001
"""Of an entry whose weight is 0 beside others that have one."""


class _Provider(NamedTuple):
    type: BackendType
    url: str | None = None
    """Where it is when the entry does not say."""
    key_variable: str | None = None
    """Environment variable with its key when the entry has none."""


_PROVIDERS: dict[str, _Provider] = {
    **dict.fromkeys(
        ("openai", "text-completion-openai"),
        _Provider(BackendType.OPENAI_COMPATIBLE, "https://api.openai.com", "OPENAI_API_KEY"),
    ),
    **dict.fromkeys(
        ("ollama", "ollama_chat"), _Provider(BackendType.OLLAMA, "http://localhost:11434")
    ),
    **dict.fromkeys(("vllm", "hosted_vllm"), _Provider(BackendType.VLLM)),
    **dict.fromkeys(
        ("custom_openai", "openai_like", "lm_studio", "llamafile", "xinference", "infinity"),
        _Provider(BackendType.OPENAI_COMPATIBLE),
    ),
    "litellm_proxy": _Provider(BackendType.LITELLM),
}
_MODES = {
    "chat": Service.LLM,
    "completion": Service.LLM,
    "responses": Service.LLM,
    "embedding": Service.EMBEDDINGS,
    "rerank": Service.EMBEDDINGS,
    "audio_speech": Service.TTS,
    "audio_transcription": Service.STT,
}
_SIMILAR_STRATEGIES = frozenset({"simple-shuffle", "least-busy"})

_Text = Annotated[str, Meta(min_length=1)]
_Secret = Annotated[str, Meta(min_length=1, extra={"secret": True})]
_Share = Annotated[float, Meta(ge=0)]
_Fallbacks = tuple[dict[Name, tuple[Name, ...]], ...]


class _Params(msgspec.Struct, frozen=True):
    model: _Text
    custom_llm_provider: str | None = None
    api_base: _Text | None = None
    api_key: _Secret | None = None
    order: int | None = None
    weight: _Share | None = None
    rpm: _Share | None = None
    tpm: _Share | None = None


class _Entry(msgspec.Struct, frozen=True):
    model_name: Name
    litellm_params: _Params
    model_info: dict[str, Any] = {}


class _LitellmSettings(msgspec.Struct, frozen=True):
    fallbacks: _Fallbacks = ()
    default_fallbacks: tuple[Name, ...] = ()
    context_window_fallbacks: _Fallbacks = ()
    num_retries: NonNegative | None = None
    request_timeout: Seconds | None = None


class _RouterSettings(msgspec.Struct, frozen=True):
    routing_strategy: str | None = None
    fallbacks: _Fallbacks = ()
    default_fallbacks: tuple[Name, ...] = ()
    context_window_fallbacks: _Fallbacks = ()
    num_retries: NonNegative | None = None
    timeout: Seconds | None = None
    cooldown_time: Seconds | None = None
    model_group_alias: dict[Name, Any] = {}


class _GeneralSettings(msgspec.Struct, frozen=True):
    master_key: _Secret | None = None


class _File(msgspec.Struct, frozen=True):
    model_list: tuple[_Entry, ...] = ()
    litellm_settings: _LitellmSettings = _LitellmSettings()
    router_settings: _RouterSettings = _RouterSettings()
    general_settings: _GeneralSettings = _GeneralSettings()


def read_litellm(
    root: source.Mapping, file: str, environ: Mapping[str, str], findings: Findings
) -> tuple[Settings, Places]:
    """Return the settings that do what a LiteLLM file says.

    Args:
        root: The tree of the file.
        file: Its name in the findings.
        environ: The process environment, for `os.environ/NAME`.
        findings: Takes the errors, and a warning for each setting that is not used.
    """
    content, written = shape(root, _File, file, findings, lenient=True)
    return _Reader(content, written, environ, findings).read()


class _Reader:
    """Builds the settings of one file."""

    def __init__(
        self, content: _File, written: Places, environ: Mapping[str, str], findings: Findings
    ) -> None:
        self._content = content
        self._written = written
        self._environ = environ
        self._findings = findings
        self._backends: dict[str, Backend] = {}
        self._places: dict[Path, Place] = {(): written.at()}

    def read(self) -> tuple[Settings, Places]:
        models = self._models()
        self._check_strategy()
        settings = Settings(
            backends=self._backends, models=models, keys=self._keys(), limits=self._limits()
        )
        return settings, Places(self._places)

    def _models(self) -> dict[str, Model]:
        groups: dict[str, list[tuple[int, _Entry]]] = {}
        for index, entry in enumerate(self._content.model_list):
            groups.setdefault(entry.model_name, []).append((index, entry))
        targets = {name: self._targets(name, group) for name, group in groups.items()}
        fallbacks = self._fallbacks("fallbacks", list(groups))
        contexts = self._fallbacks("context_window_fallbacks", list(groups))
        aliases = self._aliases(list(groups))
        return {
            name: Model(
                targets=targets[name],
                aliases=tuple(alias for alias, model in aliases.items() if model == name),
                service=self._service(group),
                fallbacks=tuple(other for other in fallbacks[name] if targets.get(other)),
                context_fallback=next((c for c in contexts[name] if targets.get(c)), None),
                timeouts=self._timeouts(),
            )
            for name, group in groups.items()
            if targets[name]
        }

    def _targets(self, name: str, group: list[tuple[int, _Entry]]) -> tuple[Target, ...]:
        self._places["models", name] = self._written.at("model_list", group[0][0], "model_name")
        params = [entry.litellm_params for _, entry in group]
        targets = []
        for (index, entry), order, weight in zip(
            group, _orders(params), _weights(params), strict=True
        ):
            found = self._backend_of(index, entry.litellm_params)
            if found is None:
                continue
            backend, model = found
            if "*" in name or "*" in model:
                where = self._written.at("model_list", index, "model_name")
                message = "a wildcard is not used: what the backend itself lists is served"
                self._findings.warn(where, message)
                continue
            targets.append(Target(backend=backend, model=model, order=order, weight=weight))
        return tuple(targets)

    def _backend_of(self, index: int, params: _Params) -> tuple[str, str] | None:
        """Return the name of an entry's backend, made if need be, and the model's name there."""
        path = ("model_list", index, "litellm_params")
        text = self._expanded(params.model, *path, "model")
        if text is None:
            return None
        prefix, slash, model = text.partition("/")
        named = params.custom_llm_provider
        if named is None and not slash:
            # LiteLLM takes a bare name for one of OpenAI's
            prefix, model = "openai", text
        elif named is not None:
            prefix, model = named, model if prefix == named else text
        provider = _PROVIDERS.get(prefix)
        if provider is None:
            self._findings.error(
                self._written.at(*path, "model"),
                f"unknown provider {prefix!r}; {suggest(prefix, _PROVIDERS)}",
            )
            return None
        url = self._url(provider, params, *path)
        if url is None:
            return None
        own_address = params.api_base is None
        key_env, headers = self._credentials(params.api_key)
        if params.api_key is None and own_address:
            key_env = provider.key_variable
        backend = Backend(url=url, type=provider.type, api_key_env=key_env, headers=headers)
        return self._backend_name(backend, self._written.at(*path, "api_base")), model

    def _url(self, provider: _Provider, params: _Params, *path: str | int) -> str | None:
        place = self._written.at(*path, "api_base")
        if params.api_base is None:
            if provider.url is None:
                self._findings.error(place, "is required, such as http://vllm:8000/v1")
            return provider.url
        text = self._expanded(params.api_base, *path, "api_base")
        if text is None:
            return None
        try:
            url: str = msgspec.convert(text.rstrip("/"), Url)
        except msgspec.ValidationError:
            self._findings.error(
                place, "must be a URL without credentials, such as http://vllm:8000"
            )
            return None
        return url

    def _credentials(self, api_key: str | None) -> tuple[str | None, dict[str, str]]:
        """Return the variable that holds a backend's key, or the header that carries it."""
        if api_key is None:
            return None, {}
        if api_key.startswith(ENVIRONMENT):
            return api_key.removeprefix(ENVIRONMENT), {}
        return None, {"Authorization": f"Bearer {api_key}"}

    def _backend_name(self, backend: Backend, place: Place) -> str:
        for name, known in self._backends.items():
            if known == backend:
                return name
        parts = urlsplit(backend.url)
        host = parts.hostname or ""
        is_address = ":" in host or host[:1].isdecimal()
        name = re.sub(r"[.:]+", "-", host) if is_address else host.split(".")[0]
        wishes = itertools.chain(
            (name, f"{name}-{parts.port or parts.scheme}"),
            (f"{name}-{number}" for number in itertools.count(2)),
        )
        name = next(wish for wish in wishes if wish not in self._backends)
        self._backends[name] = backend
        self._places["backends", name] = place
        return name

    def _fallbacks(self, field: str, models: list[str]) -> dict[str, tuple[str, ...]]:
        """Return what both sections say of one kind of fallback, checked, by model."""
        found: dict[str, tuple[str, ...]] = {}
        for section in ("litellm_settings", "router_settings"):
            entries: _Fallbacks = getattr(getattr(self._content, section), field)
            for index, entry in enumerate(entries):
                for name, others in entry.items():
                    path = (section, field, index, name)
                    if name != "*":
                        self._check_model(name, models, *path)
                    for number, other in enumerate(others):
                        self._check_model(other, models, *path, number)
                    if field == "context_window_fallbacks" and len(others) > 1:
                        self._findings.warn(self._written.at(*path), "only the first one is used")
                    found.setdefault(name, others)
        if field == "fallbacks":
            found.setdefault("*", self._default_fallbacks(models))
        rest = found.pop("*", ())
        for name in models:
            others = tuple(other for other in rest if other != name)
            found.setdefault(name, others)
        return found

    def _default_fallbacks(self, models: list[str]) -> tuple[str, ...]:
        for section in ("litellm_settings", "router_settings"):
            names: tuple[str, ...] = getattr(self._content, section).default_fallbacks
            for index, name in enumerate(names):
                self._check_model(name, models, section, "default_fallbacks", index)
            if names:
                return names
        return ()

    def _aliases(self, models: list[str]) -> dict[str, str]:
        aliases: dict[str, str] = {}
        for alias, value in self._content.router_settings.model_group_alias.items():
            model = value.get("model") if isinstance(value, dict) else value
            path = ("router_settings", "model_group_alias", alias)
            if self._check_model(str(model), models, *path):
                aliases[alias] = str(model)
        return aliases

    def _check_model(self, name: str, models: list[str], *path: str | int) -> bool:
        if name not in models:
            message = f"unknown model {name!r}; {suggest(name, models)}"
            self._findings.error(self._written.at(*path), message)
        return name in models

    def _service(self, group: list[tuple[int, _Entry]]) -> Service | None:
        modes = (_MODES.get(str(entry.model_info.get("mode"))) for _, entry in group)
        return next((mode for mode in modes if mode is not None), None)

    def _timeouts(self) -> Timeouts:
        overall = self._content.litellm_settings.request_timeout
        if overall is None:
            overall = self._content.router_settings.timeout
        return Timeouts() if overall is None else Timeouts(overall=overall)

    def _limits(self) -> Limits:
        limits = Limits()
        retries = self._content.litellm_settings.num_retries
        if retries is None:
            retries = self._content.router_settings.num_retries
        if retries is not None:
            attempts = min(retries + 1, _MAX_ATTEMPTS)
            limits = msgspec.structs.replace(limits, attempts=attempts)
        cool_down = self._content.router_settings.cooldown_time
        if cool_down is not None:
            limits = msgspec.structs.replace(limits, breaker=Breaker(cool_down=cool_down))
        return limits

    def _keys(self) -> dict[str, Key]:
        key = self._content.general_settings.master_key
        if key is None:
            return {}
        self._places["keys", MASTER_KEY] = self._written.at("general_settings", "master_key")
        if key.startswith(ENVIRONMENT):
            return {MASTER_KEY: Key(env=key.removeprefix(ENVIRONMENT))}
        return {MASTER_KEY: Key(sha256=sha256(key.strip().encode()).hexdigest())}

    def _check_strategy(self) -> None:
        strategy = self._content.router_settings.routing_strategy
        if strategy is not None and strategy not in _SIMILAR_STRATEGIES:
            self._findings.warn(
                self._written.at("router_settings", "routing_strategy"),
                f"{strategy!r} is not used: the target with the least outstanding work is chosen",
            )

    def _expanded(self, text: str, *path: str | int) -> str | None:
        """Return a value, taken from the environment where it says so."""
        if not text.startswith(ENVIRONMENT):
            return text
        name = text.removeprefix(ENVIRONMENT)
        value = self._environ.get(name)
        if not value:
            message = f"the environment variable {name} is not set"
            self._findings.error(self._written.at(*path), message)
            return None
        return value


def _orders(params: list[_Params]) -> list[int]:
    """Number the orders from 1; entries without one come after those that have one."""
    given = sorted({each.order for each in params if each.order is not None})
    last = len(given) + 1
    return [last if each.order is None else given.index(each.order) + 1 for each in params]


def _weights(params: list[_Params]) -> list[float]:
    """Return each entry's share: of `weight`, or else `rpm`, or else `tpm`, the largest being 1."""
    for field in ("weight", "rpm", "tpm"):
        shares = [getattr(each, field) or 0.0 for each in params]
        largest = max(shares)
        if largest > 0:
            return [max(share / largest, _LEAST_SHARE) for share in shares]
    return [1.0] * len(params)
