"""Requests of Ollama's API as OpenAI requests.

Source: docs/api.md, api/types.go and server/routes.go of Ollama 0.17.4, and its recorded answers in
gateway/tests/exchanges/ollama/. Where Ollama answers 500 although the request is at fault (an
option of a wrong type, a bad `format`, no model for `/api/embed`) the status here is 400: 5xx of
the gateway means that a backend failed.
"""

from __future__ import annotations

import enum
import json
import re
from typing import Any, Literal, TypeVar

import msgspec

from synapse_gateway.ollama_api.durations import parse_keep_alive
from synapse_gateway.ollama_api.errors import OllamaRequestError, unknown_model
from synapse_gateway.ollama_api.messages import (
    Message,
    content_with_images,
    to_openai_messages,
)
from synapse_gateway.ollama_api.options import Options, Sampling, to_sampling

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"

_encode = msgspec.json.encode


class Reply(enum.Enum):
    """Which answer of Ollama's API a request gets."""

    CHAT = "/api/chat"
    GENERATE = "/api/generate"
    EMBED = "/api/embed"
    EMBEDDINGS = "/api/embeddings"


class Translated(msgspec.Struct, frozen=True):
    """A request of Ollama's API, ready for a backend that speaks OpenAI's.

    Attributes:
        path: OpenAI path; empty when `immediate` is set.
        body: OpenAI body; empty when `immediate` is set.
        model: The model as the request names it; Ollama's answers repeat it.
        stream: Whether the caller wants lines (Ollama's default for chat and generate).
        reply: The kind of answer.
        immediate: "load" or "unload" when the request only moves the model:
            `responses.immediate_reply` is the whole answer.
        dimensions: Length to which embeddings are cut; 0 for their own.
    """

    path: str
    body: bytes
    model: str
    stream: bool
    reply: Reply
    immediate: Literal["", "load", "unload"] = ""
    dimensions: int = 0


class OnlyOllamaCan(OllamaRequestError):
    """The request is right, but only an Ollama can serve it.

    Attributes:
        request: What is known of it; its `path` and `body` are empty.
    """

    def __init__(self, field: str, sentence: str, request: Translated) -> None:
        super().__init__(field, sentence)
        self.request = request


class _Common(msgspec.Struct):
    model: str | None = None
    keep_alive: int | float | str | None = None
    options: Options | None = None


class _Generating(_Common):
    stream: bool | None = None
    format: msgspec.Raw = msgspec.Raw()
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _Chat(_Generating):
    messages: list[Message] | None = None
    tools: list[msgspec.Raw] | None = None


class _Generate(_Generating):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class _Embed(_Common):
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None


class _Embeddings(_Common):
    prompt: str | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool = True


class _OpenAIBody(Sampling, omit_defaults=True, kw_only=True):
    model: str
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    stream: bool = False
    stream_options: _StreamOptions | None = None
    tools: list[msgspec.Raw] | None = None
    response_format: dict[str, Any] | None = None
    json_schema: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    logprobs: bool | int | None = None
    top_logprobs: int | None = None


class _EmbeddingsBody(msgspec.Struct, omit_defaults=True):
    model: str
    input: str | list[str]
    encoding_format: str | None = None
    truncate_prompt_tokens: int | None = None


_Request = TypeVar("_Request", bound=_Common)


def to_openai(path: str, body: bytes) -> Translated:
    """Translate a request.

    Args:
        path: `/api/chat`, `/api/generate`, `/api/embed` or `/api/embeddings`.
        body: The request's body, JSON.

    Raises:
        OllamaRequestError: The body is not a request of that path.
        OnlyOllamaCan: It is one, but asks for what no OpenAI backend can be asked.
        KeyError: The path is none of these.
    """
    return _TRANSLATIONS[path](body)


def _chat(body: bytes) -> Translated:
    request = _decode(body, _Chat)
    if not request.model:
        raise OllamaRequestError("model", "model is required")
    keep_alive = _keep_alive(request)
    if not request.messages:
        return _immediate(request.model, keep_alive, Reply.CHAT)
    out = _body(request, request.model)
    for at, message in enumerate(request.messages):
        if not message.role:  # what that means is up to the template
            field = f"messages[{at}].role"
            known = Translated("", b"", out.model, out.stream, Reply.CHAT)
            raise OnlyOllamaCan(field, f"{field} is required for this model", known)
    out.messages = to_openai_messages(request.messages)
    out.tools = request.tools or None
    _ask_for_chat(out, request)
    return _translated(CHAT_COMPLETIONS, out, Reply.CHAT)


def _generate(body: bytes) -> Translated:
    request = _decode(body, _Generate)
    if not request.model:
        raise unknown_model(Reply.GENERATE.value, "")
    keep_alive = _keep_alive(request)
    if request.raw and (request.template or request.system or request.context):
        raise OllamaRequestError("raw", "raw mode does not support template, system, or context")
    if not request.prompt:
        return _immediate(request.model, keep_alive, Reply.GENERATE)
    out = _body(request, request.model)
    known = Translated("", b"", out.model, out.stream, Reply.GENERATE)
    _refuse_what_only_ollama_can(request, known)
    if request.raw:
        return _translated(COMPLETIONS, _raw(out, request), Reply.GENERATE)
    content = content_with_images(request.prompt, request.images, "images")
    out.messages = [{"role": "user", "content": content}]
    if request.system:
        out.messages.insert(0, {"role": "system", "content": request.system})
    _ask_for_chat(out, request)
    return _translated(CHAT_COMPLETIONS, out, Reply.GENERATE)


def _embed(body: bytes) -> Translated:
    request = _decode(body, _Embed)
    if not request.model:
        raise OllamaRequestError("model", "model is required")
    keep_alive = _keep_alive(request)
    dimensions = max(request.dimensions or 0, 0)
    if not request.input:
        return _immediate(request.model, keep_alive, Reply.EMBED)
    # vLLM's name, on the caller's word only: no other engine can be asked to cut the input.
    cut = -1 if request.truncate else None
    out = _EmbeddingsBody(request.model, request.input, "float", cut)
    return Translated(
        EMBEDDINGS, _encode(out), out.model, False, Reply.EMBED, dimensions=dimensions
    )


def _embeddings(body: bytes) -> Translated:
    request = _decode(body, _Embeddings)
    if not request.model:
        raise OllamaRequestError("model", "model is required")
    keep_alive = _keep_alive(request)
    if not request.prompt:
        return _immediate(request.model, keep_alive, Reply.EMBEDDINGS)
    out = _EmbeddingsBody(request.model, request.prompt, "float")
    return Translated(EMBEDDINGS, _encode(out), out.model, False, Reply.EMBEDDINGS)


_TRANSLATIONS = {
    Reply.CHAT.value: _chat,
    Reply.GENERATE.value: _generate,
    Reply.EMBED.value: _embed,
    Reply.EMBEDDINGS.value: _embeddings,
}


def _refuse_what_only_ollama_can(request: _Generate, known: Translated) -> None:
    """Refuse what would silently be lost: other engines keep to their own template and tokens."""
    if request.template:
        field, text = "template", "template is not supported for this model; use raw instead"
    elif request.context:
        field, text = "context", "context is not supported for this model; use /api/chat instead"
    elif request.suffix:
        field, text = "suffix", f"{request.model} does not support insert"
    elif request.raw and request.images:
        field, text = "images", "images are not supported in raw mode for this model"
    else:
        return
    raise OnlyOllamaCan(field, text, known)


def _body(request: _Generating, model: str) -> _OpenAIBody:
    sampling = to_sampling(request.options or Options())
    out = _OpenAIBody(model=model, **msgspec.structs.asdict(sampling))
    if request.stream is not False:
        out.stream = True
        out.stream_options = _StreamOptions()
    return out


def _raw(out: _OpenAIBody, request: _Generate) -> _OpenAIBody:
    """Fill in what /v1/completions takes.

    llama.cpp reads `json_schema` there and not `response_format` (recorded:
    v1_completions_response_format, v1_completions_json_schema).
    """
    out.prompt = request.prompt
    schema = _format(request)
    if schema is not None:
        out.response_format = schema
        named = schema.get("json_schema")
        out.json_schema = named["schema"] if named else msgspec.Raw(b'{"type":"object"}')
    if request.logprobs:
        out.logprobs = request.top_logprobs or 0
    return out


def _ask_for_chat(out: _OpenAIBody, request: _Generating) -> None:
    out.response_format = _format(request)
    if isinstance(request.think, str):
        out.reasoning_effort = request.think
    elif request.think is not None:
        out.chat_template_kwargs = {"enable_thinking": request.think}
    if request.logprobs:
        out.logprobs = True
        out.top_logprobs = request.top_logprobs or None


def _translated(path: str, out: _OpenAIBody, reply: Reply) -> Translated:
    return Translated(path, _encode(out), out.model, out.stream, reply)


def _immediate(model: str, keep_alive: float | None, reply: Reply) -> Translated:
    """Only chat and generate unload; the other two just load (server/routes.go)."""
    unloads = keep_alive == 0 and reply in {Reply.CHAT, Reply.GENERATE}
    return Translated("", b"", model, False, reply, "unload" if unloads else "load")


def _format(request: _Generating) -> dict[str, Any] | None:
    """Return the `response_format` for `format`: "json", a JSON schema, or nothing."""
    raw = bytes(request.format).strip()
    if raw in {b"", b"null", b'""'}:
        return None
    if raw == b'"json"':
        return {"type": "json_object"}
    if not raw.startswith(b"{"):
        raise OllamaRequestError("format", 'format must be "json" or a JSON schema object')
    schema = {"name": "format", "schema": msgspec.Raw(raw)}
    return {"type": "json_schema", "json_schema": schema}


def _keep_alive(request: _Common) -> float | None:
    if request.keep_alive is None:
        return None
    try:
        return parse_keep_alive(request.keep_alive)
    except ValueError as error:
        raise OllamaRequestError(
            "keep_alive", f"keep_alive: {error}; such as 300, '5m' or -1"
        ) from None


def as_go_reads(body: bytes) -> bytes:
    """Return the object that Go's JSON package finds, in the spelling of the API.

    It reads the first value and leaves what follows, and takes the names of fields in any letter
    case (https://pkg.go.dev/encoding/json#Unmarshal). Only the names of the outermost object are
    respelled. A body that is none comes back as it is.
    """
    try:
        found, _ = json.JSONDecoder().raw_decode(body.decode().lstrip(" \t\r\n"))
    except (ValueError, RecursionError):
        return body
    if not isinstance(found, dict):
        return body
    return json.dumps({name.lower(): value for name, value in found.items()}).encode()


def _decode(body: bytes, kind: type[_Request]) -> _Request:
    if not body.strip():
        raise OllamaRequestError("", "missing request body")
    try:
        request = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error)) from None
    except RecursionError:
        raise OllamaRequestError("", "the request body is nested too deeply") from None
    except ValueError as error:  # malformed JSON, or not UTF-8
        raise OllamaRequestError("", f"the request body is not valid JSON: {error}") from None
    if isinstance(request, _Generating):
        _check(request)
    return request


def _check(request: _Generating) -> None:
    if not 0 <= (request.top_logprobs or 0) <= 20:
        raise OllamaRequestError("top_logprobs", "top_logprobs must be between 0 and 20")
    if isinstance(request.think, str) and request.think not in {"high", "medium", "low"}:
        raise OllamaRequestError("think", 'think must be true, false, "high", "medium" or "low"')


_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `\$\.?(?P<field>.*)`)?$", re.DOTALL)
_JSON_NAMES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


def _wrong_type(text: str) -> OllamaRequestError:
    """Turn msgspec's sentence into one that names the field and JSON's types."""
    match = _PLACE.match(text)
    field = (match["field"] or "") if match else ""
    what = match["what"] if match else text
    for python, name in _JSON_NAMES.items():
        what = re.sub(rf"\b{python}\b", name, what)
    what = what.replace("`", "").replace(" | null", "").replace(" | ", " or ")
    return OllamaRequestError(field, f"{field or 'request body'}: {what[:1].lower()}{what[1:]}")
