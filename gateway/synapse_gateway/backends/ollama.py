"""Ollama.

Proven against: Ollama 0.17.4, built from its Go module, without a GPU; its answers are kept in
`gateway/tests/exchanges/ollama/` (made by `record_ollama.py` there). The shape of `/api/ps` with a
model on a GPU is that of
https://github.com/ollama/ollama/blob/main/docs/api.md#list-running-models.

Probe: `/api/version`, `/api/tags` (what it has), `/api/ps` (what is loaded, and how much of it is
on the GPU: `size_vram` under `size` means that a part of the model computes on the CPU). It tells
nothing of its queue but 503 once that is full. A prompt longer than the context is cut silently on
its OpenAI paths; only `/api/chat` with `truncate: false` refuses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, DiscoveredModel, ModelFile, Probe, Refusal
from synapse_gateway.backends.openai_compatible import TEXT, OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import Http, Reply


class Ollama(OpenAICompatible):
    """Adapter for `ollama`."""

    capabilities = TEXT | {Capability.OLLAMA, Capability.RESPONSES, Capability.MESSAGES}
    health_path = "/api/version"
    context_phrases = ("exceeds the context length", "exceeds maximum context length")
    invalid_phrases = ("invalid format:", "must be of type", "no input provided")
    busy_phrases = ("server busy", "maximum pending requests exceeded")

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return what it has, each with what is loaded of it."""
        del reply, listed
        tags = await answers.ask_if_there(http, "/api/tags")
        if tags is None:
            return None
        ps = await answers.ask_if_there(http, "/api/ps")
        loaded = {item["name"]: item for item in _named(ps)}
        return tuple(_model(item, loaded.get(item["name"])) for item in _named(tags))

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add the version."""
        del http
        version = answers.mapping(answers.parse(reply.body)).get("version")
        return Probe(
            up=True, status=reply.status, detail="ok", models=models, version=answers.text(version)
        )

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means; it names a missing model in words only."""
        message = answers.error_of(body).message
        if status == 404 and message.startswith("model ") and message.endswith("not found"):
            return Refusal.MODEL_NOT_FOUND
        return super().refusal(status, body)


def _named(reply: Reply | None) -> list[dict[str, Any]]:
    data = answers.mapping(answers.parse(reply.body)).get("models") if reply is not None else None
    return [item for item in answers.items(data) if isinstance(item.get("name"), str)]


def _model(item: dict[str, Any], loaded: dict[str, Any] | None) -> DiscoveredModel:
    if loaded is None:
        return DiscoveredModel(id=item["name"], state="cold", file=_file(item))
    return DiscoveredModel(
        id=item["name"],
        context=answers.number(loaded.get("context_length")),
        size=answers.number(loaded.get("size")),
        size_vram=answers.number(loaded.get("size_vram")),
        expires_at=answers.time(loaded.get("expires_at")),
        file=_file(item),
    )


def _file(item: dict[str, Any]) -> ModelFile:
    details = answers.mapping(item.get("details"))
    families = details.get("families")
    return ModelFile(
        size=answers.number(item.get("size")) or 0,
        digest=answers.text(item.get("digest")),
        modified_at=answers.time(item.get("modified_at")),
        format=answers.text(details.get("format")),
        family=answers.text(details.get("family")),
        families=tuple(map(answers.text, families)) if isinstance(families, list) else (),
        parameter_size=answers.text(details.get("parameter_size")),
        quantization_level=answers.text(details.get("quantization_level")),
    )
