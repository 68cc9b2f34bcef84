"""The cloning server's own part, over HTTP; in OpenVoice's place an engine hums (toned_server)."""

from __future__ import annotations

import hashlib
import http.client
import io
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from synapse_serving.testing import RunningServer, running_server

pytest.importorskip("av", reason="PyAV is not installed: make up")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real
RATE = 16_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
        with running_server("toned_server") as running:
            yield running


@pytest.fixture(autouse=True)
def empty(server: RunningServer) -> Iterator[None]:
    """Every test begins with an empty cache."""
    yield
    for voice in httpx.get(f"{server.url}/voices").json()["data"]:
        httpx.delete(f"{server.url}/voices/{voice['id']}")


def hum(hertz: float, seconds: float = 1.0) -> bytes:
    """A reference recording."""
    out = io.BytesIO()
    times = np.arange(int(seconds * RATE)) / RATE
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((np.sin(2 * np.pi * hertz * times) * 12_000).astype("<i2").tobytes())
    return out.getvalue()


def id_of(*recordings: bytes) -> str:
    digests = sorted(hashlib.sha256(data).digest() for data in recordings)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def put(server: RunningServer, *recordings: bytes, voice: str = "") -> httpx.Response:
    files = [("files", (f"{n}.wav", data)) for n, data in enumerate(recordings)]
    url = f"{server.url}/voices/{voice or id_of(*recordings)}"
    return httpx.put(url, files=files, timeout=60)


def post(server: RunningServer, path: str, **body: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def speak(server: RunningServer, **fields: Any) -> httpx.Response:
    body = {"model": "openvoice", "input": "Hello there. Yes.", "response_format": "wav"}
    return post(server, "/v1/audio/speech", **(body | {"voice": "alloy"} | fields))


def pitch(answer: httpx.Response) -> float:
    assert answer.status_code == 200, answer.text
    samples = np.frombuffer(answer.content[44:], "<i2")
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples))


def test_a_voice_speaks_in_the_tone_colour_of_its_recordings(server: RunningServer) -> None:
    recordings = hum(400), hum(500)
    learned = put(server, *recordings)
    assert learned.status_code == 201
    voice = id_of(*recordings)
    assert learned.json() == {"id": voice, "references_count": 2, "seconds": 2.0}
    answer = speak(server, voice=voice)
    assert pitch(answer) == pytest.approx(450, abs=3)
    assert answer.headers["x-synapse-voice"] == voice


def test_of_a_long_recording_the_first_minute_counts(server: RunningServer) -> None:
    recording = hum(400, 70)
    assert put(server, recording).json()["seconds"] == 60
    assert pitch(speak(server, voice=id_of(recording))) == pytest.approx(400, abs=3)


def test_the_order_of_the_recordings_is_no_part_of_the_id(server: RunningServer) -> None:
    assert put(server, hum(400), hum(500)).status_code == 201
    assert put(server, hum(500), hum(400)).status_code == 200


def test_putting_a_voice_again_changes_nothing_and_computes_nothing(server: RunningServer) -> None:
    first = put(server, hum(400))
    again = put(server, b"not even read", voice=id_of(hum(400)))
    assert (again.status_code, again.json()) == (200, first.json())


def test_the_voice_used_last_stays_when_there_are_too_many(server: RunningServer) -> None:
    recordings = [hum(100 * number) for number in range(3, 7)]
    for recording in recordings:
        put(server, recording)
    assert speak(server, voice=id_of(recordings[0])).status_code == 200
    put(server, hum(900))
    listed = [voice["id"] for voice in httpx.get(f"{server.url}/voices").json()["data"]]
    assert len(listed) == 4
    assert id_of(recordings[0]) in listed
    gone = speak(server, voice=id_of(recordings[1]))
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "voice_not_found"
    assert "PUT /voices/" in gone.json()["error"]["message"]


def test_a_forgotten_voice_is_gone(server: RunningServer) -> None:
    put(server, hum(400))
    url = f"{server.url}/voices/{id_of(hum(400))}"
    assert httpx.delete(url).status_code == 204
    assert httpx.delete(url).status_code == 404
    assert speak(server, voice=id_of(hum(400))).status_code == 404


@pytest.mark.parametrize(
    ("recordings", "voice", "status", "param", "words"),
    [
        ((hum(400),), "x", 422, "id", "64 digits of lower-case hex"),
        ((hum(400),), "A" * 64, 422, "id", "64 digits of lower-case hex"),
        ((hum(400),), "0" * 64, 422, "id", "these recordings are the voice"),
        ((), "0" * 64, 400, "files", "required"),
        (tuple(hum(100 + n) for n in range(11)), "", 422, "files", "11 recordings; 1 to 10"),
        ((hum(400), b""), "", 400, "files[1]", "the file is empty"),
        ((hum(400), b"no sound at all"), "", 415, "files[1]", "not a known audio format"),
        ((hum(400, 0.2),), "", 400, "files[0]", "lasts 0.20 s; at least 0.5 s"),
        ((hum(400, 200),), "", 413, "files[0]", "longer than 100 s"),
    ],
)
def test_recordings_that_cannot_be_are_named_and_leave_no_voice(
    server: RunningServer,
    recordings: tuple[bytes, ...],
    voice: str,
    status: int,
    param: str,
    words: str,
) -> None:
    answer = put(server, *recordings, voice=voice)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]
    assert httpx.get(f"{server.url}/voices").json()["data"] == []


@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_a_blend_is_between_its_voices_as_the_weights_say(
    server: RunningServer, share: float
) -> None:
    put(server, hum(400))
    put(server, hum(600))
    voices = [
        {"voice": id_of(hum(400)), "weight": share},
        {"voice": id_of(hum(600)), "weight": 1 - share},
    ]
    answer = post(server, "/interpolate", text="Hello there.", voices=voices)
    assert answer.headers["content-type"] == "audio/wav"
    # One voice that lies between, not both at once.
    assert pitch(answer) == pytest.approx(400 * share + 600 * (1 - share), abs=3)


def test_a_blend_has_speed_and_language(server: RunningServer) -> None:
    put(server, hum(400))
    put(server, hum(600))
    voices = [{"voice": id_of(hum(hertz)), "weight": 0.5} for hertz in (400, 600)]
    once = len(post(server, "/interpolate", text="Hello there.", voices=voices).content)
    body = {"text": "Hello there.", "voices": voices, "speed": 2.0, "language": "de"}
    assert len(post(server, "/interpolate", **body).content) == pytest.approx(once / 2, rel=0.1)
    answer = post(server, "/interpolate", **(body | {"language": "fr"}))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "language")


@pytest.mark.parametrize(
    ("weights", "status", "param", "words"),
    [
        ((1.0,), 422, "voices", "at least 2"),
        ((0.2,) * 6, 422, "voices", "at most 5"),
        ((0.5, 0.6), 422, "voices", "must sum to 1.0 within 0.01 (got 1.1)"),
        ((0.0, 1.0), 422, "voices.0.weight", "greater than 0"),
        ((0.5, 0.5), 404, "voices[0].voice", "neither a voice of this server nor cached"),
    ],
)
def test_a_blend_that_cannot_be_is_refused(
    server: RunningServer, weights: tuple[float, ...], status: int, param: str, words: str
) -> None:
    voices = [{"voice": id_of(hum(400)), "weight": weight} for weight in weights]
    answer = post(server, "/interpolate", text="Hello.", voices=voices)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("fields", "hertz", "speaker"),
    [
        ({}, 200, "en-us"),
        ({"voice": {"id": "nova"}}, 200, "en-us"),
        ({"language": "de"}, 300, "de"),
        ({"voice": "en-br"}, 250, "en-br"),
        ({"voice": "de", "language": "german"}, 300, "de"),
    ],
)
def test_the_voices_of_the_engine_speak_without_recordings(
    server: RunningServer, fields: dict[str, Any], hertz: float, speaker: str
) -> None:
    answer = speak(server, **fields)
    assert pitch(answer) == pytest.approx(hertz, abs=3)
    assert answer.headers["x-synapse-voice"] == speaker


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({"language": "fr"}, 422, "language", "it speaks en (English), de (German)"),
        ({"voice": "de", "language": "en"}, 422, "language", "voice de does not speak 'en'"),
        ({"voice": "nobody"}, 404, "voice", "'nobody' is neither a voice of this server"),
        ({"model": "gpt-4"}, 404, "model", "served: openvoice"),
        ({"input": "a" * 201}, 400, "input", "201 characters, at most 200"),
        ({"input": "..."}, 400, "input", "nothing to speak"),
        ({"response_format": "midi"}, 422, "response_format", "known: wav"),
        ({"speed": 9}, 422, "speed", "4"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_would_be_right(
    server: RunningServer, fields: dict[str, Any], status: int, param: str, words: str
) -> None:
    answer = speak(server, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]


def test_twice_the_speed_is_half_the_time(server: RunningServer) -> None:
    sizes = [len(speak(server, speed=speed).content) for speed in (1.0, 2.0)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.1)


def test_the_languages_and_voices_are_listed(server: RunningServer) -> None:
    languages = httpx.get(f"{server.url}/languages").json()
    assert languages == [{"code": "en", "name": "English"}, {"code": "de", "name": "German"}]
    voices = httpx.get(f"{server.url}/v1/audio/voices").json()["data"]
    assert voices[1] == {"id": "en-br", "name": "en-br", "language": "en", "sample_rate": RATE}


def test_the_metrics_tell_how_many_voices_are_cached(server: RunningServer) -> None:
    put(server, hum(400))
    assert "synapse_backend_cached_voices 1.0" in httpx.get(f"{server.url}/metrics").text


def test_a_body_that_is_too_large_is_refused_for_put_as_well(server: RunningServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=30)
    connection.putrequest("PUT", f"/voices/{'0' * 64}")
    connection.putheader("content-length", str(10**9))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def test_without_openvoice_it_stays_and_says_what_is_missing(tmp_path: Path) -> None:
    with running_server(
        "synapse_openvoice", "--checkpoints", str(tmp_path), healthy=False
    ) as server:
        for _ in range(200):  # polled: it finds out after it listens
            answer = httpx.get(f"{server.url}/readyz")
            if answer.json()["status"] != "loading":
                break
        assert answer.status_code == 503
        reason = answer.json()["reason"]
        assert answer.json()["status"] == "unavailable"
        assert "converter/config.json, converter/checkpoint.pth" in reason
        refused = speak(server)
        assert refused.status_code == 503
        assert refused.json()["error"]["message"] == reason
        assert server.process.poll() is None
