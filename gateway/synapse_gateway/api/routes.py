"""The routes of the hot path: what each asks for, and how its bodies and answers are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.api import bodies
from synapse_gateway.backends.base import Capability
from synapse_gateway.proxy.dialects import (
    AudioDialect,
    ChatDialect,
    MessagesDialect,
    ResponsesDialect,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.proxy.dialects import Dialect


class HotRoute(NamedTuple):
    """A route of OpenAI's API (or one that is passed through like it)."""

    path: str
    capability: Capability
    body: type[bodies.Body] | None
    """None: multipart form data."""
    dialect: Callable[[], Dialect] | None
    summary: str
    asks_usage: bool = False
    """Whether a stream's usage comes only when `stream_options` asks for it."""
    expects_json: bool = True


OPENAI_ROUTES = {
    route.path: route
    for route in (
        HotRoute(
            "/v1/chat/completions",
            Capability.CHAT,
            bodies.Chat,
            ChatDialect,
            "Answer a chat.",
            asks_usage=True,
        ),
        HotRoute(
            "/v1/completions",
            Capability.COMPLETIONS,
            bodies.Completion,
            ChatDialect,
            "Continue a text.",
            asks_usage=True,
        ),
        HotRoute(
            "/v1/embeddings",
            Capability.EMBEDDINGS,
            bodies.Embeddings,
            None,
            "Turn texts into vectors.",
        ),
        HotRoute(
            "/v1/responses",
            Capability.RESPONSES,
            bodies.Responses,
            ResponsesDialect,
            "Answer by OpenAI's Responses API.",
        ),
        HotRoute(
            "/v1/rerank",
            Capability.RERANK,
            bodies.Rerank,
            None,
            "Order documents by how well they fit a query.",
        ),
        HotRoute(
            "/v1/messages",
            Capability.MESSAGES,
            bodies.Messages,
            MessagesDialect,
            "Answer by Anthropic's Messages API.",
        ),
        HotRoute(
            "/v1/messages/count_tokens",
            Capability.COUNT_TOKENS,
            bodies.Messages,
            None,
            "Count the tokens of messages.",
        ),
        HotRoute(
            "/v1/audio/speech",
            Capability.SPEECH,
            bodies.Speech,
            AudioDialect,
            "Speak a text.",
            expects_json=False,
        ),
        HotRoute(
            "/v1/audio/transcriptions",
            Capability.TRANSCRIPTIONS,
            None,
            AudioDialect,
            "Write down what is said in a recording.",
            expects_json=False,
        ),
        HotRoute(
            "/v1/audio/translations",
            Capability.TRANSLATIONS,
            None,
            AudioDialect,
            "Write down in English what is said in a recording.",
            expects_json=False,
        ),
    )
}
"""By path."""
