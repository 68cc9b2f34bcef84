"""The contract's own speech and transcription, in front of real Piper and Whisper."""

from __future__ import annotations

import io
import json
import re
import wave
from typing import TYPE_CHECKING, Any

import pytest

from tests.real.stack import scrape

if TYPE_CHECKING:
    import httpx

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

TEXT = "Hello, how can I help you today? The weather is nice. Good bye!"
WORDS = "hello how can i help you today the weather is nice good bye"


def words(text: str) -> str:
    return " ".join(re.findall(r"[a-z']+", text.lower())).replace("goodbye", "good bye")


def seconds(body: bytes) -> float:
    """Return how long a WAV file lasts, by the samples that are there."""
    with wave.open(io.BytesIO(body)) as file:
        frame: int = file.getnchannels() * file.getsampwidth()
        rate: int = file.getframerate()
        return (len(body) - 44) / frame / rate


def speak(http: httpx.Client, path: str = "/tts/synthesize", **fields: Any) -> httpx.Response:
    answer = http.post(path, json={"text": TEXT, **fields})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "audio/wav"
    return answer


@pytest.fixture(scope="module")
def said(http: httpx.Client) -> bytes:
    return speak(http).content


def recording(said: bytes) -> dict[str, tuple[str, bytes, str]]:
    return {"file": ("said.wav", said, "audio/wav")}


def test_a_text_is_spoken_and_understood(http: httpx.Client, said: bytes) -> None:
    answer = http.post(
        "/stt/transcribe",
        files=recording(said),
        data={"language": "en", "word_timestamps": "true"},
    )
    heard = answer.json()
    assert words(heard["text"]) == WORDS
    assert heard["language"] == "en"
    assert heard["duration"] == pytest.approx(seconds(said), abs=0.1)
    every = [word for segment in heard["segments"] for word in segment["words"]]
    assert [words(word["word"]) for word in every] == [*WORDS.split()[:-2], *every_end(every)]
    assert all(word["start"] <= word["end"] for word in every)
    assert {"id", "text", "start", "end"} <= heard["segments"][0].keys()
    plain = http.post("/stt/transcribe", files=recording(said)).json()
    assert not any(segment.get("words") for segment in plain["segments"])


def every_end(every: list[dict[str, Any]]) -> list[str]:
    """Return the last words as they were written: `good bye` is one word or two."""
    return [words(word["word"]) for word in every[len(WORDS.split()) - 2 :]]


def test_sound_that_is_streamed_is_the_same_sound(http: httpx.Client, said: bytes) -> None:
    with http.stream("POST", "/tts/stream", json={"text": TEXT}) as answer:
        body = b"".join(answer.iter_raw())
    assert answer.headers["transfer-encoding"] == "chunked"
    # its voice is never twice the same to the sample
    assert seconds(body) == pytest.approx(seconds(said), rel=0.25)


def test_twice_the_speed_takes_half_the_time(http: httpx.Client) -> None:
    one = sum(seconds(speak(http).content) for _ in range(3))
    two = sum(seconds(speak(http, speed=2.0).content) for _ in range(3))
    assert two / one == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(("split", "calls"), [(True, 3), (False, 1)])
def test_a_text_is_split_into_sentences_or_not(
    stack: Stack, http: httpx.Client, *, split: bool, calls: int
) -> None:
    def asked() -> float:
        served = scrape(stack.backends["piper"].url)
        return served.value("synapse_backend_requests_total", route="/v1/audio/speech")

    before = asked()
    speak(http, split_sentences=split)
    assert asked() - before == calls


def test_a_language_that_nobody_speaks_is_refused_with_those_known(http: httpx.Client) -> None:
    known = [language["code"] for language in http.get("/tts/languages").json()]
    assert known
    answer = http.post("/tts/synthesize", json={"text": TEXT, "language": "tlh"})
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["param"] == "language"
    assert all(code in error["message"] for code in known)


def convert(http: httpx.Client, said: bytes, **fields: str) -> bytes:
    answer = http.post("/audio/convert", files=recording(said), data=fields)
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_converted_file_has_the_sample_rate_that_was_asked_for(
    http: httpx.Client, said: bytes
) -> None:
    made = convert(http, said, output_format="wav", sample_rate="16000")
    with wave.open(io.BytesIO(made)) as file:
        assert file.getframerate() == 16_000
    assert seconds(made) == pytest.approx(seconds(said), abs=0.05)


def test_a_converted_file_has_the_bitrate_that_was_asked_for(
    http: httpx.Client, said: bytes
) -> None:
    small, large = (
        len(convert(http, said, output_format="mp3", bitrate=rate)) * 8 / seconds(said)
        for rate in ("32k", "96k")
    )
    # the padding of the encoder and the file's tags come on top
    assert small == pytest.approx(32_000, rel=0.1)
    assert large == pytest.approx(96_000, rel=0.1)


def test_segments_are_streamed_and_counted(http: httpx.Client, said: bytes) -> None:
    with http.stream("POST", "/stt/stream", files=recording(said)) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = "".join(answer.iter_text()).strip().split("\n\n")
    *segments, done = events
    found = [json.loads(event.removeprefix("data: ")) for event in segments]
    assert words(" ".join(segment["text"] for segment in found)) == WORDS
    assert done.startswith("event: done\n")
    assert json.loads(done.partition("data: ")[2])["segments"] == len(found)


@pytest.mark.parametrize(
    ("path", "fields"),
    [("/stt/detect-language", {}), ("/stt/transcribe", {"language": "de"})],
    ids=["detection", "another-language"],
)
def test_what_the_model_cannot_is_a_501_with_the_reason(
    http: httpx.Client, said: bytes, path: str, fields: dict[str, str]
) -> None:
    answer = http.post(path, files=recording(said), data=fields)
    assert answer.status_code == 501
    assert "English" in answer.json()["error"]["message"]


def test_a_voice_that_nothing_here_can_clone_is_a_501_and_stays_kept(
    http: httpx.Client, said: bytes
) -> None:
    made = http.post(
        "/voices", data={"name": "Joe"}, files=[("files", ("joe.wav", said, "audio/wav"))]
    )
    assert made.status_code == 201, made.text
    voice = made.json()["voice_id"]
    [reference] = made.json()["references"]
    assert reference["seconds"] == pytest.approx(seconds(said), abs=0.01)
    assert -60 < reference["loudness_dbfs"] < 0

    refused = http.post("/tts/synthesize", json={"text": TEXT, "voice_id": voice})
    assert refused.status_code == 501
    allowed = http.post(
        "/tts/synthesize",
        json={"text": "Yes.", "voice_id": voice},
        headers={"x-synapse-allow-fallback": "true"},
    )
    assert allowed.status_code == 200
    assert allowed.headers["x-synapse-voice"] == "joe"
    assert voice in [each["voice_id"] for each in http.get("/voices").json()]
    assert http.delete(f"/voices/{voice}").status_code == 200
