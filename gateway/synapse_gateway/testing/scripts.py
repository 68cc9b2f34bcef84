"""What a `FaultyUpstream` does with a request: one function for every fault, and the steps they are
made of.

Every function returns a script: a function from the request to the steps that answer it. The same
fault so fits a request that asks for a stream and one that does not. Where words of an answer have
been sent before the fault, the streamed ones are events and the others the first part of a JSON
body.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from synapse_gateway.testing import answers
from synapse_gateway.testing.answers import WORDS, Stream, compact

if TYPE_CHECKING:
    from synapse_gateway.testing.faulty_upstream import Request


@dataclass(frozen=True)
class Send:
    """Write bytes."""

    data: bytes
    pieces: int = 0
    """Bytes a write; 0 writes all at once."""


@dataclass(frozen=True)
class Wait:
    """Do nothing for some seconds."""

    seconds: float


@dataclass(frozen=True)
class Hold:
    """Do nothing until the test opens the gate (`upstream.gate(name).set()`)."""

    gate: str = "go"


@dataclass(frozen=True)
class Stall:
    """Do nothing until the peer closes."""


@dataclass(frozen=True)
class Close:
    """Close with FIN."""


@dataclass(frozen=True)
class Reset:
    """Close with RST."""


Step = Send | Wait | Hold | Stall | Close | Reset
Script = Callable[["Request"], Iterable[Step]]

REASONS = {200: "OK", 429: "Too Many Requests", 503: "Service Unavailable"}


# -- framing


def head(status: int, headers: dict[str, str], version: str = "1.1") -> bytes:
    """Return a response head."""
    lines = [f"HTTP/{version} {status} {REASONS.get(status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112, 7.1)."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
STREAM_HEAD = {"content-type": "text/event-stream", "transfer-encoding": "chunked"}


def sized(status: int, body: bytes, headers: dict[str, str] | None = None) -> bytes:
    """Return a whole response with a content length."""
    given = {"content-type": "application/json", **(headers or {})}
    return head(status, {**given, "content-length": str(len(body))}) + body


def _stream(request: Request, words: Sequence[str]) -> Stream:
    return Stream(request.path, request.model, words)


def _asks_for_usage(request: Request) -> bool:
    body = request.json()
    options = body.get("stream_options") if isinstance(body, dict) else None
    return isinstance(options, dict) and options.get("include_usage") is True


def _whole(request: Request, words: Sequence[str]) -> tuple[str, bytes]:
    return answers.whole(request.path, request.model, words)


# -- right answers


def answer(
    words: Sequence[str] = WORDS,
    *,
    pieces: int = 0,
    interval: float = 0.0,
    headers: dict[str, str] | None = None,
) -> Script:
    """Answer rightly.

    Args:
        words: The text.
        pieces: Bytes a write, 0 for a write an event; 1 splits every UTF-8 sequence, chunk size
            and line end.
        interval: Seconds before each word of a stream.
        headers: Added to the response's.
    """

    def run(request: Request) -> Iterable[Step]:
        more = headers or {}
        if not request.stream:
            kind, body = _whole(request, words)
            yield Send(sized(200, body, {"content-type": kind, **more}), pieces)
            return
        stream = _stream(request, words)
        yield Send(head(200, {**STREAM_HEAD, **more}), pieces)
        for data in stream.events(with_usage=_asks_for_usage(request)):
            if interval and data in stream.words:
                yield Wait(interval)
            yield Send(chunk(data), pieces)
        yield Send(LAST_CHUNK, pieces)

    return run


def held(words: Sequence[str] = WORDS, *, after: int = 1, gate: str = "go") -> Script:
    """Answer rightly, but wait for the gate after so many words (0: before the head)."""

    def run(request: Request) -> Iterable[Step]:
        if not after or not request.stream:
            yield Hold(gate)
            yield from answer(words)(request)
            return
        stream = _stream(request, words)
        events = stream.events(with_usage=_asks_for_usage(request))
        begun = len(stream.opening) + after
        yield Send(head(200, STREAM_HEAD) + b"".join(map(chunk, events[:begun])))
        yield Hold(gate)
        yield Send(b"".join(map(chunk, events[begun:])) + LAST_CHUNK)

    return run


def models(*names: str) -> Script:
    """Answer with an OpenAI list of models, and close."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "faulty"} for name in names]
    return probe(compact({"object": "list", "data": data}).encode())


def probe(body: bytes = b'{"status":"ok"}') -> Script:
    """Answer 200 and close, so that no request finds the connection of a probe to reuse."""
    whole = sized(200, body, {"connection": "close"})
    return lambda _: [Send(whole), Close()]


# -- faults before the head


def stall() -> Script:
    """Take the request and never answer."""
    return lambda _: [Stall()]


def reset() -> Script:
    """Take the request and close with RST."""
    return lambda _: [Reset()]


def close() -> Script:
    """Take the request and close with FIN."""
    return lambda _: [Close()]


# -- faults in the head


def status(
    code: int, *, headers: dict[str, str] | None = None, body: bytes | None = None
) -> Script:
    """Answer with a status; the body is an OpenAI error where none is given."""
    content = compact(answers.error(f"status {code}")).encode() if body is None else body
    return lambda _: [Send(sized(code, content, headers))]


def throttled(seconds: float | None = None, *, as_date: float | None = None) -> Script:
    """Answer 429.

    Args:
        seconds: Retry-After in seconds.
        as_date: Retry-After as an HTTP date, in seconds since the epoch.
    """
    headers = {}
    if seconds is not None:
        headers["retry-after"] = f"{seconds:g}"
    if as_date is not None:
        headers["retry-after"] = formatdate(as_date, usegmt=True)
    return status(429, headers=headers)


def context_exceeded() -> Script:
    """Refuse a prompt as too long for the model, in OpenAI's words and code."""
    error: dict[str, Any] = {
        "message": "This model's maximum context length is 16 tokens. Your messages have 400.",
        "type": "invalid_request_error",
        "param": "messages",
        "code": "context_length_exceeded",
    }
    return status(400, body=compact({"error": error}).encode())


# -- faults after the head, before the first content


def head_only(*, then: Step = Stall()) -> Script:
    """Send the head of a good answer and nothing of its body."""

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            yield Send(head(200, STREAM_HEAD))
        else:
            kind, body = _whole(request, WORDS)
            yield Send(head(200, {"content-type": kind, "content-length": str(len(body))}))
        yield then

    return run


def role_only(*, then: Step = Stall()) -> Script:
    """Open a stream with what comes before its first word, then nothing (else see `head_only`)."""

    def run(request: Request) -> Iterable[Step]:
        if not request.stream:
            yield from head_only(then=then)(request)
            return
        opening = _stream(request, WORDS).opening
        yield Send(head(200, STREAM_HEAD) + b"".join(map(chunk, opening)))
        yield then

    return run


def error_first() -> Script:
    """Answer 200 with an error: the first event of a stream, or the JSON body."""

    def run(request: Request) -> Iterable[Step]:
        error = answers.error()
        if not request.stream:
            yield Send(sized(200, compact(error).encode()))
            return
        yield Send(head(200, STREAM_HEAD) + chunk(answers.event(error)) + LAST_CHUNK)

    return run


def empty() -> Script:
    """Answer 200 with a body that ends at once."""

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            yield Send(head(200, STREAM_HEAD) + LAST_CHUNK)
        else:
            yield Send(sized(200, b""))

    return run


# -- faults in the middle


def broken(
    after: int = 2,
    *,
    then: Step = Close(),
    extra: bytes = b"",
    words: Sequence[str] = WORDS,
) -> Script:
    """Send a part of a good answer, then break off.

    Args:
        after: Words that are sent first; of an answer that is not streamed, half of its bytes.
        then: `Close()`, `Reset()`, `Stall()`, ... .
        extra: Sent in between as an event of a stream: malformed, or an error.
        words: The text.
    """

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            stream = _stream(request, words)
            sent = [*stream.opening, *stream.words[:after], *([extra] if extra else [])]
            yield Send(head(200, STREAM_HEAD) + b"".join(map(chunk, sent)))
        else:
            kind, body = _whole(request, words)
            promised = {"content-type": kind, "content-length": str(len(body))}
            yield Send(head(200, promised) + body[: len(body) // 2])
        yield then

    return run


def malformed_event(after: int = 2) -> Script:
    """Send a part of a good stream, then an event that is no JSON; or half a JSON body, whole
    by its content length.
    """

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            extra = b'data: {"choices": [{"delta": {"con\n\n'
            yield from broken(after, then=Send(LAST_CHUNK), extra=extra)(request)
            return
        _, body = _whole(request, WORDS)
        yield Send(sized(200, body[: len(body) // 2]))

    return run


def error_event(after: int = 2) -> Script:
    """Send a part of a good stream, then an error event, then end properly (else `error_first`)."""

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            extra = answers.event(answers.error())
            yield from broken(after, then=Send(LAST_CHUNK), extra=extra)(request)
            return
        yield from error_first()(request)

    return run


def without_done() -> Script:
    """Send a whole stream and end it properly, but without its `[DONE]`."""
    return _ending(lambda stream: [*stream.opening, *stream.words, *stream.finish])


def without_finish() -> Script:
    """Send the words of a stream and end it properly: no finish reason, no `[DONE]`."""
    return _ending(lambda stream: [*stream.opening, *stream.words])


def done_without_finish() -> Script:
    """Send the words of a stream and `[DONE]`, but no finish reason."""
    return _ending(lambda stream: [*stream.opening, *stream.words, stream.done])


def _ending(events: Callable[[Stream], list[bytes]]) -> Script:
    def run(request: Request) -> Iterable[Step]:
        sent = events(_stream(request, WORDS))
        yield Send(head(200, STREAM_HEAD) + b"".join(map(chunk, sent)) + LAST_CHUNK)

    return run


# -- odd or broken HTTP


def raw(data: bytes, *, then: Step | None = None, pieces: int = 0) -> Script:
    """Send any bytes; the connection then stays open, unless `then` says otherwise."""
    return lambda _: [Send(data, pieces), *([then] if then else [])]


def framed(frame: Callable[[bytes], bytes], *, then: Step | None = None, pieces: int = 0) -> Script:
    """Send the right body of the request's answer in a frame of the test's making.

    Args:
        frame: From the body (JSON, or the bytes of all events) to head and body.
        then: What follows.
        pieces: Bytes a write.
    """

    def run(request: Request) -> Iterable[Step]:
        if request.stream:
            body = b"".join(_stream(request, WORDS).events())
        else:
            _, body = _whole(request, WORDS)
        yield Send(frame(body), pieces)
        if then is not None:
            yield then

    return run


def informational_first() -> Script:
    """Send 102 and 103 responses before the real one (RFC 9110, 15.2)."""
    early = b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    return lambda request: [Send(early), *answer()(request)]


def http_1_0() -> Script:
    """Answer as an HTTP/1.0 server does: no length, the end is the close."""

    def run(request: Request) -> Iterable[Step]:
        kind = "text/event-stream" if request.stream else "application/json"
        frame = framed(lambda body: head(200, {"content-type": kind}, "1.0") + body, then=Close())
        return frame(request)

    return run


def closing() -> Script:
    """Answer rightly with `connection: close`, and close."""
    return lambda request: [*answer(headers={"connection": "close"})(request), Close()]


def closing_unannounced() -> Script:
    """Answer rightly, let the connection seem reusable, and close it."""
    return lambda request: [*answer()(request), Close()]


def garbage_after() -> Script:
    """Answer rightly, with bytes after the end that nobody asked for."""
    stray = sized(200, b'{"stray": "response"}')
    return lambda request: [*answer()(request), Send(stray)]


def huge_headers(size: int = 1 << 20) -> Script:
    """Answer with header fields of so many bytes."""
    lines = {f"x-filler-{index}": "x" * 8000 for index in range(size // 8000)}
    return answer(headers=lines)


def length_and_chunked() -> Script:
    """Answer with both Content-Length and Transfer-Encoding (RFC 9112, 6.3: smuggling)."""
    both = {
        "content-type": "application/json",
        "content-length": "5",
        "transfer-encoding": "chunked",
    }
    return framed(lambda body: head(200, both) + chunk(body) + LAST_CHUNK)


def bad_chunk_size() -> Script:
    """Answer with a chunk whose size is no number."""
    return framed(lambda body: head(200, STREAM_HEAD) + b"zz\r\n" + body + b"\r\n" + LAST_CHUNK)
