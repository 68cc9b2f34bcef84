"""Any server that speaks OpenAI's REST API; also what the other adapters start from.

Proven against: the llama.cpp server and LiteLLM 1.106.2 (recordings in `gateway/tests/exchanges/`),
which were also probed as this kind. Error codes are those of OpenAI's reference
(https://platform.openai.com/docs/guides/error-codes).

Probe: the configured health path, else `GET /v1/models`, which every such server has and which
generates nothing. A server without it is asked for `/health`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, Probe, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply

TEXT = frozenset({Capability.CHAT, Capability.COMPLETIONS, Capability.EMBEDDINGS})
AUDIO = frozenset({Capability.SPEECH, Capability.TRANSCRIPTIONS, Capability.TRANSLATIONS})
PASSED_THROUGH = frozenset(
    {Capability.RESPONSES, Capability.RERANK, Capability.MESSAGES, Capability.COUNT_TOKENS}
)

CONTEXT_PHRASES = (
    "maximum context length",  # OpenAI, vLLM up to 0.15 and from 0.20
    "context_length_exceeded",
    "the model's context length is only",  # vLLM 0.16 to 0.19
    "exceeds the available context size",  # llama.cpp
    "longer than the model's context length",  # SGLang
)
"""How the engines that are often found behind a plain OpenAI URL say that a prompt is too long."""


_PROMPT_STATUSES = (400, 413, 422, 500)
"""Statuses with which engines refuse a prompt as too long."""


class OpenAICompatible:
    """Adapter for `openai-compatible`."""

    capabilities: frozenset[Capability] = TEXT | AUDIO | PASSED_THROUGH
    """Everything: the route table says which model is asked for what."""

    health_path: ClassVar[str] = ""
    """Path probed in place of `/v1/models`, where the kind has one."""
    context_field: ClassVar[str] = ""
    context_phrases: ClassVar[tuple[str, ...]] = CONTEXT_PHRASES
    missing_phrases: ClassVar[tuple[str, ...]] = ()
    """How the kind says that it has no such model."""
    busy_phrases: ClassVar[tuple[str, ...]] = ()
    """How the kind says that it is full, where its status does not."""

    invalid_phrases: ClassVar[tuple[str, ...]] = ()
    """How the kind says that the request is at fault, though it answers with a 5xx."""
    voice_phrases: ClassVar[tuple[str, ...]] = ()
    """How the kind says that a voice is not there, where its code does not."""
    unsupported_phrases: ClassVar[tuple[str, ...]] = ()
    """How the kind says that this model cannot do it, where its status is not 501."""

    async def probe(self, http: Http, health: str | None) -> Probe:
        """Look at the backend: health path, then models, then what the kind adds."""
        path = health or self.health_path
        try:
            reply = await answers.ask(http, path or "/v1/models")
            if not path and reply.status in (404, 405, 501):
                reply = await answers.ask(http, "/health")
        except answers.Unreachable as error:
            return Probe(up=False, detail=str(error))
        if reply.status != 200:
            return answers.down(reply)
        return await self.describe(http, reply, await self.models(http, reply, listed=not path))

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return the models, asking for them unless the health answer was already the list."""
        if not listed:
            found = await answers.ask_if_there(http, "/v1/models")
            if found is None:
                return None
            reply = found
        return answers.openai_models(reply.body, self.context_field) or None

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Put the probe together; kinds that tell of their load override this.

        Args:
            http: The backend.
            reply: The answer of its health path, 200.
            models: Its models, if it tells.
        """
        del http
        return Probe(up=True, status=reply.status, detail="ok", models=models)

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means, if more than its status does."""
        error = answers.error_of(body)
        known = answers.common_refusal(error)
        if known is not None:
            return known
        if status in _PROMPT_STATUSES and answers.says(error, self.context_phrases):
            return Refusal.CONTEXT_EXCEEDED
        for phrases, meaning in (
            (self.missing_phrases, Refusal.MODEL_NOT_FOUND),
            (self.busy_phrases, Refusal.OVERLOADED),
            (self.invalid_phrases, Refusal.INVALID_REQUEST),
            (self.voice_phrases, Refusal.VOICE_NOT_FOUND),
            (self.unsupported_phrases, Refusal.NOT_SUPPORTED),
        ):
            if answers.says(error, phrases):
                return meaning
        return None

    paths: ClassVar[Mapping[str, str]] = {}
    """The gateway's paths that are called otherwise at this kind."""

    def upstream_path(self, path: str) -> str:
        """Return the backend's path for one of the gateway's paths."""
        return self.paths.get(path, path)
