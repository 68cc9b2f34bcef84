"""How a response body is read on its way through: what may be sent on, and what it tells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from synapse_gateway.audio_api.wav import BadWav, WavReader
from synapse_gateway.proxy.dialects import Meaning, Usage
from synapse_gateway.proxy.events import EventTooLarge
from synapse_gateway.routing.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.audio_api.wav import Format
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.proxy.events import EventCutter, LineCutter


class Translator(Protocol):
    """Turns the events of one API into another's."""

    def feed(self, event: bytes) -> bytes:
        """Return what an event's data becomes; may be nothing yet.

        Raises:
            ValueError: It is not what the backend's API describes.
        """
        ...

    def finish(self) -> bytes:
        """Return what ends the stream."""
        ...


class StreamReader:
    """Reads a stream of events.

    Args:
        cutter: Finds where events end.
        dialect: Knows what they mean.
        strip_usage: Whether to take out the usage that the caller did not ask for.
        rewrite: Changes an event's bytes, where the route asks for that.
    """

    __slots__ = (
        "_cutter",
        "_rewrite",
        "_strip_usage",
        "content",
        "dialect",
        "ended",
        "failure",
        "quiet",
    )

    def __init__(
        self,
        cutter: EventCutter | LineCutter,
        dialect: Dialect,
        *,
        strip_usage: bool,
        rewrite: Callable[[bytes], bytes] | None = None,
    ) -> None:
        self._cutter = cutter
        self._strip_usage = strip_usage
        self._rewrite = rewrite
        self.dialect = dialect
        self.content = False
        """Whether there has been real content (or a proper end without any)."""
        self.failure: Outcome | None = None
        self.ended = False
        """Whether the marker of the end has come: what follows it matters no more."""
        self.quiet = False
        """Whether the last bytes were comments only, which say nothing of the model."""

    def plain(self, data: bytes) -> bool:
        """Read the data of an event that came alone, if it is content and tells nothing else.

        Returns:
            Whether it was that: then it is sent on as it is. Any other is not read yet.
        """
        return not self._cutter.rest and self.dialect.plain(data)

    def feed(self, data: bytes) -> bytes:
        """Return what may be sent on now: whole events, up to a failing one."""
        read = self.dialect.read
        alone = self._cutter.alone(data)
        if alone is not None:
            self.quiet = False
            return self._judge(data, read(alone))
        try:
            events = self._cutter.feed(data)
        except EventTooLarge:
            self.failure = Outcome.MALFORMED_EVENT
            return b""
        self.quiet = not self._cutter.rest and all(event.data is None for event in events)
        kept: list[bytes] = []
        for event in events:
            kept.append(self._judge(event.raw, read(event.data, event.name)))
            if self.failure is not None:
                break
        return b"".join(kept)

    def _judge(self, raw: bytes, meaning: Meaning) -> bytes:
        """Note what an event means, and return what of it is sent on."""
        if self.ended:
            return raw
        if meaning is Meaning.CONTENT:
            self.content = True
        elif meaning is Meaning.END:
            self.content = self.ended = True
        elif meaning is Meaning.USAGE:
            if self._strip_usage:
                return b""
        elif meaning is Meaning.ERROR or meaning is Meaning.MALFORMED:
            self.failure = (
                Outcome.ERROR_EVENT if meaning is Meaning.ERROR else Outcome.MALFORMED_EVENT
            )
            return b""
        return raw if self._rewrite is None else self._rewrite(raw)

    def end(self) -> bytes:
        """Return what is left at the end of the body, and note whether that is a proper end."""
        finished = self.dialect.finished
        rest = self._cutter.rest
        # some end their last line, but not with the empty line that should follow
        last = self._cutter.last()
        kept = not rest.strip() or self.dialect.read(last.data, last.name) is Meaning.END
        if not finished and not self.dialect.finished:
            self.failure = Outcome.CUT
            return b""
        return rest if kept else b""


class TranslatingReader(StreamReader):
    """Reads a stream of one API and gives another's.

    Args:
        cutter: Finds where events end.
        dialect: Knows what they mean.
        translator: Turns them into the caller's.
    """

    __slots__ = ("_translator",)

    def __init__(
        self, cutter: EventCutter | LineCutter, dialect: Dialect, translator: Translator
    ) -> None:
        super().__init__(cutter, dialect, strip_usage=False)
        self._translator = translator

    def feed(self, data: bytes) -> bytes:
        """Return the translation of the events that these bytes complete."""
        try:
            events = self._cutter.feed(data)
        except EventTooLarge:
            self.failure = Outcome.MALFORMED_EVENT
            return b""
        self.quiet = not self._cutter.rest and all(event.data is None for event in events)
        out: list[bytes] = []
        for event in events:
            meaning = self.dialect.read(event.data, event.name)
            if meaning is Meaning.ERROR or meaning is Meaning.MALFORMED:
                self.failure = (
                    Outcome.ERROR_EVENT if meaning is Meaning.ERROR else Outcome.MALFORMED_EVENT
                )
                break
            if meaning is Meaning.CONTENT or meaning is Meaning.END:
                self.content = True
                self.ended = self.ended or meaning is Meaning.END
            if event.data is not None and event.data.strip() != b"[DONE]":
                try:
                    out.append(self._translator.feed(event.data))
                except ValueError:
                    self.failure = Outcome.MALFORMED_EVENT
                    break
        return b"".join(out)

    def end(self) -> bytes:
        """Return the translated end."""
        super().end()
        return b"" if self.failure is not None else self._translator.finish()


class _Silent:
    """The dialect of an answer that has no events."""

    tokens_in = 0
    tokens_out = 0
    content_events = 0


class SoundReader:
    """Reads an answer that is a WAV file, and gives the samples in it (as `StreamReader` does).

    Args:
        fits: Says whether samples of a format can become part of what the caller gets.
        hold: Bytes of samples that are no content yet: so many must be there before the caller
            gets any, so that an answer that breaks off before can be followed by another.
    """

    __slots__ = ("_fits", "_hold", "_wav", "content", "dialect", "failure")
    ended = False
    """A file of samples has no marker for its end."""
    quiet = False
    """Nor comments."""

    def __init__(self, fits: Callable[[Format], bool], hold: int) -> None:
        self._fits = fits
        self._hold = hold
        self._wav = WavReader()
        self.dialect = _Silent()
        self.content = False
        self.failure: Outcome | None = None

    @property
    def format(self) -> Format | None:
        """Of the samples, once the head is there."""
        return self._wav.format

    def feed(self, data: bytes) -> bytes:
        """Return the samples in the next bytes."""
        try:
            samples = self._wav.feed(data)
        except BadWav:
            self.failure = Outcome.MALFORMED_EVENT
            return b""
        found = self._wav.format
        if found is not None and not self._fits(found):
            self.failure = Outcome.MALFORMED_EVENT
            return b""
        self.content = self._wav.given > self._hold
        return samples

    def end(self) -> bytes:
        """Note the end of the body, and whether it is that of the file."""
        try:
            self._wav.finish()
        except BadWav:
            self.failure = Outcome.CUT
        if not self._wav.given:
            self.failure = Outcome.CUT
        return b""


class _Whole(msgspec.Struct):
    object: Any = None
    error: msgspec.Raw = msgspec.Raw()  # not `Raw | None`, which decodes nothing but null
    usage: Usage | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None


_decode_whole = msgspec.json.Decoder(_Whole).decode
_decode_any = msgspec.json.Decoder().decode


class WholeBody:
    """What a JSON answer tells once it is whole."""

    __slots__ = ("failure", "tokens_in", "tokens_out")

    def __init__(self, body: bytes) -> None:
        self.failure: Outcome | None = None
        self.tokens_in = 0
        self.tokens_out = 0
        try:
            whole = _decode_whole(body)
        except msgspec.ValidationError:
            if not _is_json(body):
                self.failure = Outcome.MALFORMED
            return
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.failure = Outcome.MALFORMED
            return
        if bytes(whole.error) not in {b"", b"null"} or whole.object == "error":
            self.failure = Outcome.ERROR_FIRST
        usage = whole.usage
        if usage is not None:
            self.tokens_in, self.tokens_out = usage.input, usage.output
        else:
            self.tokens_in = whole.prompt_eval_count or 0
            self.tokens_out = whole.eval_count or 0


_USAGE = re.compile(rb'"usage"\s*:\s*(\{(?:[^{}]|\{[^{}]*\})*\})')
_decode_usage = msgspec.json.Decoder(Usage).decode
EDGE = 2048
"""Bytes at either end of a large JSON answer in which its usage is looked for."""


class Edges:
    """Begin and end of a JSON answer that is too large to be held; backends write the usage there.

    Args:
        first: The body so far.
    """

    __slots__ = ("_first", "_last")

    def __init__(self, first: bytes) -> None:
        self._first = first[:EDGE]
        self._last = first[-EDGE:]

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._last = (self._last + data)[-EDGE:]

    def usage(self) -> Usage:
        """Return what it says of its tokens."""
        found = _USAGE.search(self._last) or _USAGE.search(self._first)
        try:
            return _decode_usage(found[1]) if found else Usage()
        except msgspec.DecodeError:
            return Usage()


def _is_json(body: bytes) -> bool:
    try:
        _decode_any(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
