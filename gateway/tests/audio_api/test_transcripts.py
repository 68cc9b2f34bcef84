from __future__ import annotations

import json
from typing import Any

import pytest

from synapse_gateway.audio_api import languages, transcripts

SEGMENTS = [
    {"id": 5, "seek": 0, "start": 0.0, "end": 1.5, "text": " Hello there.", "tokens": [1]},
    {"id": 6, "seek": 0, "start": 1.5, "end": 3, "text": " Bye.", "tokens": [2]},
]
WORDS = [
    {"word": " Hello", "start": 0.0, "end": 0.5},
    {"word": "there.", "start": 0.5, "end": 1.4, "probability": 0.9},
    {"word": "Bye.", "start": 1.6, "end": 2.9},
]


def verbose(**fields: Any) -> bytes:
    answer = {
        "task": "transcribe",
        "language": "english",
        "duration": 3.02671,
        "text": " Hello there. Bye.",
        "segments": SEGMENTS,
    }
    return json.dumps({**answer, **fields}).encode()


def transcription(body: bytes, *, asked: str | None = None, words: bool = False) -> Any:
    return json.loads(transcripts.transcription(body, asked=asked, words=words))


def test_a_verbose_answer_becomes_the_contracts() -> None:
    assert transcription(verbose()) == {
        "text": "Hello there. Bye.",
        "language": "en",
        "language_probability": None,
        "duration": 3.027,
        "segments": [
            {"id": 0, "text": "Hello there.", "start": 0.0, "end": 1.5},
            {"id": 1, "text": "Bye.", "start": 1.5, "end": 3.0},
        ],
    }


def test_words_go_to_their_segments() -> None:
    answer = transcription(verbose(words=WORDS), words=True)
    assert [segment["words"] for segment in answer["segments"]] == [
        [
            {"word": "Hello", "start": 0.0, "end": 0.5, "probability": None},
            {"word": "there.", "start": 0.5, "end": 1.4, "probability": 0.9},
        ],
        [{"word": "Bye.", "start": 1.6, "end": 2.9, "probability": None}],
    ]
    assert transcription(verbose(words=None), words=True)["segments"][0]["words"] == []
    assert "words" not in transcription(verbose(words=WORDS))["segments"][0]


def test_a_word_behind_the_last_segment_belongs_to_it() -> None:
    late = [{"word": "late", "start": 9.0, "end": 9.5}]
    answer = transcription(verbose(words=late), words=True)
    assert [len(segment["words"]) for segment in answer["segments"]] == [0, 1]


@pytest.mark.parametrize(
    ("told", "asked", "language", "probability"),
    [
        ("en", None, "en", None),
        ("Haitian Creole", None, "ht", None),
        ("klingon", None, "klingon", None),
        (None, None, None, None),
        (None, "de", "de", 1.0),
        ("german", "de", "de", 1.0),
    ],
)
def test_a_language_that_was_asked_for_is_no_guess(
    told: str | None, asked: str | None, language: str | None, probability: float | None
) -> None:
    answer = transcription(verbose(language=told), asked=asked)
    assert (answer["language"], answer["language_probability"]) == (language, probability)


@pytest.mark.parametrize("duration", ["3.5", 3.5])
def test_a_duration_may_be_written_either_way(duration: object) -> None:
    assert transcription(verbose(duration=duration))["duration"] == 3.5
    assert transcription(verbose(duration=None))["duration"] is None


def test_silence_has_no_segments() -> None:
    assert transcription(verbose(text="", segments=[]))["segments"] == []


@pytest.mark.parametrize("body", [b'{"text": "x"}', b"[]", b"x", verbose(duration="long")])
def test_what_is_not_verbose_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        transcription(body)


def test_the_language_alone_is_told_without_a_probability() -> None:
    answer = json.loads(transcripts.detection(verbose()))
    assert (answer["detected_language"], answer["probability"]) == ("en", None)
    assert {"code": "de", "name": "German"} in answer["all_languages"]
    with pytest.raises(ValueError, match="language"):
        transcripts.detection(verbose(language=None))


def test_events_of_either_kind_become_segments() -> None:
    translator = transcripts.SegmentTranslator("en")
    fed = [
        translator.feed(json.dumps(event).encode())
        for event in (
            {"type": "transcript.text.delta", "delta": " Hello", "logprobs": None},
            {"type": "transcript.text.delta", "delta": " "},
            {"type": "transcript.text.segment", "text": "there", "start": 1, "end": 2.5, "id": "s"},
            {"type": "transcript.text.segment", "text": ""},
            {"type": "transcript.text.done", "text": "Hello there"},
        )
    ]
    assert fed == [
        b'data: {"id":0,"text":"Hello","start":null,"end":null}\n\n',
        b"",
        b'data: {"id":1,"text":"there","start":1.0,"end":2.5}\n\n',
        b"",
        b"",
    ]
    assert translator.finish() == (
        b'event: done\ndata: {"segments":2,"language":"en","duration":null}\n\n'
    )
    with pytest.raises(ValueError, match=r"."):
        translator.feed(b"[]")


def test_every_language_has_a_code_and_a_name() -> None:
    assert len(languages.NAMES) == 100
    for entry in languages.listed():
        assert languages.code_of(entry["name"]) == entry["code"] == languages.code_of(entry["code"])
