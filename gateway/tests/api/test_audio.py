"""The contract's routes for recordings, over sockets, in front of each kind of server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.config.settings import BackendType, Route
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.wire import Ending
from tests.api.audio_support import KIND, WAV, Received, form, studio

if TYPE_CHECKING:
    from synapse_gateway.testing.scripts import Script

WHISPER: dict[str, Any] = {"whisper": BackendType.FASTER_WHISPER}
SPEACHES: dict[str, Any] = {"speaches": BackendType.SPEACHES}
PYANNOTE: dict[str, Any] = {"pyannote": BackendType.PYANNOTE}
DEEPFILTER: dict[str, Any] = {"deepfilter": BackendType.DEEPFILTER}
TRANSCRIPT = {
    "text": "alpha beta gamma",
    "language": "en",
    "duration": 3.0,
    "segments": [
        {"id": 0, "text": "alpha", "start": 0.0, "end": 1.0},
        {"id": 1, "text": "beta", "start": 1.0, "end": 2.0},
        {"id": 2, "text": "gamma", "start": 2.0, "end": 3.0},
    ],
}


@pytest.mark.parametrize(
    ("kinds", "path", "parts", "there"),
    [
        (WHISPER, "/stt/transcribe", {}, "/transcribe"),
        (WHISPER, "/stt/transcribe", {"language": "en", "word_timestamps": "1"}, "/transcribe"),
        (WHISPER, "/stt/detect-language", {}, "/detect-language"),
        (WHISPER, "/stt/stream", {"language": "en"}, "/stream"),
        (PYANNOTE, "/speakers/diarize", {}, "/diarize"),
        (
            PYANNOTE,
            "/speakers/diarize",
            {"num_speakers": "2", "min_speakers": "1", "max_speakers": "3"},
            "/diarize",
        ),
        (DEEPFILTER, "/audio/denoise", {}, "/denoise"),
        (
            DEEPFILTER,
            "/audio/convert",
            {"output_format": "mp3", "sample_rate": "16000", "bitrate": "64k"},
            "/convert",
        ),
    ],
)
async def test_a_server_with_the_route_gets_the_file_and_every_field(
    kinds: dict[str, Any], path: str, parts: dict[str, Any], there: str
) -> None:
    async with studio(**kinds) as scene:
        answer = await scene.upload(path, file=WAV, **parts)
        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        [name] = kinds
        assert answer.header("x-synapse-backend") == name
        [seen] = scene.seen(name)
        assert seen.path == there
        received = Received(seen)
        assert received.files == [("file", WAV)]
        flag = {"word_timestamps": "true"} if "word_timestamps" in parts else {}
        assert dict(received.fields) == {**parts, **flag}
        await scene.until_idle()


async def test_two_recordings_are_told_apart() -> None:
    async with studio(**PYANNOTE) as scene:
        answer = await scene.upload("/speakers/verify", file1=WAV, file2=WAV + b"\0\0")
        assert answer.json() == {
            "is_same_speaker": True,
            "similarity_score": 0.9,
            "threshold": 0.75,
        }
        [seen] = scene.seen("pyannote")
        assert seen.path == "/verify"
        assert Received(seen).files == [("file1", WAV), ("file2", WAV + b"\0\0")]


async def test_an_empty_field_is_as_good_as_none() -> None:
    async with studio(**PYANNOTE) as scene:
        assert (await scene.upload("/speakers/diarize", file=WAV, num_speakers="")).status == 200
        assert Received(scene.seen("pyannote")[0]).fields == []


# -- in front of OpenAI's API


async def test_a_transcription_is_translated() -> None:
    async with studio(**SPEACHES) as scene:
        answer = await scene.upload(
            "/stt/transcribe", file=WAV, language="en", word_timestamps="true"
        )
        assert answer.status == 200
        body = answer.json()
        assert [segment.pop("words") for segment in body["segments"]] == [[], [], []]
        assert body == {**TRANSCRIPT, "language_probability": 1.0}
        [seen] = scene.seen("speaches")
        assert seen.path == "/v1/audio/transcriptions"
        assert sorted(Received(seen).fields) == [
            ("language", "en"),
            ("response_format", "verbose_json"),
            ("timestamp_granularities[]", "segment"),
            ("timestamp_granularities[]", "word"),
        ]


async def test_a_language_is_detected_by_transcribing() -> None:
    async with studio(**SPEACHES) as scene:
        answer = await scene.upload("/stt/detect-language", file=WAV)
        assert answer.json()["detected_language"] == "en"
        assert ("language", "en") not in Received(scene.seen("speaches")[0]).fields


async def test_a_model_is_named_where_the_server_needs_one() -> None:
    models = json.dumps(
        {
            "data": [
                {"id": "kokoro", "task": "text-to-speech"},
                {"id": "org/whisper", "task": "automatic-speech-recognition"},
            ]
        }
    )
    async with studio(**SPEACHES) as scene:
        scene.upstreams["speaches"].probes["/v1/models"] = scripts.probe(models.encode())
        scene.running.runtime.prober.nudge("speaches")
        gateway = scene.running.runtime.gateway
        while "org/whisper" not in gateway.state.table.models:
            await wire.get(scene.url, "/livez")
        await scene.upload("/stt/transcribe", file=WAV)
        assert ("model", "org/whisper") in Received(scene.seen("speaches")[0]).fields


async def test_an_answer_that_is_not_what_was_asked_for_goes_to_the_next() -> None:
    async with studio(a=BackendType.SPEACHES, b=BackendType.SPEACHES) as scene:
        for upstream in scene.upstreams.values():
            upstream.queue(scripts.raw(scripts.sized(200, b'{"text": "only"}')))
        answer = await scene.upload("/stt/transcribe", file=WAV)
        assert answer.status == 200
        assert answer.header("x-synapse-fallback") == "malformed"
        assert answer.header("x-synapse-attempts") == "3"


# -- streams


OWN = b'data: {"id":0,"text":"alpha","start":0.0,"end":1.0}\n\n'
TRANSLATED = b'data: {"id":0,"text":"alpha","start":null,"end":null}\n\n'
OPENAI = b'data: {"type":"transcript.text.delta","delta":"alpha"}\n\n'


@pytest.mark.parametrize(
    ("kinds", "path", "first"),
    [
        pytest.param(WHISPER, "/stt/stream", OWN, id="own"),
        pytest.param(SPEACHES, "/stt/stream", TRANSLATED, id="translated"),
        pytest.param(WHISPER, "/v1/audio/transcriptions", OPENAI, id="openai"),
    ],
)
async def test_a_segment_is_delivered_while_the_next_is_held_back(
    kinds: dict[str, Any], path: str, first: bytes
) -> None:
    async with studio(**kinds) as scene:
        [upstream] = scene.upstreams.values()
        upstream.queue(scripts.held(after=1))
        body = form(file=WAV, stream="true", model="m")
        headers = {"content-type": KIND}
        async with wire.send(scene.url, "POST", path, body=body, headers=headers) as stream:
            assert await stream.next_chunk() == first
            upstream.gate("go").set()
            rest = await stream.read_rest()
        assert rest.ending is Ending.COMPLETE
        ends = b"event: done" if path == "/stt/stream" else b"transcript.text.done"
        assert ends in rest.body
        assert rest.header("content-type") == "text/event-stream"


@pytest.mark.parametrize("kinds", [WHISPER, SPEACHES], ids=["own", "translated"])
@pytest.mark.parametrize(
    "script",
    [scripts.broken(1, then=scripts.Close()), scripts.malformed_event(1), scripts.error_event(1)],
    ids=["cut", "malformed", "error"],
)
async def test_a_stream_that_fails_ends_with_an_error_and_without_done(
    kinds: dict[str, Any], script: Script
) -> None:
    async with studio(**kinds) as scene:
        [upstream] = scene.upstreams.values()
        upstream.queue(script)
        answer = await scene.upload("/stt/stream", file=WAV)
        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        assert b"event: done" not in answer.body
        *_, last = answer.body.decode().strip().split("\n\n")
        name, data = last.split("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"].startswith("stream_")


# -- what cannot be


@pytest.mark.parametrize(
    ("path", "parts", "status", "param"),
    [
        ("/stt/transcribe", {}, 422, "file"),
        ("/stt/transcribe", {"file": "text"}, 422, "file"),
        ("/stt/transcribe", {"file": [WAV, WAV]}, 422, "file"),
        ("/stt/transcribe", {"file": b""}, 400, "file"),
        ("/stt/transcribe", {"file": b"x" * 100}, 415, "file"),
        ("/stt/transcribe", {"file": WAV, "language": "e"}, 422, "language"),
        ("/stt/transcribe", {"file": WAV, "word_timestamps": "maybe"}, 422, "word_timestamps"),
        ("/speakers/diarize", {"file": WAV, "num_speakers": "0"}, 422, "num_speakers"),
        ("/speakers/diarize", {"file": WAV, "num_speakers": "two"}, 422, "num_speakers"),
        ("/speakers/diarize", {"file": WAV, "max_speakers": "101"}, 422, "max_speakers"),
        (
            "/speakers/diarize",
            {"file": WAV, "min_speakers": "3", "max_speakers": "2"},
            422,
            "min_speakers",
        ),
        ("/speakers/verify", {"file1": WAV}, 422, "file2"),
        ("/audio/convert", {"file": WAV}, 422, "output_format"),
        ("/audio/convert", {"file": WAV, "output_format": "aiff"}, 422, "output_format"),
        (
            "/audio/convert",
            {"file": WAV, "output_format": "mp3", "sample_rate": "10"},
            422,
            "sample_rate",
        ),
        (
            "/audio/convert",
            {"file": WAV, "output_format": "mp3", "bitrate": "fast"},
            422,
            "bitrate",
        ),
    ],
)
async def test_a_field_that_cannot_be_is_named(
    path: str, parts: dict[str, Any], status: int, param: str
) -> None:
    async with studio(**WHISPER, **PYANNOTE, **DEEPFILTER) as scene:
        answer = await scene.upload(path, **parts)
        error = answer.error() or {}
        assert (answer.status, error["param"]) == (status, param)
        assert error["message"].startswith(f"{param}: ")
        assert not any(scene.seen(name) for name in scene.upstreams)
        await scene.until_idle()


@pytest.mark.parametrize(
    "path",
    [
        *("/stt/transcribe", "/stt/stream", "/v1/audio/translations"),
        *("/speakers/diarize", "/audio/denoise", "/tts/synthesize"),
    ],
)
async def test_what_nothing_of_the_deployment_can_is_a_501_with_the_reason(path: str) -> None:
    async with studio(llm=BackendType.LLAMACPP) as scene:
        answer = (
            await scene.say(path, "Hello.")
            if path.startswith("/tts")
            else await scene.upload(path, file=WAV)
        )
        error = answer.error() or {}
        assert (answer.status, error["code"]) == (501, "not_supported")
        assert error["message"].startswith("No backend of this deployment can do this (")


async def test_what_the_model_cannot_is_a_501_in_its_own_words() -> None:
    async with studio(**WHISPER) as scene:
        body = b'{"error": {"message": "tiny.en knows English only", "code": "not_supported"}}'
        scene.upstreams["whisper"].queue(scripts.status(501, body=body))
        answer = await scene.upload("/stt/detect-language", file=WAV)
        assert (answer.status, (answer.error() or {})["message"]) == (
            501,
            "tiny.en knows English only",
        )


async def test_a_backends_refusal_has_the_contracts_shape() -> None:
    async with studio(**SPEACHES) as scene:
        detail = b'{"detail": "Failed to decode audio."}'
        scene.upstreams["speaches"].queue(scripts.status(415, body=detail))
        answer = await scene.upload("/stt/transcribe", file=WAV)
        assert answer.status == 415
        assert answer.error() == {
            "message": "Failed to decode audio.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }


async def test_a_registrys_routes_say_who_serves() -> None:
    routes = {"/stt/*": Route(backend="second"), "/speakers/*": Route(backend="second")}
    kinds: dict[str, Any] = dict.fromkeys(("first", "second"), BackendType.FASTER_WHISPER)
    async with studio(settings={"routes": routes}, **kinds) as scene:
        answer = await scene.upload("/stt/transcribe", file=WAV)
        assert answer.header("x-synapse-backend") == "second"
        assert (await scene.upload("/speakers/diarize", file=WAV)).status == 501
