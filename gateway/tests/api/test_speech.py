"""/tts/synthesize and /tts/stream, over sockets, in front of each kind of server."""

from __future__ import annotations

import io
import json
import struct
import wave
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.audio_api.wav import Format
from synapse_gateway.config.settings import BackendType, Device, Limits, Route, Spool
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import LAST_CHUNK, Close, Hold, Send, chunk, head
from synapse_gateway.testing.wire import Ending
from tests.api.audio_support import sound, studio

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_gateway.testing.faulty_upstream import FaultyUpstream, Request
    from synapse_gateway.testing.scripts import Script, Step

PIPER: dict[str, Any] = {"piper": BackendType.PIPER}
BOTH: dict[str, Any] = {"openvoice": BackendType.OPENVOICE, "piper": BackendType.PIPER}
TEXT = "One. Two, three. Four!"
SENTENCES = ["One.", "Two, three.", "Four!"]
FORM = Format(1, 1, 16000, 16)
STREAMED = {"content-type": "audio/wav", "transfer-encoding": "chunked"}
WAV_HEAD = {"content-type": "audio/wav", "x-synapse-voice": "joe"}


def said(request: Request) -> str:
    body = request.json()
    return str(body.get("input", body.get("text")))


def speaks(*, rate: int = 16000) -> Script:
    """Speak every text; its sound lasts a tenth of a second for each letter."""

    def run(request: Request) -> Iterable[Step]:
        data = sound(len(said(request)), rate)
        yield Send(scripts.sized(200, data, WAV_HEAD))

    return run


def breaks(*, after: int = 1000) -> Script:
    """Speak so many bytes of samples, and close."""
    return lambda _: [Send(head(200, STREAMED) + chunk(FORM.head(None) + bytes(after))), Close()]


def speaking(upstream: FaultyUpstream, *, rate: int = 16000) -> None:
    upstream.script = speaks(rate=rate)


def samples_of(text: str) -> bytes:
    return sound(len(text))[44:]


def frames(body: bytes) -> tuple[int, bytes]:
    with wave.open(io.BytesIO(body)) as file:
        return file.getframerate(), file.readframes(file.getnframes())


# -- whole


async def test_sentences_are_asked_one_by_one_and_joined() -> None:
    async with studio(**PIPER) as scene:
        speaking(scene.upstreams["piper"])
        answer = await scene.say("/tts/synthesize", TEXT, speed=1.5, language="en")
        assert (answer.status, answer.header("content-type")) == (200, "audio/wav")
        assert answer.header("x-synapse-voice") == "joe"
        assert answer.header("x-synapse-fallback") is None
        assert int(answer.header("content-length") or 0) == len(answer.body)
        rate, samples = frames(answer.body)
        assert rate == 16000
        assert samples == b"".join(map(samples_of, SENTENCES))
        assert struct.unpack_from("<I", answer.body, 4)[0] == len(answer.body) - 8
        seen = scene.seen("piper")
        assert [said(request) for request in seen] == SENTENCES
        assert {request.path for request in seen} == {"/v1/audio/speech"}
        assert seen[0].json() == {
            "input": "One.",
            "voice": "default",
            "response_format": "wav",
            "speed": 1.5,
            "language": "en",
        }
        await scene.until_idle()


async def test_a_text_may_be_asked_for_in_one_piece() -> None:
    async with studio(**PIPER) as scene:
        speaking(scene.upstreams["piper"])
        answer = await scene.say("/tts/synthesize", TEXT, split_sentences=False)
        assert [said(request) for request in scene.seen("piper")] == [TEXT]
        assert frames(answer.body)[1] == samples_of(TEXT)


async def test_a_long_text_goes_through_the_disk(tmp_path: Any) -> None:
    limits = {"spool": Spool(memory_bytes=1000)}
    async with studio(tmp_path, limits=limits, **PIPER) as scene:
        speaking(scene.upstreams["piper"])
        text = " ".join(f"This is sentence {number} of a long text." for number in range(100))
        answer = await scene.say("/tts/synthesize", text)
        assert len(scene.seen("piper")) == 100
        # a blank between two sentences is not spoken
        assert len(answer.body) - 44 == 3200 * (len(text) - 99)
        await scene.until_idle()


async def test_a_text_without_room_is_a_503() -> None:
    limits = {"spool": Spool(max_bytes=20_000)}
    async with studio(limits=limits, **PIPER) as scene:
        speaking(scene.upstreams["piper"])
        answer = await scene.say("/tts/synthesize", TEXT)
        assert answer.status == 503
        assert answer.header("retry-after")
        await scene.until_idle()


# -- streamed


async def test_the_first_sound_leaves_before_the_last_sentence_is_asked_for() -> None:
    async with studio(**PIPER) as scene:
        piper = scene.upstreams["piper"]

        def held(request: Request) -> Iterable[Step]:
            if said(request) != SENTENCES[0]:
                yield Hold()
            yield from speaks()(request)

        piper.script = held
        async with wire.open_stream(scene.url, "/tts/stream", {"text": TEXT}) as stream:
            first = await stream.next_chunk() or b""
            assert first[:4] == b"RIFF"
            while len(first) < 44 + len(samples_of(SENTENCES[0])):
                first += await stream.next_chunk() or b""
            assert SENTENCES[2] not in [said(request) for request in piper.requests]
            piper.gate("go").set()
            answer = await stream.read_rest()
        assert answer.ending is Ending.COMPLETE
        assert answer.header("transfer-encoding") == "chunked"
        assert answer.body[:44] == FORM.head(None)
        assert answer.body[44:] == b"".join(map(samples_of, SENTENCES))


async def test_sound_leaves_before_its_sentence_is_whole() -> None:
    async with studio(**PIPER) as scene:
        piper = scene.upstreams["piper"]
        piper.queue(
            lambda _: [
                Send(head(200, STREAMED) + chunk(FORM.head(None) + b"1234")),
                Hold(),
                Send(chunk(b"5678") + LAST_CHUNK),
            ]
        )
        async with wire.open_stream(scene.url, "/tts/stream", {"text": "One."}) as stream:
            assert await stream.next_chunk() == FORM.head(None) + b"1234"
            piper.gate("go").set()
            assert (await stream.read_rest()).body.endswith(b"12345678")


# -- who speaks


async def test_the_better_voice_comes_first() -> None:
    kinds: dict[str, Any] = {
        "speaches": BackendType.SPEACHES,
        "piper": BackendType.PIPER,
        "openvoice": BackendType.OPENVOICE,
        "chatterbox": BackendType.CHATTERBOX,
    }
    async with studio(devices={"piper": {"device": Device.CPU}}, failures=1, **kinds) as scene:
        for upstream in scene.upstreams.values():
            speaking(upstream)
        for name in ("chatterbox", "openvoice", "piper", "speaches"):
            answer = await scene.say("/tts/synthesize", "One.")
            assert answer.header("x-synapse-backend") == name
            await scene.upstreams[name].refuse(drop=True)


@pytest.mark.parametrize("path", ["/tts/synthesize", "/tts/stream"])
async def test_a_voice_that_cannot_begin_is_followed_by_the_standard_one(path: str) -> None:
    async with studio(**BOTH) as scene:
        speaking(scene.upstreams["piper"], rate=22050)
        scene.upstreams["openvoice"].script = scripts.status(503)
        answer = await scene.say(path, TEXT)
        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        assert answer.header("x-synapse-backend") == "piper"
        assert answer.header("x-synapse-fallback") == "server_error"
        assert answer.header("x-synapse-voice") == "joe"
        # the first sentence settles who speaks
        assert (len(scene.seen("openvoice")), len(scene.seen("piper"))) == (1, 3)


FAILS = {
    "cut": breaks(),
    "refused": scripts.status(500),
    "no-sound": scripts.raw(scripts.sized(200, b'{"not": "sound"}')),
    "another-format": speaks(rate=8000),
}


@pytest.mark.parametrize("script", FAILS.values(), ids=FAILS)
async def test_a_voice_that_fails_midway_is_replaced_from_the_start_while_nobody_heard_it(
    script: Script,
) -> None:
    async with studio(**BOTH) as scene:
        speaking(scene.upstreams["openvoice"])
        speaking(scene.upstreams["piper"], rate=22050)
        # each of the three attempts at the second sentence
        scene.upstreams["openvoice"].queue(speaks(), script, script, script)
        answer = await scene.say("/tts/synthesize", TEXT)
        assert answer.status == 200
        assert answer.header("x-synapse-backend") == "piper"
        assert answer.header("x-synapse-fallback")
        rate, samples = frames(answer.body)
        assert rate == 22050
        assert samples == b"".join(sound(len(text), 22050)[44:] for text in SENTENCES)
        assert [said(request) for request in scene.seen("piper")] == SENTENCES
        metrics = await wire.metrics(scene.url)
        assert metrics.value("synapse_cut_streams_total") == 0
        assert metrics.value("synapse_fallbacks_total", backend="piper") == 1
        await scene.until_idle()


@pytest.mark.parametrize("script", FAILS.values(), ids=FAILS)
async def test_a_stream_that_fails_midway_is_broken_off(script: Script) -> None:
    async with studio(**BOTH) as scene:
        speaking(scene.upstreams["openvoice"])
        speaking(scene.upstreams["piper"])
        scene.upstreams["openvoice"].queue(speaks(), script, script, script)
        answer = await scene.say("/tts/stream", TEXT)
        assert (answer.status, answer.ending) == (200, Ending.CUT)
        assert answer.body.startswith(FORM.head(None) + samples_of("One."))
        assert scene.seen("piper") == []
        metrics = await wire.metrics(scene.url)
        assert metrics.value("synapse_cut_streams_total") == 1


async def test_a_sentence_may_be_spoken_by_a_twin() -> None:
    kinds: dict[str, Any] = {"a": BackendType.PIPER, "b": BackendType.PIPER}
    async with studio(failures=1, **kinds) as scene:
        for upstream in scene.upstreams.values():
            speaking(upstream)

        def once(request: Request) -> Iterable[Step]:
            if said(request) == SENTENCES[1] and len(scene.seen("a") + scene.seen("b")) == 2:
                yield Close()
                return
            yield from speaks()(request)

        for upstream in scene.upstreams.values():
            upstream.script = once
        answer = await scene.say("/tts/stream", TEXT)
        assert answer.ending is Ending.COMPLETE
        assert answer.body[44:] == b"".join(map(samples_of, SENTENCES))
        assert len(scene.seen("a")) + len(scene.seen("b")) == 4


async def test_a_whole_text_that_nobody_can_speak_is_an_error_and_no_sound() -> None:
    async with studio(**PIPER) as scene:
        speaking(scene.upstreams["piper"])
        scene.upstreams["piper"].queue(speaks(), breaks(after=2_000_000))
        answer = await scene.say("/tts/synthesize", TEXT)
        assert answer.status == 502
        assert (answer.error() or {})["code"] == "bad_gateway"
        metrics = await wire.metrics(scene.url)
        assert metrics.value("synapse_cut_streams_total") == 0
        await scene.until_idle()


async def test_a_cut_is_held_back_within_the_limit() -> None:
    limits = {"hold_bytes": Limits().hold_bytes}
    async with studio(limits=limits, **BOTH) as scene:
        speaking(scene.upstreams["piper"])
        scene.upstreams["openvoice"].script = breaks(after=500_000)
        answer = await scene.say("/tts/synthesize", "One.")
        assert (answer.status, answer.header("x-synapse-fallback")) == (200, "empty")


# -- in each server's words


async def test_chatterbox_is_asked_in_its_own_words() -> None:
    async with studio(chatterbox=BackendType.CHATTERBOX) as scene:
        chatterbox = scene.upstreams["chatterbox"]
        speaking(chatterbox)
        answer = await scene.say("/tts/synthesize", "One.", split_sentences=False)
        assert answer.header("x-synapse-voice") == "Emily.wav"
        [seen] = scene.seen("chatterbox")
        assert (seen.path, seen.json()["split_text"]) == ("/tts", True)
        assert seen.json()["predefined_voice_id"] == "Emily.wav"


async def test_a_server_with_openais_api_is_asked_by_it() -> None:
    async with studio(speaches=BackendType.SPEACHES) as scene:
        speaking(scene.upstreams["speaches"])
        answer = await scene.say("/tts/synthesize", "One.", language="xx")
        assert answer.header("x-synapse-voice") == "alloy"
        assert scene.seen("speaches")[0].json()["voice"] == "alloy"


async def test_a_route_may_name_a_model_with_targets_of_its_own() -> None:
    routes = {"/tts/*": Route(backend="piper")}
    async with studio(settings={"routes": routes}, **BOTH) as scene:
        speaking(scene.upstreams["piper"])
        answer = await scene.say("/tts/synthesize", "One.")
        assert answer.header("x-synapse-backend") == "piper"


# -- what cannot be


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 422, "text"),
        ({"text": ""}, 422, "text"),
        ({"text": "x" * 5001}, 422, "text"),
        ({"text": "... !"}, 422, "text"),
        ({"text": 5}, 422, "text"),
        ({"text": "x", "speed": 0.4}, 422, "speed"),
        ({"text": "x", "speed": 2.1}, 422, "speed"),
        ({"text": "x", "speed": "fast"}, 422, "speed"),
        ({"text": "x", "language": ""}, 422, "language"),
        ({"text": "x", "language": "not a language"}, 422, "language"),
        ({"text": "x", "split_sentences": "yes"}, 422, "split_sentences"),
        ([], 400, None),
    ],
)
@pytest.mark.parametrize("path", ["/tts/synthesize", "/tts/stream"])
async def test_a_field_that_cannot_be_is_named(
    path: str, body: Any, status: int, param: str | None
) -> None:
    async with studio(**PIPER) as scene:
        answer = await wire.post(scene.url, path, body)
        assert (answer.status, (answer.error() or {})["param"]) == (status, param)


async def test_what_is_no_json_is_a_400() -> None:
    async with studio(**PIPER) as scene:
        answer = await wire.exchange(scene.url, "POST", "/tts/synthesize", body=b"{")
        assert answer.status == 400


async def test_a_backends_refusal_names_the_contracts_field() -> None:
    async with studio(**PIPER) as scene:
        body = json.dumps({"error": {"message": "input: cannot be spoken", "param": "input"}})
        scene.upstreams["piper"].script = scripts.status(422, body=body.encode())
        for path in ("/tts/synthesize", "/tts/stream"):
            answer = await scene.say(path, TEXT)
            error = answer.error() or {}
            assert (answer.status, error["param"]) == (422, "text")
            assert error["message"] == "text: cannot be spoken"


async def test_a_refusal_midway_is_a_refusal_or_a_cut() -> None:
    async with studio(**PIPER) as scene:
        piper = scene.upstreams["piper"]
        speaking(piper)
        piper.queue(speaks(), scripts.status(422))
        assert (await scene.say("/tts/synthesize", TEXT)).status == 422
        piper.queue(speaks(), scripts.status(422))
        answer = await scene.say("/tts/stream", TEXT)
        assert (answer.status, answer.ending) == (200, Ending.CUT)


async def test_a_language_that_nobody_speaks_is_refused_with_those_known() -> None:
    async with studio(**BOTH) as scene:
        fleet = scene.running.runtime.fleet.backends
        fleet["openvoice"].languages = (("en", "English"), ("es", "Spanish"))
        fleet["piper"].languages = (("en-US", "English"),)
        for upstream in scene.upstreams.values():
            speaking(upstream)
        answer = await scene.say("/tts/synthesize", "One.", language="de")
        error = answer.error() or {}
        assert (answer.status, error["code"]) == (422, "unknown_language")
        assert error["message"] == "language: 'de' is not known; known: en, en-US, es"
        # one that only the better voice speaks never falls back to another language
        scene.upstreams["openvoice"].script = scripts.status(503)
        assert (await scene.say("/tts/synthesize", "Uno.", language="es")).status == 502
        answer = await scene.say("/tts/synthesize", "One.", language="en-GB")
        assert answer.header("x-synapse-backend") == "piper"
        assert scene.seen("piper")[-1].json()["language"] == "en-US"
