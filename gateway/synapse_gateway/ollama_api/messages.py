"""Ollama's chat messages as OpenAI's.

The shapes are those of api.md (`/api/chat`) and api/types.go (`Message`, `ToolCall`) in Ollama
0.17.4, and of OpenAI's reference of `/v1/chat/completions`.
"""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from synapse_gateway.ollama_api.errors import OllamaRequestError

# The first base64 characters of each image format that engines read.
_IMAGE_TYPES = {"iVBORw0KGgo": "png", "/9j/": "jpeg", "UklGR": "webp", "R0lGOD": "gif", "Qk": "bmp"}


class Function(msgspec.Struct):
    """The function of a tool call; `arguments` is an object."""

    name: str = ""
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class ToolCall(msgspec.Struct):
    """A tool call of an earlier answer."""

    function: Function
    id: str | None = None


class Message(msgspec.Struct):
    """A message of `/api/chat`."""

    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _CallIds:
    """Pairs tool results with calls: Ollama's clients name the tool, OpenAI's name the call."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[str, str]] = []

    def of_call(self, call: ToolCall) -> str:
        self._count += 1
        name = call.id or f"call_{self._count}"
        self._open.append((name, call.function.name))
        return name

    def of_result(self, message: Message) -> str:
        """Return the id that the message names, or that of its tool's oldest open call."""
        wanted = message.tool_call_id
        matching = [
            pair
            for pair in self._open
            if (pair[0] == wanted if wanted else pair[1] == message.tool_name)
        ]
        for pair in matching or self._open:
            if wanted and pair[0] != wanted:
                break
            self._open.remove(pair)
            return pair[0]
        return wanted or "call_unknown"


def to_openai_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Return the messages in OpenAI's shape.

    Raises:
        OllamaRequestError: An image is not base64, or the arguments of a call are no object.
    """
    ids = _CallIds()
    return [_message(message, f"messages[{at}]", ids) for at, message in enumerate(messages)]


def _message(message: Message, field: str, ids: _CallIds) -> dict[str, Any]:
    out: dict[str, Any] = {
        "role": (message.role or "").lower(),
        "content": content_with_images(message.content or "", message.images, f"{field}.images"),
    }
    if message.thinking:
        out["reasoning_content"] = message.thinking
    if message.tool_calls:
        out["tool_calls"] = [
            _tool_call(call, f"{field}.tool_calls[{at}]", ids)
            for at, call in enumerate(message.tool_calls)
        ]
    if out["role"] == "tool":
        out["tool_call_id"] = ids.of_result(message)
        if message.tool_name:
            out["name"] = message.tool_name
    return out


def _tool_call(call: ToolCall, field: str, ids: _CallIds) -> dict[str, Any]:
    arguments = bytes(call.function.arguments).strip()
    if arguments == b"null":  # a nil map of Go
        arguments = b"{}"
    if not arguments.startswith(b"{"):
        field = f"{field}.function.arguments"
        raise OllamaRequestError(field, f"{field} must be an object")
    function = {"name": call.function.name, "arguments": arguments.decode()}
    return {"id": ids.of_call(call), "type": "function", "function": function}


def content_with_images(text: str, images: list[str] | None, field: str) -> Any:
    """Return the content of a message: its text, or parts when there are images.

    Raises:
        OllamaRequestError: An image is not base64 (recorded: chat_images_not_base64).
    """
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for at, image in enumerate(images):
        url = _data_url(image, f"{field}[{at}]")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _data_url(image: str, field: str) -> str:
    image = image.replace("\n", "").replace("\r", "")  # Go's decoder skips line ends
    try:
        binascii.a2b_base64(image, strict_mode=True)
    except ValueError:
        raise OllamaRequestError(field, f"{field} must be an image in base64") from None
    kinds = (kind for start, kind in _IMAGE_TYPES.items() if image.startswith(start))
    # Engines look at the bytes, not at the type that is claimed.
    return f"data:image/{next(kinds, 'jpeg')};base64,{image}"
