"""What a configuration must be beyond the form of its values, and what is worth a warning."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from synapse_gateway.config.findings import suggest
from synapse_gateway.config.settings import AutoRule, BackendType, Device, Service, Tls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from synapse_gateway.config.findings import Findings, Place
    from synapse_gateway.config.settings import Backend, Model, Settings
    from synapse_gateway.config.shape import Places

RESERVED_MODELS = frozenset({"auto", "synapse:auto", "synapse-auto"})
"""Names that mean the automatic choice."""
RESERVED_KEYS = frozenset({"anonymous"})
"""Names that mean callers without a key."""
_KEY_SOURCES = ("sha256", "env", "file")
_OWN_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")
_GPU_ENGINES = frozenset({BackendType.VLLM, BackendType.SGLANG, BackendType.TENSORRT_LLM})


class Checks:
    """The checks of one configuration.

    Args:
        settings: What was read, less the parts that were refused.
        places: Where it was written.
        environ: The process environment.
        findings: Takes the errors and warnings.
    """

    def __init__(
        self, settings: Settings, places: Places, environ: Mapping[str, str], findings: Findings
    ) -> None:
        self._settings = settings
        self._places = places
        self._environ = environ
        self._findings = findings

    def run(self) -> None:
        """Make all of them."""
        self._check_backends()
        if self._settings.downloads is not None:
            self._check_url(self._settings.downloads, "downloads")
        self._check_model_names()
        self._check_fallbacks()
        self._check_routes()
        self._check_auto()
        self._check_keys()
        self._warn_of_groups()
        for name, model in self._settings.models.items():
            self._warn_of_targets(name, model)

    def _error(self, message: str, *path: str | int) -> None:
        self._findings.error(self._places.at(*path), message)

    def _warn(self, message: str, *path: str | int) -> None:
        self._findings.warn(self._places.at(*path), message)

    def _check_backends(self) -> None:
        for name, backend in self._settings.backends.items():
            path = ("backends", name)
            if backend.api_key_env is not None and backend.api_key_file is not None:
                self._error("must not be given beside api_key_env", *path, "api_key_file")
            self._warn_of_missing(
                backend.api_key_env, backend.api_key_file, *path, prefix="api_key_"
            )
            self._check_url(backend.url, *path, "url")
            self._check_tls(backend, *path, "tls")
            for header, value in backend.headers.items():
                self._check_header(header, value, *path, "headers", header)

    def _check_url(self, url: str, *path: str | int) -> None:
        """Check what a pattern cannot say: the bounds of a port, and of a host's name."""
        if not _has_host(url):
            self._error(f"must have the name or the address of a host (got {url!r})", *path)
        elif not _has_good_port(url):
            self._error(f"must have a port from 1 to 65535, or none (got {url!r})", *path)

    def _check_tls(self, backend: Backend, *path: str | int) -> None:
        tls = backend.tls
        if tls != Tls() and not backend.url.startswith("https:"):
            self._warn("is not used: the backend's url is not https", *path)
        if tls.server_name is not None and not _is_host(tls.server_name):
            message = f"must be a host name or address (got {tls.server_name!r})"
            self._error(message, *path, "server_name")
        if tls.ca_file is not None:
            self._warn_of_missing(None, tls.ca_file, *path, prefix="ca_")
            if Path(tls.ca_file).is_file() and not _holds_certificates(tls.ca_file):
                message = f"must hold certificates in PEM form, which {tls.ca_file} does not"
                self._error(message, *path, "ca_file")

    def _check_header(self, name: str, value: str, *path: str | int) -> None:
        """Check a header as RFC 9110, 5.1 and 5.5 have it; its value may be a secret."""
        if name.lower() in _OWN_HEADERS:
            self._error("must not be given: the gateway sets it", *path)
        elif not _HEADER_NAME.fullmatch(name):
            self._error("must be the name of a header: letters, digits and hyphens", *path)
        elif not _HEADER_VALUE.fullmatch(value):
            self._error("must be ASCII, as all that stands in a header", *path)

    def _warn_of_missing(
        self, env: str | None, file: str | None, *path: str | int, prefix: str = ""
    ) -> None:
        if env is not None and not self._environ.get(env, "").strip():
            self._warn(f"the environment variable {env} is not set", *path, f"{prefix}env")
        if file is not None and not Path(file).is_file():
            self._warn(f"there is no file {file}", *path, f"{prefix}file")

    def _check_model_names(self) -> None:
        taken: dict[str, Place] = {}
        for name, path in self._model_names():
            place = self._places.at(*path)
            if name in RESERVED_MODELS:
                self._findings.error(
                    place, f"must be another name: {name!r} means automatic choice"
                )
            first = taken.setdefault(name, place)
            if first is not place:
                self._findings.error(
                    place, f"must be another name: {name!r} is a model in line {first.line}"
                )

    def _model_names(self) -> Iterator[tuple[str, tuple[str | int, ...]]]:
        """Yield the names of models before their aliases, so that the alias is what is wrong."""
        for name in self._settings.models:
            yield name, ("models", name)
        for name, model in self._settings.models.items():
            for index, alias in enumerate(model.aliases):
                yield alias, ("models", name, "aliases", index)

    def _check_fallbacks(self) -> None:
        for name, model in self._settings.models.items():
            for index, fallback in enumerate(model.fallbacks):
                if fallback == name:
                    message = "must be another model than the one that falls back"
                    self._error(message, "models", name, "fallbacks", index)
            if model.context_fallback == name:
                message = "must be another model, with a larger context"
                self._error(message, "models", name, "context_fallback")

    def _check_routes(self) -> None:
        for path, route in self._settings.routes.items():
            if route.backend is not None and route.model is not None:
                self._error("must not be given beside backend", "routes", path, "model")
            elif route.backend is None and route.model is None:
                refused = any(
                    self._findings.told(self._places.at("routes", path, field))
                    for field in ("backend", "model")
                )
                if not refused:
                    self._error("must have one of backend, model (got none)", "routes", path)

    def _check_auto(self) -> None:
        auto = self._settings.auto
        if auto.default is not None:
            self._warn_of_unknown_model(auto.default, "auto", "default")
        for index, rule in enumerate(auto.rules):
            path = ("auto", "rules", index)
            self._warn_of_unknown_model(rule.model, *path, "model")
            if (
                rule.min_chars is not None
                and rule.max_chars is not None
                and rule.max_chars < rule.min_chars
            ):
                self._error(f"must be at least min_chars ({rule.min_chars})", *path, "max_chars")
            if _always_holds(rule) and index < len(auto.rules) - 1:
                self._warn("has no condition, so that no later rule is ever reached", *path)

    def _warn_of_unknown_model(self, model: str, *path: str | int) -> None:
        names = [name for name, _ in self._model_names()]
        if model not in names:
            hint = suggest(model, names)
            message = f"no model {model!r} in this file, so a backend must list it; {hint}"
            self._warn(message, *path)

    def _warn_of_groups(self) -> None:
        keys = self._settings.keys.items()
        idle = [name for name, key in keys if key.group is not None and key.models is None]
        if idle:
            self._warn(
                f"{', '.join(idle)}: reach no model, for workers cannot join yet; `models` of a "
                "key gives it others",
                *("keys", idle[0], "group"),
            )

    def _check_keys(self) -> None:
        digests: dict[str, Place] = {}
        for name, key in self._settings.keys.items():
            path = ("keys", name)
            given = [field for field in _KEY_SOURCES if getattr(key, field) is not None]
            refused = any(
                self._findings.told(self._places.at(*path, field)) for field in _KEY_SOURCES
            )
            if len(given) != 1 and not refused:
                got = " and ".join(given) or "none"
                self._error(f"must have one of sha256, env, file (got {got})", *path)
            if name in RESERVED_KEYS:
                message = f"must have another name: {name!r} means callers without a key"
                self._error(message, *path)
            self._warn_of_missing(key.env, key.file, *path)
            if key.group is not None and key.group not in self._settings.groups:
                hint = suggest(key.group, self._settings.groups)
                self._error(f"unknown group {key.group!r}; {hint}", *path, "group")
            if key.sha256 is not None:
                place = self._places.at(*path)
                first = digests.setdefault(key.sha256, place)
                if first is not place:
                    where = f"line {first.line} of {first.file}"
                    self._findings.error(place, f"must be another key than the one in {where}")

    def _warn_of_targets(self, name: str, model: Model) -> None:
        backends = self._settings.backends
        served_by = [backends[t.backend] for t in model.targets if t.backend in backends]
        spares = [
            backends[target.backend]
            for fallback in model.fallbacks
            if fallback in self._settings.models
            for target in self._settings.models[fallback].targets
            if target.backend in backends
        ]
        path = ("models", name)
        several = len({target.backend for target in model.targets}) > 1
        if served_by and all(map(_on_gpu, [*served_by, *spares])):
            self._warn(
                f"model {name!r} runs on a GPU only: give it a target on a CPU with a higher "
                "`order`, or a model of `fallbacks` that has one",
                *path,
            )
        elif not (several or spares or _embeds(name, model)) and len(backends) > 1:
            self._warn(
                f"model {name!r} has nothing to fall back to: give it a second target, or "
                "`fallbacks`",
                *path,
            )
        weights = {target.weights for target in model.targets}
        if several and _embeds(name, model) and (len(weights) > 1 or None in weights):
            self._warn(
                f"model {name!r} does not fail over: embeddings do so only between targets that "
                "declare the same `weights`",
                *path,
                "targets",
            )


def _is_host(name: str) -> bool:
    """Say whether a name can be looked up at all: its labels have bounds (RFC 1035, 2.3.4)."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def _has_host(url: str) -> bool:
    try:
        return _is_host(urlsplit(url).hostname or "")
    except ValueError:
        return False  # brackets without an IPv6 address


def _has_good_port(url: str) -> bool:
    try:
        return urlsplit(url).port != 0
    except ValueError:
        return False


def _holds_certificates(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except OSError:
        return False
    return True


def _on_gpu(backend: Backend) -> bool:
    return backend.device is Device.GPU or (backend.device is None and backend.type in _GPU_ENGINES)


def _embeds(name: str, model: Model) -> bool:
    names = (name, *model.aliases, *(target.model or "" for target in model.targets))
    return model.service is Service.EMBEDDINGS or (
        model.service is None and any("embed" in each.lower() for each in names)
    )


def _always_holds(rule: AutoRule) -> bool:
    return msgspec.structs.replace(rule, name="", model="") == AutoRule(name="", model="")
