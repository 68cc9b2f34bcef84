"""Chatterbox TTS Server.

Not run: its weights are in no package. Proven against its source,
https://github.com/devnen/Chatterbox-TTS-Server/blob/68213e75c248f4f4bbd185f7c20ec02722fdc79b/server.py,
from which the answers in `gateway/tests/exchanges/chatterbox/` are taken.

Probe: `/api/model-info`, whose `loaded` tells whether the model is there (speech is refused with
503 until it is) and which languages it speaks; `/v1/audio/voices` lists the voices that it comes
with. A configured health path (`/api/ui/initial-data` is a common choice) is asked instead, and its
`model_info` read in the same way. It has no list of models, and one request at a time. Speech is
asked for by its own `/tts`, which knows a language and recordings to clone.
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

    capabilities = frozenset({Capability.SPEECH, Capability.CLONING, Capability.INTERPOLATION})
    health_path = "/api/model-info"
    busy_phrases = ("is not currently loaded",)
    missing_phrases = ("predefined voice file",)
    """It has not the voice that it is asked for where the caller named none."""
    voice_phrases = ("reference audio file '",)

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return none: it does not tell."""
        del http, reply, listed
        return None

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Say whether its model is loaded, and what it can speak."""
        answer = answers.mapping(answers.parse(reply.body))
        info = answers.mapping(answer.get("model_info")) or answer
        loaded = info.get("loaded") is not False
        detail = "ok" if loaded else "the model is not loaded"
        languages = answers.mapping(info.get("supported_languages"))
        found = await answers.ask_if_there(http, "/v1/audio/voices")
        voices = answers.mapping(answers.parse(found.body)).get("voices") if found else None
        return Probe(
            up=loaded,
            status=reply.status,
            detail=detail,
            models=models,
            languages=tuple((code, answers.text(name)) for code, name in languages.items()),
            voices=tuple(filter(answers.text, voices)) if isinstance(voices, list) else (),
        )
