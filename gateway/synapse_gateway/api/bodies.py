"""What the gateway reads of a JSON request body: as little as routing needs, but that much exactly.

A field that is read is checked; what is not read is the backend's business and passes as bytes.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, TypeVar, cast

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from synapse_gateway.errors import InvalidRequest, Unprocessable

Number = float | int | None
T = TypeVar("T", bound="msgspec.Struct")
Language = Annotated[str, Meta(pattern="^[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*$")]
Count = Annotated[int, Meta(ge=0)] | None


class Message(msgspec.Struct):
    """A message of a chat."""

    role: str
    content: Raw | UnsetType = UNSET
    tool_calls: list[dict[str, Any]] | None = None


class StreamOptions(msgspec.Struct):
    """`stream_options`."""

    include_usage: bool | None = None


class Body(msgspec.Struct):
    """Fields that every kind of request may have."""

    model: str | None = None
    stream: bool | None = None


class Generating(Body):
    """Fields of requests that generate text with OpenAI's older APIs."""

    stream_options: StreamOptions | None = None
    temperature: Number = None
    top_p: Number = None
    presence_penalty: Number = None
    frequency_penalty: Number = None
    max_tokens: Count = None
    max_completion_tokens: Count = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None


class Chat(Generating):
    """Body of /v1/chat/completions."""

    messages: Annotated[list[Message], Meta(min_length=1)] | UnsetType = UNSET
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None


class Completion(Generating):
    """Body of /v1/completions."""

    prompt: str | list[str | int | list[int]] | UnsetType = UNSET
    logprobs: Count = None


class Embeddings(Body):
    """Body of /v1/embeddings."""

    input: Raw | UnsetType = UNSET
    encoding_format: str | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class Responses(Body):
    """Body of /v1/responses."""

    input: Raw | UnsetType = UNSET


class Rerank(Body):
    """Body of /v1/rerank."""

    query: Raw | UnsetType = UNSET
    documents: Raw | UnsetType = UNSET


class Messages(Body):
    """Body of /v1/messages and /v1/messages/count_tokens."""

    messages: Annotated[list[Message], Meta(min_length=1)] | UnsetType = UNSET
    system: Raw | UnsetType = UNSET
    tools: list[dict[str, Any]] | None = None


class Speech(Body):
    """Body of /v1/audio/speech."""

    input: str | UnsetType = UNSET
    voice: Raw | UnsetType = UNSET
    response_format: str | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] | None = None
    stream_format: str | None = None


class Synthesize(msgspec.Struct):
    """Body of /tts/synthesize and /tts/stream."""

    text: Annotated[str, Meta(min_length=1, max_length=5000)] | UnsetType = UNSET
    voice_id: str | None = None
    language: Language = "en"
    speed: Annotated[float, Meta(ge=0.5, le=2.0)] = 1.0
    split_sentences: bool = True


class Share(msgspec.Struct):
    """A voice's part in a blend."""

    voice_id: str
    weight: Annotated[float, Meta(gt=0, le=1)]


class Interpolate(msgspec.Struct):
    """Body of /tts/interpolate."""

    text: Annotated[str, Meta(min_length=1, max_length=5000)] | UnsetType = UNSET
    voices: Annotated[list[Share], Meta(min_length=2, max_length=5)] | UnsetType = UNSET
    language: Language = "en"
    speed: Annotated[float, Meta(ge=0.5, le=2.0)] = 1.0


class Show(Body):
    """Body of /api/show."""

    name: str | None = None
    """An older name of `model`."""


REQUIRED: dict[type[msgspec.Struct], tuple[str, ...]] = {
    Chat: ("messages",),
    Completion: ("prompt",),
    Embeddings: ("input",),
    Responses: (),
    Rerank: ("query", "documents"),
    Messages: ("messages",),
    Speech: ("input",),
    Synthesize: ("text",),
    Interpolate: ("text", "voices"),
    Show: (),
}

encode = msgspec.json.encode
_DECODERS = {kind: msgspec.json.Decoder(kind).decode for kind in REQUIRED}
_AT = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<where>.*)`)?$", re.DOTALL)


def parse(
    kind: type[T], body: bytes, wrong: type[InvalidRequest | Unprocessable] = InvalidRequest
) -> T:
    """Read a body.

    Args:
        kind: What it should be.
        body: JSON, as it came.
        wrong: What a field that is missing or cannot be is answered with.

    Raises:
        InvalidRequest: It is not JSON, lacks a field, or a field is of the wrong type; the error
            names the field.
        Unprocessable: The latter two, if `wrong` says so.
    """
    try:
        parsed = cast("T", _DECODERS[kind](body))
    except msgspec.ValidationError as error:
        raise _wrong_field(str(error), wrong) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidRequest(f"The body is not valid JSON: {reason}", code="invalid_json") from None
    for name in REQUIRED[kind]:
        if getattr(parsed, name) is UNSET:
            raise wrong(f"{name}: is required", param=name, code="missing_field")
    return parsed


def _wrong_field(
    text: str, wrong: type[InvalidRequest | Unprocessable]
) -> InvalidRequest | Unprocessable:
    match = _AT.match(text)
    what, where = (match["what"], match["where"]) if match else (text, None)
    if where is None:
        return InvalidRequest(f"The body must be a JSON object: {what}", code="invalid_type")
    sentence = what[:1].lower() + what[1:].replace("`", "")
    return wrong(f"{where}: {sentence}", param=where, code="invalid_type")


def text_of(content: Raw | UnsetType | None) -> tuple[str, bool]:
    """Return the text of a message's content, and whether it holds an image.

    Args:
        content: A string, or a list of parts as OpenAI and Anthropic have them.
    """
    if content is UNSET or content is None:
        return "", False
    value = msgspec.json.decode(content)
    if isinstance(value, str):
        return value, False
    if not isinstance(value, list):
        return "", False
    texts: list[str] = []
    images = False
    for part in value:
        if not isinstance(part, dict):
            continue
        if part.get("type") in {"image_url", "input_image", "image"}:
            images = True
        text = part.get("text")
        if isinstance(text, str):
            texts.append(text)
    return "\n".join(texts), images


def refuse_other_spellings(body: bytes) -> None:
    """Refuse a `Model` beside `model`: Ollama, as every reader by Go's JSON package, takes the last
    of them whatever its letter case, so a key could reach a model that it may not see.

    Raises:
        InvalidRequest: There is one.
    """
    for name in _decode_members(body):
        if name != "model" and name.lower() == "model":
            raise InvalidRequest(f"{name}: is written model", param=name, code="unknown_field")


def with_fields(body: bytes, fields: dict[str, Any]) -> bytes:
    """Return a JSON object with some fields replaced or added, every other byte for byte."""
    members = _decode_members(body)
    for name, value in fields.items():
        members[name] = Raw(msgspec.json.encode(value))
    return msgspec.json.encode(members)


def refuse_several_of_nothing(body: Completion) -> None:
    """Refuse an empty prompt that should be continued in several ways: llama.cpp (tried as
    xllamacpp 2026.10.11549) never answers it, and the slots that it took stay taken for good.

    Raises:
        InvalidRequest: It is one.
    """
    prompt = body.prompt
    if (body.n or 1) > 1 and (
        not prompt or (isinstance(prompt, list) and not all(map(_says, prompt)))
    ):
        raise InvalidRequest(
            "prompt: must not be empty where n is more than 1", param="prompt", code="empty_prompt"
        )


def _says(part: str | int | list[int]) -> bool:
    return isinstance(part, int) or bool(part)


def stream_options(body: bytes) -> dict[str, Any]:
    """Return a body's `stream_options`, those that only the backend knows as well."""
    options = msgspec.json.decode(_decode_members(body).get("stream_options", Raw(b"{}")))
    return options if isinstance(options, dict) else {}


def renamed(body: bytes, name: str) -> bytes:
    """Return an answer or an event with its `model` replaced wherever the APIs have it: at the top,
    in the `response` of the Responses API, in the `message` of the Messages API.
    """
    members = _decode_members(body)
    for part in ("response", "message"):
        inner = members.get(part)
        if (
            inner is not None
            and bytes(inner).startswith(b"{")
            and "model" in _decode_members(inner)
        ):
            members[part] = Raw(with_fields(bytes(inner), {"model": name}))
    if "model" in members:
        members["model"] = Raw(msgspec.json.encode(name))
    return msgspec.json.encode(members)


_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
