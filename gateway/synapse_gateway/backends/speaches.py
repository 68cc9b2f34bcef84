"""Speaches (speech to text and text to speech).

Not run: its models come from a hub. Proven against its source,
https://github.com/speaches-ai/speaches/tree/870e1e16a73452496e99d49f759eabd692a8e0e0/src/speaches/routers,
from which the answers in `gateway/tests/exchanges/speaches/` are taken.

Probe: `/health`, `/v1/models` (each with its `task`), `/api/ps` (ids of those in memory). It loads
and unloads models by itself; one that it does not have is answered with 404 and `detail`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, DiscoveredModel
from synapse_gateway.backends.openai_compatible import AUDIO, OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import Http, Reply

_TASKS = {
    "automatic-speech-recognition": frozenset({Capability.TRANSCRIPTIONS, Capability.TRANSLATIONS}),
    "text-to-speech": frozenset({Capability.SPEECH}),
}


class Speaches(OpenAICompatible):
    """Adapter for `speaches`."""

    capabilities = AUDIO
    health_path = "/health"
    missing_phrases = ("is not installed locally",)

    async def models(
        self, http: Http, reply: Reply, *, listed: bool
    ) -> tuple[DiscoveredModel, ...] | None:
        """Return what is installed, with what each does and whether it is in memory."""
        del reply, listed
        found = await answers.ask_if_there(http, "/v1/models")
        if found is None:
            return None
        ps = await answers.ask_if_there(http, "/api/ps")
        listed_ids = answers.mapping(answers.parse(ps.body)).get("models") if ps else None
        running = set(filter(_is_text, listed_ids)) if isinstance(listed_ids, list) else set()
        data = answers.items(answers.mapping(answers.parse(found.body)).get("data"))
        return tuple(_model(item, running) for item in data if _is_text(item.get("id")))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _model(item: dict[str, Any], running: set[Any]) -> DiscoveredModel:
    task = item.get("task")
    return DiscoveredModel(
        id=item["id"],
        state="hot" if item["id"] in running else "cold",
        capabilities=_TASKS.get(task, frozenset()) if isinstance(task, str) else frozenset(),
    )
