"""What the events of each kind of stream mean: content, end, error, or usage.

A dialect looks at one event and says what it is; it never changes it. The end of a stream is a
marker that the dialect names (`[DONE]`, `message_stop` ...): a body that ends without it was cut,
however politely the connection was closed.
"""

from __future__ import annotations

import enum
from typing import Any, Protocol

import msgspec


class Meaning(enum.Enum):
    """What an event is to the gateway."""

    OTHER = "other"
    CONTENT = "content"
    USAGE = "usage"
    """Holds nothing but the usage."""
    END = "end"
    ERROR = "error"
    MALFORMED = "malformed"


class Usage(msgspec.Struct, gc=False):
    """Tokens of a request, by whichever names the dialect gives them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None

    @property
    def input(self) -> int:
        """Tokens of the prompt; Anthropic's API leaves those out of `input_tokens` that its cache
        takes or gives.
        """
        counted = (self.input_tokens or 0) + (self.cache_creation_input_tokens or 0)
        counted += self.cache_read_input_tokens or 0
        return self.prompt_tokens or counted or self.total_tokens or 0

    @property
    def output(self) -> int:
        """Tokens of the answer."""
        return self.completion_tokens or self.output_tokens or 0


class Dialect(Protocol):
    """Reads the events of one stream; holds what it learnt."""

    tokens_in: int
    tokens_out: int
    content_events: int
    finished: bool
    """Whether the stream may end here without being cut."""

    def read(self, data: bytes | None, name: bytes = b"", /) -> Meaning:
        """Say what an event is by its data and its name."""
        ...

    def plain(self, data: bytes, /) -> bool:
        """Count an unnamed event that is content and tells nothing else; say whether it is one. Any
        other is not counted: `read` says what it is.
        """
        ...

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return an error object as an event of this dialect."""
        ...


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.encode


class _Counting:
    __slots__ = ("content_events", "finished", "tokens_in", "tokens_out")

    def __init__(self) -> None:
        self.tokens_in = 0
        self.tokens_out = 0
        self.content_events = 0
        self.finished = False

    def plain(self, _data: bytes, /) -> bool:
        """Leave every event to `read`."""
        return False

    def note(self, usage: Usage) -> None:
        """Keep the figures that are there; later ones replace earlier ones."""
        self.tokens_in = usage.input or self.tokens_in
        self.tokens_out = usage.output or self.tokens_out


class ChatDialect(_Counting):
    """Chunks of /v1/chat/completions and /v1/completions (OpenAI's API reference)."""

    __slots__ = ("_open",)

    def __init__(self) -> None:
        super().__init__()
        self._open: set[int] = set()

    def read(self, data: bytes | None, name: bytes = b"", /) -> Meaning:
        """Say what a chunk is; `finished` is also true once every choice has its reason."""
        if data is None:
            return Meaning.OTHER
        if data.strip() == b"[DONE]":
            # the end of nothing is no answer
            self.finished = bool(self.finished or self._open or self.content_events)
            return Meaning.END if self.finished else Meaning.OTHER
        try:
            chunk = _decode_chunk(data)
        except msgspec.ValidationError:
            return self._unusual(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Meaning.MALFORMED
        if chunk.error is not None or name == b"error":
            return Meaning.ERROR
        if chunk.usage is not None:
            self.note(chunk.usage)
        if chunk.choices:
            return self._choices(chunk.choices)
        if chunk.usage is None and _decode_any(data).get("object") == "error":
            return Meaning.ERROR
        return Meaning.OTHER if chunk.usage is None else Meaning.USAGE

    def plain(self, data: bytes, /) -> bool:
        """Count a chunk that holds content of one choice and tells nothing else; say whether it is
        one.
        """
        try:
            chunk = _decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        choices = chunk.choices
        if not choices or len(choices) > 1 or chunk.usage is not None or chunk.error is not None:
            return False
        choice = choices[0]
        if choice.finish_reason or not _has_content(choice):
            return False
        self._open.add(choice.index)
        self.content_events += 1
        self.finished = False
        return True

    def _choices(self, choices: list[_Choice]) -> Meaning:
        meaning = Meaning.OTHER
        for choice in choices:
            if _has_content(choice):
                self._open.add(choice.index)
                self.content_events += 1
                meaning = Meaning.CONTENT
            if choice.finish_reason:
                self._open.discard(choice.index)
                self.finished = True
                meaning = Meaning.CONTENT
            elif not self.finished:
                # announced by its role: the others may finish before it says a word
                self._open.add(choice.index)
        if self._open:
            self.finished = False
        return meaning

    def _unusual(self, data: bytes) -> Meaning:
        """Judge a chunk that is JSON, but not as the reference has it: only an error stops it."""
        try:
            value = _decode_any(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Meaning.MALFORMED
        if not isinstance(value, dict):
            return Meaning.MALFORMED
        if value.get("error") is not None:
            return Meaning.ERROR
        self.content_events += 1
        return Meaning.CONTENT

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return `data: {"error": ...}`, which OpenAI's clients raise as an API error."""
        return b"data: " + _encode({"error": error}) + b"\n\n"


def _has_content(choice: _Choice) -> bool:
    delta = choice.delta
    return bool(
        choice.text
        or (
            delta is not None
            and (
                delta.content
                or delta.tool_calls
                or delta.reasoning_content
                or delta.reasoning
                or delta.refusal
                or delta.function_call
                or delta.audio
            )
        )
    )


class _TypedResponse(msgspec.Struct):
    usage: Usage | None = None


class _Typed(msgspec.Struct):
    type: str = ""
    usage: Usage | None = None
    response: _TypedResponse | None = None
    message: Any = None
    error: Any = None


_decode_typed = msgspec.json.Decoder(_Typed).decode


class _TypedDialect(_Counting):
    """Events whose JSON has a `type`."""

    __slots__ = ()
    ends: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset({"error"})

    def read(self, data: bytes | None, name: bytes = b"", /) -> Meaning:
        """Say what an event is by its `type`."""
        if data is None:
            return Meaning.OTHER
        if data == b"[DONE]":
            return Meaning.END if self.finished else Meaning.OTHER
        try:
            typed = _decode_typed(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Meaning.MALFORMED
        kind = typed.type or name.decode("utf-8", "replace")
        if kind in self.errors or (not kind and typed.error is not None):
            return Meaning.ERROR
        self._note(typed)
        if kind in self.ends:
            self.finished = True
            return Meaning.END
        if kind.endswith((".delta", "_delta")):
            self.content_events += 1
            return Meaning.CONTENT
        return Meaning.OTHER

    def _note(self, typed: _Typed) -> None:
        if typed.usage is not None:
            self.note(typed.usage)
        if typed.response is not None and typed.response.usage is not None:
            self.note(typed.response.usage)


class ResponsesDialect(_TypedDialect):
    """Events of /v1/responses (OpenAI's API reference, streaming events)."""

    __slots__ = ()
    ends = frozenset({"response.completed", "response.incomplete"})
    errors = frozenset({"error", "response.failed"})

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the `error` event of the Responses API."""
        body = {
            "type": "error",
            "code": error["code"],
            "message": error["message"],
            "param": error["param"],
        }
        return b"event: error\ndata: " + _encode(body) + b"\n\n"


class MessagesDialect(_TypedDialect):
    """Events of /v1/messages (Anthropic's API reference, streaming messages)."""

    __slots__ = ()
    ends = frozenset({"message_stop"})

    def _note(self, typed: _Typed) -> None:
        super()._note(typed)
        if isinstance(typed.message, dict):
            try:
                self.note(msgspec.convert(typed.message.get("usage", {}), Usage))
            except msgspec.ValidationError:
                return

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the `error` event of the Messages API."""
        body = {"type": "error", "error": {"type": error["type"], "message": error["message"]}}
        return b"event: error\ndata: " + _encode(body) + b"\n\n"


class AudioDialect(_TypedDialect):
    """Events of /v1/audio/speech and /v1/audio/transcriptions (OpenAI's API reference)."""

    __slots__ = ()
    ends = frozenset({"speech.audio.done", "transcript.text.done"})

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return `data: {"error": ...}`."""
        return b"data: " + _encode({"error": error}) + b"\n\n"


class _Segment(msgspec.Struct):
    text: str | None = None
    error: Any = None


_decode_segment = msgspec.json.Decoder(_Segment).decode


class SegmentDialect(_Counting):
    """Events of /stt/stream: an unnamed one a segment, then one named `done`."""

    __slots__ = ()

    def read(self, data: bytes | None, name: bytes = b"", /) -> Meaning:
        """Say what an event is by its name."""
        if data is None:
            return Meaning.OTHER
        try:
            segment = _decode_segment(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Meaning.MALFORMED
        if name == b"done":
            self.finished = True
            return Meaning.END
        if name == b"error" or segment.error is not None:
            return Meaning.ERROR
        if segment.text is None:
            return Meaning.OTHER
        self.content_events += 1
        return Meaning.CONTENT

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return an event named `error`."""
        return b"event: error\ndata: " + _encode({"error": error}) + b"\n\n"


class _OllamaLine(msgspec.Struct):
    message: Any = None
    response: str | None = None
    thinking: str | None = None
    done: bool = False
    error: Any = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


_decode_ollama = msgspec.json.Decoder(_OllamaLine).decode


class OllamaDialect(_Counting):
    """Lines of /api/chat and /api/generate (Ollama's API documentation)."""

    __slots__ = ()

    def read(self, data: bytes | None, _name: bytes = b"", /) -> Meaning:
        """Say what a line is; the one with `done: true` ends the stream."""
        if data is None:
            return Meaning.OTHER
        try:
            line = _decode_ollama(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return Meaning.MALFORMED
        if line.error is not None:
            return Meaning.ERROR
        if line.done:
            self.tokens_in = line.prompt_eval_count or 0
            self.tokens_out = line.eval_count or 0
            self.finished = True
            return Meaning.END
        message = line.message
        if (
            line.response
            or line.thinking
            or (
                isinstance(message, dict)
                and any(message.get(key) for key in ("content", "thinking", "tool_calls"))
            )
        ):
            self.content_events += 1
            return Meaning.CONTENT
        return Meaning.OTHER

    def error_event(self, error: dict[str, Any]) -> bytes:
        """Return the error line of Ollama's streams."""
        return _encode({"error": error["message"]}) + b"\n"
