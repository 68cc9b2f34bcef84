"""The parts of OpenAI's answers that Ollama's answers are made of.

Shapes: OpenAI's reference of `/v1/chat/completions`, `/v1/completions` and `/v1/embeddings`;
besides, the fields that engines add: `reasoning_content` (llama.cpp, vLLM, SGLang) or `reasoning`
(Ollama, newer vLLM), `timings` (llama.cpp, recorded: v1_chat).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from synapse_gateway.ollama_api.errors import UntranslatableReply


class Function(msgspec.Struct):
    """The function of a tool call, or a piece of one; `arguments` is JSON text."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Message(msgspec.Struct):
    """A message or a delta."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct):
    """A choice of any kind of completion, streamed or not."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class Usage(msgspec.Struct):
    """Token counts."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Timings(msgspec.Struct):
    """llama.cpp's own clock, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None


class Completion(msgspec.Struct):
    """A completion, or a chunk of one."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    timings: Timings | None = None
    error: Any = None


class Embedding(msgspec.Struct):
    """One vector."""

    embedding: list[float]
    index: int = 0


class Embeddings(msgspec.Struct):
    """The answer of `/v1/embeddings`."""

    data: list[Embedding]
    usage: Usage | None = None


_Kind = TypeVar("_Kind")


def decode(data: bytes, kind: type[_Kind]) -> _Kind:
    """Read an answer or an event.

    Raises:
        UntranslatableReply: It is not JSON of that shape.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError):
        raise UntranslatableReply("the model's answer could not be read") from None
