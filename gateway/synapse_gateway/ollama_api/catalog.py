"""Ollama's lists of models, from what the route table and the probes know.

Shapes: api/types.go (`ListModelResponse`, `ProcessModelResponse`, `ShowResponse`) of Ollama 0.17.4;
recorded: tags, ps_loaded, show, show_embedding, version.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from synapse_gateway.ollama_api.replies import timestamp

API_VERSION = "0.17.4"
"""The Ollama whose API this package follows; some clients refuse to talk to older ones."""

_encode = msgspec.json.encode
_NEVER = timestamp(2**63 - 1)  # the last time that 64-bit nanoseconds hold, in the year 2262
_ZERO_TIME = "0001-01-01T00:00:00Z"


class CatalogModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as clients of Ollama see it. What is unknown keeps its default.

    Attributes:
        name: Name in the route table; requests may use it as it is listed.
        size: Bytes on disk.
        size_loaded: Bytes in memory, GPU included; `size` where unknown.
        size_vram: The part of `size_loaded` on GPUs, in bytes.
        digest: Hexadecimal SHA-256; where None, that of the name, so that it stays the same.
        format: File format such as "gguf".
        family: Architecture such as "llama".
        families: All of them, where there are several; empty for just `family`.
        parameter_size: In people's words, such as "134.52M".
        quantization_level: Such as "Q4_1".
        context_length: Tokens.
        embedding_length: Length of a vector.
        capabilities: Of completion, tools, insert, vision, embedding, thinking.
        modified_at: RFC 3339; Go's zero time, which clients show as never, where None.
        loaded: Whether it is in memory.
        expires_at: When it will be unloaded, RFC 3339; None for never.
        template: Its chat template.
    """

    name: str
    size: int = 0
    size_loaded: int = 0
    size_vram: int = 0
    digest: str | None = None
    format: str = ""
    family: str = ""
    families: tuple[str, ...] = ()
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ("completion",)
    modified_at: str | None = None
    loaded: bool = True
    expires_at: str | None = None
    template: str = ""


def same_names(name: str) -> tuple[str, ...]:
    """Return the names under which a model may be known: a missing tag means `latest`.

    Source: docs/api.md, "Model names". The name itself comes first.
    """
    last = name.rpartition("/")[2]
    if last.endswith(":latest"):
        return name, name.removesuffix(":latest")
    return (name,) if ":" in last else (name, f"{name}:latest")


def tags(models: list[CatalogModel]) -> bytes:
    """Return the answer of `/api/tags`: the models, most recently changed first."""
    ordered = sorted(models, key=lambda model: model.modified_at or "", reverse=True)
    return _encode({"models": [_listed(model) for model in ordered]})


def ps(models: list[CatalogModel]) -> bytes:
    """Return the answer of `/api/ps`: the models that are loaded, the longest-lived first."""
    loaded = [model for model in models if model.loaded]
    loaded.sort(key=_expires, reverse=True)
    return _encode({"models": [_running(model) for model in loaded]})


def show(model: CatalogModel) -> bytes:
    """Return the answer of `/api/show`.

    `model_info` is where clients look for the context length: under `ARCHITECTURE.context_length`,
    the architecture being `general.architecture`.
    """
    family = model.family or "unknown"
    info: dict[str, Any] = {"general.architecture": family}
    if model.context_length:
        info[f"{family}.context_length"] = model.context_length
    if model.embedding_length:
        info[f"{family}.embedding_length"] = model.embedding_length
    answer = {
        "modelfile": f"# Served through a gateway\nFROM {model.name}\n",
        "template": model.template,
        "details": _details(model),
        "model_info": info,
        "capabilities": model.capabilities,
        "modified_at": model.modified_at or _ZERO_TIME,
    }
    return _encode(answer)


def version(number: str = API_VERSION) -> bytes:
    """Return the answer of `/api/version`."""
    return _encode({"version": number})


def _listed(model: CatalogModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": model.modified_at or _ZERO_TIME,
        "size": model.size,
        "digest": _digest(model),
        "details": _details(model),
    }


def _running(model: CatalogModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model": model.name,
        "size": model.size_loaded or model.size,
        "digest": _digest(model),
        "details": _details(model),
        "expires_at": _expires(model),
        "size_vram": model.size_vram,
        "context_length": model.context_length,
    }


def _details(model: CatalogModel) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": model.families or ([model.family] if model.family else None),
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization_level,
    }


def _digest(model: CatalogModel) -> str:
    return model.digest or hashlib.sha256(model.name.encode()).hexdigest()


def _expires(model: CatalogModel) -> str:
    return model.expires_at or _NEVER
