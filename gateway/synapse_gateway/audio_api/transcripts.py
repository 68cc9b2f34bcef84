"""Answers of OpenAI's transcription API as the contract has them.

Field by field: `verbose_json` and the events of `stream=true` are those of OpenAI's API reference
for audio; what a server does not tell (the probability of a language or a word, the times of a
streamed segment) is null and never made up.
"""

from __future__ import annotations

from typing import Any

import msgspec

from synapse_gateway.audio_api import languages

_encode = msgspec.json.encode


class _Word(msgspec.Struct):
    word: str
    start: float
    end: float
    probability: float | None = None


class _Segment(msgspec.Struct):
    start: float
    end: float
    text: str


class _Verbose(msgspec.Struct):
    text: str
    segments: list[_Segment]
    language: str | None = None
    duration: float | str | None = None
    words: list[_Word] | None = None


class _Event(msgspec.Struct):
    type: str = ""
    delta: str = ""
    text: str = ""
    start: float | None = None
    end: float | None = None


_decode_verbose = msgspec.json.Decoder(_Verbose).decode
_decode_event = msgspec.json.Decoder(_Event).decode


def transcription(body: bytes, *, asked: str | None, words: bool) -> bytes:
    """Return the answer of /stt/transcribe.

    Args:
        body: An answer of the form `verbose_json`.
        asked: Language that the caller named; then it is not a guess.
        words: Whether he asked for the times of words.

    Raises:
        ValueError: It is not of that form.
    """
    found = _decode_verbose(body)
    answer = {
        "text": found.text.strip(),
        "language": languages.code_of(found.language or asked or "") or None,
        "language_probability": 1.0 if asked else None,
        "duration": None if found.duration is None else round(float(found.duration), 3),
        "segments": _segments(found, words=words),
    }
    return _encode(answer)


def _segments(found: _Verbose, *, words: bool) -> list[dict[str, Any]]:
    segments = []
    left = list(found.words or ())
    for number, segment in enumerate(found.segments):
        entry: dict[str, Any] = {
            "id": number,
            "text": segment.text.strip(),
            "start": segment.start,
            "end": segment.end,
        }
        if words:
            last = number == len(found.segments) - 1
            within = left if last else [word for word in left if word.start < segment.end]
            left = left[len(within) :]
            entry["words"] = [
                {
                    "word": word.word.strip(),
                    "start": word.start,
                    "end": word.end,
                    "probability": word.probability,
                }
                for word in within
            ]
        segments.append(entry)
    return segments


def detection(body: bytes) -> bytes:
    """Return the answer of /stt/detect-language.

    Args:
        body: An answer of the form `verbose_json`, made without naming a language.

    Raises:
        ValueError: It is not of that form, or does not tell the language.
    """
    language = _decode_verbose(body).language
    if not language:
        raise ValueError("it does not tell the language")
    answer = {
        "detected_language": languages.code_of(language),
        "probability": None,
        "all_languages": languages.listed(),
    }
    return _encode(answer)


class SegmentTranslator:
    """Turns OpenAI's transcript events into those of /stt/stream (`proxy.readers.Translator`).

    Servers send a delta a segment; the times of one are only told by `transcript.text.segment`.
    """

    def __init__(self, asked: str | None) -> None:
        self._asked = asked
        self._count = 0

    def feed(self, event: bytes) -> bytes:
        """Return what an event's data becomes.

        Raises:
            ValueError: It is not what OpenAI's API describes.
        """
        read = _decode_event(event)
        if read.type == "transcript.text.delta":
            text = read.delta.strip()
        elif read.type == "transcript.text.segment":
            text = read.text.strip()
        else:
            return b""
        if not text:
            return b""
        segment = {"id": self._count, "text": text, "start": read.start, "end": read.end}
        self._count += 1
        return b"data: " + _encode(segment) + b"\n\n"

    def finish(self) -> bytes:
        """Return the event that ends the stream."""
        summary = {"segments": self._count, "language": self._asked, "duration": None}
        return b"event: done\ndata: " + _encode(summary) + b"\n\n"
