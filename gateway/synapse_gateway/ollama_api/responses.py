"""OpenAI's answers as answers of Ollama's API.

Source: docs/api.md and server/routes.go of Ollama 0.17.4 and its recorded answers in
gateway/tests/exchanges/ollama/. No answer holds `context` (token ids that only Ollama could read
back) and none a `load_duration` (no other engine tells it).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from synapse_gateway.ollama_api import openai_replies as openai
from synapse_gateway.ollama_api.errors import UntranslatableReply, error_line, message_of
from synapse_gateway.ollama_api.replies import (
    CallPieces,
    Metrics,
    calls_from_openai,
    line,
    logprobs_from_openai,
    timestamp,
)
from synapse_gateway.ollama_api.requests import Reply

if TYPE_CHECKING:
    from synapse_gateway.ollama_api.replies import Call
    from synapse_gateway.ollama_api.requests import Translated

NDJSON = "application/x-ndjson"
"""Content type of a stream."""
JSON = "application/json; charset=utf-8"
"""Content type of everything else."""

_encode = msgspec.json.encode
_MILLISECOND = 1_000_000
_CUT = "the model's answer ended before it was complete"


class Clock(Protocol):
    """Where the time comes from; the module `time` is one."""

    def time_ns(self) -> int:
        """Return nanoseconds since the epoch."""
        ...

    def monotonic_ns(self) -> int:
        """Return nanoseconds of a clock that is never set back."""
        ...


def immediate_reply(request: Translated, clock: Clock) -> bytes:
    """Return the answer to a request that only loads or unloads.

    Recorded: chat_load, chat_unload, generate_load, generate_unload, embed_empty, embeddings_empty.
    """
    if request.reply is Reply.EMBED:
        return _encode({"model": request.model, "embeddings": []})
    if request.reply is Reply.EMBEDDINGS:
        return _encode({"embedding": []})
    return line(
        model=request.model,
        created_at=timestamp(clock.time_ns()),
        chat=request.reply is Reply.CHAT,
        done_reason=request.immediate or "load",
    )


def from_openai(request: Translated, body: bytes, *, started_ns: int, clock: Clock) -> bytes:
    """Translate a whole answer.

    Args:
        request: What the answer is to.
        body: The backend's body of status 200.
        started_ns: When the request arrived, by `clock.monotonic_ns`.
        clock: Tells the time now.

    Raises:
        UntranslatableReply: The body is not the OpenAI answer that the path promises.
    """
    total = clock.monotonic_ns() - started_ns
    if request.reply in {Reply.EMBED, Reply.EMBEDDINGS}:
        return _embeddings(request, body, total)
    completion = openai.decode(body, openai.Completion)
    if not completion.choices:
        raise UntranslatableReply("the model's answer holds no choice")
    choice = completion.choices[0]
    message = choice.message or openai.Message(content=choice.text)
    calls = calls_from_openai(message.tool_calls or [])
    return line(
        model=request.model,
        created_at=timestamp(clock.time_ns()),
        chat=request.reply is Reply.CHAT,
        text=(message.content or "") + calls.text,
        thinking=message.reasoning_content or message.reasoning or "",
        calls=calls.whole,
        done_reason=_done_reason(choice.finish_reason),
        logprobs=logprobs_from_openai(choice.logprobs),
        metrics=_metrics(completion.usage, completion.timings, total, 0),
    )


def _embeddings(request: Translated, body: bytes, total: int) -> bytes:
    answer = openai.decode(body, openai.Embeddings)
    vectors = [item.embedding for item in sorted(answer.data, key=lambda item: item.index)]
    if request.reply is Reply.EMBEDDINGS:
        if len(vectors) != 1:
            raise UntranslatableReply("the model's answer does not hold one embedding")
        return _encode({"embedding": vectors[0]})
    out = {
        "model": request.model,
        "embeddings": [_normal(vector, request.dimensions) for vector in vectors],
        "total_duration": total,
        "prompt_eval_count": (answer.usage.prompt_tokens if answer.usage else None) or 0,
    }
    return _encode({key: value for key, value in out.items() if value != 0})


def _normal(vector: list[float], dimensions: int) -> list[float]:
    """Cut a vector and bring it to length 1, as Ollama does (server/routes.go, `EmbedHandler`)."""
    if dimensions:
        vector = vector[:dimensions]
    length = math.hypot(*vector)
    # Most engines normalise: their figures then stay as they came.
    if length == 0 or math.isclose(length, 1, abs_tol=1e-6):
        return vector
    return [value / length for value in vector]


def _done_reason(finish_reason: str | None) -> str:
    """Return Ollama's reason: it knows only stop and length (llm/server.go, `DoneReason`)."""
    return "length" if finish_reason == "length" else "stop"


def _metrics(
    usage: openai.Usage | None, timings: openai.Timings | None, total: int, first: int
) -> Metrics:
    """Return the figures of the last line.

    Args:
        usage: Token counts, if the backend told any.
        timings: The engine's own times, which go before ours.
        total: Nanoseconds from request to end.
        first: Nanoseconds from request to the first piece of the answer; 0 if it came whole, then
            all the time counts as generation.
    """
    prompt = _nanoseconds(timings.prompt_ms) if timings else 0
    generation = _nanoseconds(timings.predicted_ms) if timings else 0
    return Metrics(
        total_duration=total,
        prompt_eval_count=(usage.prompt_tokens if usage else None) or 0,
        prompt_eval_duration=prompt or first,
        eval_count=(usage.completion_tokens if usage else None) or 0,
        eval_duration=generation or total - first,
    )


def _nanoseconds(milliseconds: float | None) -> int:
    return round((milliseconds or 0) * _MILLISECOND)


class StreamTranslator:
    """Turns the events of an OpenAI stream into the lines of Ollama's.

    One for each attempt that reaches the caller. Not for embeddings, which never stream.

    Args:
        request: What the stream answers.
        started_ns: When the request arrived, by `clock.monotonic_ns`.
        clock: Tells the time.
    """

    def __init__(self, request: Translated, *, started_ns: int, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._started = started_ns
        self._first = 0
        self._calls = CallPieces()
        self._finish_reason: str | None = None
        self._usage: openai.Usage | None = None
        self._timings: openai.Timings | None = None
        self._ended = False

    def feed(self, event: bytes) -> bytes:
        """Translate the payload of one `data:` field into lines; there may be none.

        Tool calls are held until they are whole. An error event becomes an error line, after which
        nothing more comes.

        Raises:
            UntranslatableReply: The event is not one of OpenAI's.
        """
        if self._ended or event == b"[DONE]":
            return b""
        chunk = openai.decode(event, openai.Completion)
        if chunk.error is not None:
            return self.fail(message_of(chunk.error))
        self._usage = chunk.usage or self._usage
        self._timings = chunk.timings or self._timings
        return b"".join(self._choice(choice) for choice in chunk.choices or [] if choice.index == 0)

    def finish(self) -> bytes:
        """Return what ends the stream: the last line, or an error line if it was cut before."""
        if self._ended:
            return b""
        if self._finish_reason is None:
            return self.fail(_CUT)
        self._ended = True
        total = self._clock.monotonic_ns() - self._started
        out = line(
            model=self._request.model,
            created_at=timestamp(self._clock.time_ns()),
            chat=self._request.reply is Reply.CHAT,
            done_reason=_done_reason(self._finish_reason),
            metrics=_metrics(self._usage, self._timings, total, self._first),
        )
        return out + b"\n"

    def fail(self, message: str) -> bytes:
        """Return the error line that ends a stream after a fault; nothing comes after it."""
        if self._ended:
            return b""
        self._ended = True
        return error_line(message)

    def _choice(self, choice: openai.Choice) -> bytes:
        delta = choice.delta or openai.Message(content=choice.text)
        for piece in delta.tool_calls or []:
            self._calls.add(piece)
        lines = self._content(delta, choice)
        if choice.finish_reason is not None:
            calls = calls_from_openai(self._calls.take())
            if calls.whole or calls.text:
                lines += self._line(text=calls.text, calls=calls.whole)
            self._finish_reason = choice.finish_reason
        return lines

    def _content(self, delta: openai.Message, choice: openai.Choice) -> bytes:
        text = delta.content or ""
        thinking = delta.reasoning_content or delta.reasoning or ""
        logprobs = logprobs_from_openai(choice.logprobs)
        if not (text or thinking or logprobs):
            return b""
        return self._line(text=text, thinking=thinking, logprobs=logprobs)

    def _line(
        self,
        *,
        text: str = "",
        thinking: str = "",
        calls: list[Call] | None = None,
        logprobs: list[Any] | None = None,
    ) -> bytes:
        if not self._first:
            self._first = self._clock.monotonic_ns() - self._started
        out = line(
            model=self._request.model,
            created_at=timestamp(self._clock.time_ns()),
            chat=self._request.reply is Reply.CHAT,
            text=text,
            thinking=thinking,
            calls=calls,
            logprobs=logprobs,
        )
        return out + b"\n"
