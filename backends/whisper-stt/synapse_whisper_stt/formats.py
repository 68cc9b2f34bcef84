"""Segments in the shapes that callers ask for."""

from collections.abc import Iterable
from typing import Any

from faster_whisper.utils import format_timestamp

from .languages import english_name


def plain_text(segments: Iterable[Any]) -> str:
    """The text alone."""
    return "".join(segment.text for segment in segments).strip()


def srt(segments: Iterable[Any]) -> str:
    """SubRip subtitles."""
    return "".join(
        f"{number}\n{_span(segment, ',')}\n{segment.text.strip()}\n\n"
        for number, segment in enumerate(segments, 1)
    )


def vtt(segments: Iterable[Any]) -> str:
    """WebVTT subtitles (W3C)."""
    # "-->" in a cue's text would end it (WebVTT, 4.1).
    cues = (
        f"{_span(segment, '.')}\n{segment.text.strip().replace('-->', '->')}\n\n"
        for segment in segments
    )
    return "WEBVTT\n\n" + "".join(cues)


def _span(segment: Any, mark: str) -> str:
    start, end = (
        format_timestamp(seconds, always_include_hours=True, decimal_marker=mark)
        for seconds in (segment.start, segment.end)
    )
    return f"{start} --> {end}"


def verbose(
    segments: list[Any],
    language: str,
    duration: float,
    wanted: frozenset[str],
    task: str = "transcribe",
) -> dict[str, Any]:
    """OpenAI's ``verbose_json``; ``wanted`` of ``segment`` and ``word``."""
    answer: dict[str, Any] = {
        "task": task,
        "language": english_name(language),
        "duration": round(duration, 3),
        "text": plain_text(segments),
    }
    if "word" in wanted:
        answer["words"] = [
            {"word": word.word.strip(), "start": _seconds(word.start), "end": _seconds(word.end)}
            for segment in segments
            for word in segment.words or ()
        ]
    if "segment" in wanted:
        answer["segments"] = [_verbose_segment(number, s) for number, s in enumerate(segments)]
    return answer


def _verbose_segment(number: int, segment: Any) -> dict[str, Any]:
    return {
        "id": number,
        "seek": segment.seek,
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "tokens": segment.tokens,
        "temperature": segment.temperature,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": segment.compression_ratio,
        "no_speech_prob": segment.no_speech_prob,
    }


def own_segment(number: int, segment: Any, *, words: bool) -> dict[str, Any]:
    """A segment of ``POST /transcribe`` and ``POST /stream``; times in seconds."""
    answer: dict[str, Any] = {
        "id": number,
        "text": segment.text.strip(),
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
    }
    if words:
        answer["words"] = [
            {
                "word": word.word.strip(),
                "start": _seconds(word.start),
                "end": _seconds(word.end),
                "probability": round(float(word.probability), 4),
            }
            for word in segment.words or ()
        ]
    return answer


def _seconds(value: float) -> float:
    return round(float(value), 3)
