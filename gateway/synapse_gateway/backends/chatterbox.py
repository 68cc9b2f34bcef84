"""Chatterbox TTS Server.

Not run: its weights are in no package. Proven against its source,
https://github.com/devnen/Chatterbox-TTS-Server/blob/68213e75c248f4f4bbd185f7c20ec02722fdc79b/server.py,
from which the answers in `gateway/tests/exchanges/chatterbox/` are taken.

Probe: `/api/model-info`, whose `loaded` tells whether the model is there (speech is refused with
503 until it is). A configured health path (`/api/ui/initial-data` is a common choice) is asked
instead, and its `model_info` read in the same way. It has no list of models, and one request at a
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, Probe
from synapse_gateway.backends.openai_compatible import OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply


class Chatterbox(OpenAICompatible):
    """Adapter for `chatterbox`."""

    capabilities = frozenset({Capability.SPEECH})
    health_path = "/api/model-info"
    busy_phrases = ("is not currently loaded",)

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return none: it does not tell."""
        del http, reply, listed
        return None

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Say whether its model is loaded."""
        del http
        answer = answers.mapping(answers.parse(reply.body))
        info = answers.mapping(answer.get("model_info")) or answer
        loaded = info.get("loaded") is not False
        detail = "ok" if loaded else "the model is not loaded"
        return Probe(up=loaded, status=reply.status, detail=detail, models=models)
