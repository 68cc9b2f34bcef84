"""Speech in the voices of the library: who is sent them, when, and what is said where none can."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.api.cloning import Cast
from synapse_gateway.config.settings import BackendType, Queue, Voices
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Close, Reset
from tests.api.audio_support import sound, studio
from tests.api.cloners import Chatterbox, OpenVoice, error
from tests.voices.support import FORMAT, sources, tone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Script, Step
    from synapse_gateway.testing.wire import Answer
    from synapse_gateway.voices.library import Voice
    from tests.api.audio_support import Studio

ONE, TWO = tone(1.0, seed=1), tone(2.0, seed=2)
OPENVOICE = {"openvoice": BackendType.OPENVOICE}
CHATTERBOX = {"chatterbox": BackendType.CHATTERBOX}
PIPER = {"piper": BackendType.PIPER}
TEXT = "One. Two, three."
SAID = [sound(len(text))[44:] for text in ("One.", "Two, three.")]


@asynccontextmanager
async def scene_of(tmp_path: Path, **kinds: Any) -> AsyncIterator[Studio]:
    async with studio(voices=tmp_path / "voices", **kinds) as scene:
        if "piper" in scene.upstreams:
            scene.upstreams["piper"].script = lambda _: [
                scripts.Send(
                    scripts.sized(
                        200, sound(1), {"content-type": "audio/wav", "x-synapse-voice": "joe"}
                    )
                )
            ]
        yield scene


def keep(scene: Studio, name: str, *files: bytes) -> Voice:
    voice = scene.running.runtime.gateway.voices.library.create(name, sources(*files))
    scene.running.runtime.gateway.voices.forget()
    return voice


def paths(scene: Studio, name: str) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in scene.seen(name)]


async def test_a_voice_is_sent_once_and_then_known(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        server = OpenVoice(scene.upstreams["openvoice"])
        voice = keep(scene, "anna", ONE, TWO)
        for name in (voice.id, "anna"):
            answer = await scene.say("/tts/synthesize", TEXT, voice_id=name)
            assert answer.status == 200
            assert answer.body[44:] == b"".join(SAID)
            assert answer.header("x-synapse-voice") == voice.id
            assert answer.header("x-synapse-fallback") is None
        assert server.uploads == {voice.digest: 1}
        assert server.voices[voice.digest] == [ONE, TWO]
        speak = ("POST", "/v1/audio/speech")
        put = ("PUT", f"/voices/{voice.digest}")
        assert paths(scene, "openvoice") == [speak, put, speak, speak, speak, speak]
        assert scene.seen("openvoice")[2].json() == {
            "input": "One.",
            "voice": voice.digest,
            "response_format": "wav",
            "speed": 1.0,
            "language": "en",
        }


async def test_a_voice_that_is_forgotten_is_sent_again(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        server = OpenVoice(scene.upstreams["openvoice"])
        voice = keep(scene, "anna", ONE)
        await scene.say("/tts/stream", TEXT, voice_id="anna")
        server.voices.clear()
        answer = await scene.say("/tts/stream", TEXT, voice_id="anna")
        assert answer.body[44:] == b"".join(SAID)
        assert server.uploads == {voice.digest: 2}


async def test_a_voice_that_has_changed_is_another(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        server = OpenVoice(scene.upstreams["openvoice"])
        voice = keep(scene, "anna", ONE)
        await scene.say("/tts/synthesize", "One.", voice_id=voice.id)
        scene.running.runtime.gateway.voices.library.extend(voice.id, sources(TWO))
        await scene.say("/tts/synthesize", "One.", voice_id=voice.id)
        assert sorted(map(len, server.voices.values())) == [1, 2]


async def test_a_voice_that_many_ask_for_at_once_is_sent_once(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        server = OpenVoice(scene.upstreams["openvoice"])
        keep(scene, "anna", ONE)
        answers = await asyncio.gather(
            *(scene.say("/tts/synthesize", "One.", voice_id="anna") for _ in range(20))
        )
        assert {answer.status for answer in answers} == {200}
        assert list(server.uploads.values()) == [1]


async def test_who_leaves_takes_the_voice_away_from_nobody(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        upstream = scene.upstreams["openvoice"]
        server = OpenVoice(upstream)
        keep(scene, "anna", ONE)

        def slow(request: Request) -> Iterable[Step]:
            if request.method == "PUT":
                yield scripts.Hold()
            yield from server.answer(request)

        upstream.script = slow
        body = b'{"text": "One.", "voice_id": "anna"}'
        line = await scene.connect()
        line.send(
            b"POST /tts/synthesize HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(body), body)
        )
        await upstream.seen(2)
        other = asyncio.create_task(scene.say("/tts/synthesize", "One.", voice_id="anna"))
        await upstream.seen(3)
        line.writer.transport.abort()
        upstream.gate("go").set()
        assert (await other).status == 200
        assert list(server.uploads.values()) == [1]


# -- Chatterbox


async def test_chatterbox_gets_the_longest_recording_under_the_name_of_its_content(
    tmp_path: Path,
) -> None:
    async with scene_of(tmp_path, **CHATTERBOX) as scene:
        server = Chatterbox(scene.upstreams["chatterbox"])
        voice = keep(scene, "anna", ONE, TWO)
        for _ in range(2):
            answer = await scene.say("/tts/synthesize", TEXT, voice_id="anna", speed=1.5)
            assert answer.body[44:] == b"".join(SAID)
            assert answer.header("x-synapse-voice") == voice.id
        assert list(server.uploads.values()) == [1]
        assert list(server.references.values()) == [TWO]
        [name] = server.references
        assert name.endswith(".wav")
        assert scene.seen("chatterbox")[0].json() == {
            "text": "One.",
            "voice_mode": "clone",
            "reference_audio_filename": name,
            "output_format": "wav",
            "split_text": False,
            "speed_factor": 1.5,
            "language": "en",
        }


async def test_chatterbox_gets_no_more_than_it_takes(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **CHATTERBOX) as scene:
        server = Chatterbox(scene.upstreams["chatterbox"])
        long = tone(31.0, rate=8000)
        keep(scene, "anna", long)
        assert (await scene.say("/tts/synthesize", "One.", voice_id="anna")).status == 200
        form = FORMAT._replace(rate=8000)
        size = 30 * 8000 * 2
        assert list(server.references.values()) == [form.head(size) + long[44 : 44 + size]]


async def test_a_recording_that_chatterbox_refuses_is_the_callers_to_know(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **CHATTERBOX) as scene:
        upstream = scene.upstreams["chatterbox"]
        server = Chatterbox(upstream)
        keep(scene, "anna", ONE)
        problem = b'{"message": "Processed", "errors": [{"filename": "a", "error": "too quiet"}]}'

        def refuse(request: Request) -> Iterable[Step]:
            if request.path == "/upload_reference":
                yield scripts.Send(scripts.sized(400, problem))
            else:
                yield from server.answer(request)

        upstream.script = refuse
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        found = answer.error() or {}
        assert (answer.status, found["param"]) == (422, "voice_id")
        assert "too quiet" in found["message"]


# -- a voice that cannot be given


UPLOADS: dict[str, tuple[Script, str, int]] = {
    "failed": (scripts.status(500), "server_error", 502),
    "reset": (lambda _: [Reset()], "reset", 503),
    "closed": (lambda _: [Close()], "reset", 503),
    "full": (scripts.throttled(7), "throttled", 503),
    "no-such-route": (scripts.status(404), "misrouted", 404),
}


@pytest.mark.parametrize(("script", "outcome", "status"), UPLOADS.values(), ids=UPLOADS)
async def test_a_server_that_cannot_take_the_voice_is_followed_by_the_next(
    tmp_path: Path, script: Script, outcome: str, status: int
) -> None:
    del status
    async with scene_of(tmp_path, **CHATTERBOX, **OPENVOICE) as scene:
        first = Chatterbox(scene.upstreams["chatterbox"])
        OpenVoice(scene.upstreams["openvoice"])
        keep(scene, "anna", ONE)

        def fail(request: Request) -> Iterable[Step]:
            answer = script if request.path == "/upload_reference" else first.answer
            yield from answer(request)

        scene.upstreams["chatterbox"].script = fail
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "openvoice")
        assert answer.header("x-synapse-fallback") == outcome


async def test_a_server_that_never_knows_the_voice_has_failed(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        upstream = scene.upstreams["openvoice"]

        def forgetful(request: Request) -> Iterable[Step]:
            good = scripts.sized(200, b"{}")
            never = error(404, "voice: is not cached", "voice_not_found")
            yield scripts.Send(good if request.method == "PUT" else never)

        upstream.script = forgetful
        keep(scene, "anna", ONE)
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert answer.status == 502


async def test_a_server_that_refuses_the_text_once_it_has_the_voice_is_heard(
    tmp_path: Path,
) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        upstream = scene.upstreams["openvoice"]
        server = OpenVoice(upstream)

        def picky(request: Request) -> Iterable[Step]:
            if request.method == "POST" and server.voices:
                yield scripts.Send(error(422, "input: cannot be spoken"))
            else:
                yield from server.answer(request)

        upstream.script = picky
        keep(scene, "anna", ONE)
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert (answer.status, (answer.error() or {})["message"]) == (
            422,
            "input: cannot be spoken",
        )


# -- where the voice cannot be had


async def test_a_text_in_nobodys_voice_falls_back_by_itself(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE, **PIPER) as scene:
        await scene.upstreams["openvoice"].refuse(drop=True)
        answer = await scene.say("/tts/synthesize", "One.")
        assert (answer.status, answer.header("x-synapse-voice")) == (200, "joe")
        assert answer.header("x-synapse-fallback") == "refused"


async def test_a_text_in_a_voice_does_not(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE, **PIPER) as scene:
        keep(scene, "anna", ONE)
        await scene.upstreams["openvoice"].refuse(drop=True)
        for path in ("/tts/synthesize", "/tts/stream"):
            answer = await scene.say(path, "One.", voice_id="anna")
            found = answer.error() or {}
            assert (answer.status, found["code"]) == (503, "voice_unavailable")
            assert answer.header("retry-after")
            assert "'anna'" in found["message"]
            assert "x-synapse-allow-fallback" in found["message"]
        assert scene.seen("piper") == []


@pytest.mark.parametrize(
    ("headers", "configured", "speaks"),
    [
        ({"x-synapse-allow-fallback": "true"}, False, True),
        ({"x-synapse-allow-fallback": "1"}, False, True),
        ({"x-synapse-allow-fallback": "false"}, True, False),
        ({}, True, True),
        ({}, False, False),
    ],
)
async def test_unless_the_caller_or_the_configuration_allows_it(
    tmp_path: Path, headers: Mapping[str, str], *, configured: bool, speaks: bool
) -> None:
    settings = {"voices": Voices(allow_standard=configured)}
    async with scene_of(tmp_path, settings=settings, **OPENVOICE, **PIPER) as scene:
        keep(scene, "anna", ONE)
        await scene.upstreams["openvoice"].refuse(drop=True)
        body = {"text": TEXT, "voice_id": "anna"}
        answer = await wire.post(scene.url, "/tts/synthesize", body, headers=headers)
        assert answer.status == (200 if speaks else 503)
        if speaks:
            assert answer.header("x-synapse-voice") == "joe"
            assert answer.header("x-synapse-fallback") == "refused"
            assert {seen.json()["voice"] for seen in scene.seen("piper")} == {"default"}


async def test_a_voice_waits_for_a_server_that_sleeps(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE, **PIPER) as scene:
        OpenVoice(scene.upstreams["openvoice"])
        keep(scene, "anna", ONE)
        runtime = scene.running.runtime
        runtime.fleet.backends["openvoice"].asleep = True
        waiting = asyncio.create_task(scene.say("/tts/synthesize", "One.", voice_id="anna"))
        while not list(runtime.waiting.lengths()):  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        assert (await scene.say("/tts/synthesize", "One.")).header("x-synapse-voice") == "joe"
        runtime.fleet.backends["openvoice"].asleep = False
        runtime.waiting.notify()
        assert (await waiting).status == 200


async def test_a_voice_does_not_wait_for_ever(tmp_path: Path) -> None:
    limits = {"queue": Queue(deadline=0.2)}
    async with scene_of(tmp_path, limits=limits, **OPENVOICE, **PIPER) as scene:
        keep(scene, "anna", ONE)
        scene.running.runtime.fleet.backends["openvoice"].asleep = True
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert (answer.status, (answer.error() or {})["code"]) == (503, "voice_unavailable")


async def test_a_deployment_that_cannot_clone_says_so(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **PIPER) as scene:
        keep(scene, "anna", ONE)
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert answer.status == 501
        assert "cloning" in (answer.error() or {})["message"]
        allowed = {"x-synapse-allow-fallback": "true"}
        body = {"text": "One.", "voice_id": "anna"}
        answer = await wire.post(scene.url, "/tts/synthesize", body, headers=allowed)
        assert (answer.status, answer.header("x-synapse-voice")) == (200, "joe")


async def test_a_voice_that_is_not_there_is_a_404(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        for name in ("nobody", "0" * 32, "../x"):
            answer = await scene.say("/tts/synthesize", "One.", voice_id=name)
            assert (answer.status, (answer.error() or {})["code"]) == (404, "voice_not_found")
        assert (await scene.say("/tts/synthesize", "One.", voice_id="")).status in (200, 404)


async def test_a_voice_removed_meanwhile_is_no_500(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        OpenVoice(scene.upstreams["openvoice"])
        voice = keep(scene, "anna", ONE)
        shelf = scene.running.runtime.gateway.voices
        assert await shelf.find("anna") == voice
        shelf.library.delete(voice.id)
        answer = await scene.say("/tts/synthesize", "One.", voice_id="anna")
        assert answer.status == 503


# -- between voices


def blend(*parts: tuple[Voice, float], **more: Any) -> dict[str, Any]:
    voices = [{"voice_id": voice.id, "weight": weight} for voice, weight in parts]
    return {"text": TEXT, "voices": voices, **more}


async def interpolate(scene: Studio, body: dict[str, Any]) -> Answer:
    return await wire.post(scene.url, "/tts/interpolate", body)


async def test_voices_are_blended_by_who_can(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        server = OpenVoice(scene.upstreams["openvoice"])
        anna, bert = keep(scene, "anna", ONE), keep(scene, "bert", TWO)
        answer = await interpolate(scene, blend((anna, 0.25), (bert, 0.75), speed=1.25))
        assert answer.status == 200
        assert answer.header("content-type") == "audio/wav"
        assert answer.header("x-synapse-voice") == f"{anna.id}=0.25, {bert.id}=0.75"
        assert set(server.uploads) == {anna.digest, bert.digest}
        seen = scene.seen("openvoice")[-1]
        assert (seen.path, seen.json()) == (
            "/interpolate",
            {
                "text": TEXT,
                "voices": [
                    {"voice": anna.digest, "weight": 0.25},
                    {"voice": bert.digest, "weight": 0.75},
                ],
                "language": "en",
                "speed": 1.25,
            },
        )


async def test_chatterbox_hears_the_recordings_in_the_ratio_of_the_weights(
    tmp_path: Path,
) -> None:
    async with scene_of(tmp_path, **CHATTERBOX) as scene:
        server = Chatterbox(scene.upstreams["chatterbox"])
        anna, bert = keep(scene, "anna", ONE), keep(scene, "bert", TWO)
        for _ in range(2):
            answer = await interpolate(scene, blend((anna, 0.5), (bert, 0.5)))
            assert answer.status == 200
        # as long as can be: the shorter recording is half of it
        blended = ONE[44:] + TWO[44 : 44 + 32000]
        assert list(server.references.values()) == [FORMAT.head(64000) + blended]
        assert list(server.uploads.values()) == [1]
        other = await interpolate(scene, blend((anna, 0.2), (bert, 0.8)))
        assert other.status == 200
        last = list(server.references.values())[-1]
        assert last == FORMAT.head(80000) + ONE[44 : 44 + 16000] + TWO[44:]
        tts = [seen.json() for seen in scene.seen("chatterbox") if seen.path == "/tts"]
        assert {body["split_text"] for body in tts} == {True}


async def test_recordings_of_different_formats_cannot_be_blended_by_chatterbox(
    tmp_path: Path,
) -> None:
    other = tone(1.0, rate=22050)
    async with scene_of(tmp_path, **CHATTERBOX) as scene:
        Chatterbox(scene.upstreams["chatterbox"])
        anna, bert = keep(scene, "anna", ONE), keep(scene, "bert", other)
        answer = await interpolate(scene, blend((anna, 0.5), (bert, 0.5)))
        assert answer.status == 501
        assert "format" in (answer.error() or {})["message"]
        scene.running.runtime.gateway.voices.library.extend(bert.id, sources(TWO))
        assert (await interpolate(scene, blend((anna, 0.5), (bert, 0.5)))).status == 200


async def test_who_can_blend_any_recordings_is_asked_instead(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **CHATTERBOX, **OPENVOICE) as scene:
        OpenVoice(scene.upstreams["openvoice"])
        anna = keep(scene, "anna", ONE)
        bert = keep(scene, "bert", tone(1.0, rate=22050))
        answer = await interpolate(scene, blend((anna, 0.5), (bert, 0.5)))
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "openvoice")
        assert scene.seen("chatterbox") == []


async def test_a_deployment_that_cannot_blend_says_so(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **PIPER) as scene:
        anna, bert = keep(scene, "anna", ONE), keep(scene, "bert", TWO)
        answer = await interpolate(scene, blend((anna, 0.5), (bert, 0.5)))
        assert answer.status == 501
        assert "interpolation" in (answer.error() or {})["message"]


@pytest.mark.parametrize(
    ("voices", "param"),
    [
        ([], "voices"),
        ([("a", 1.0)], "voices"),
        ([("a", 0.2)] * 6, "voices"),
        ([("a", 0.5), ("a", 0.4)], "voices"),
        ([("a", 0.6), ("a", 0.42)], "voices"),
        ([("a", 0.0), ("a", 1.0)], "voices[0].weight"),
        ([("a", 1.1), ("a", -0.1)], "voices[0].weight"),
        (None, "voices"),
    ],
)
async def test_weights_that_cannot_be_are_refused(
    tmp_path: Path, voices: list[tuple[str, float]] | None, param: str
) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        body: dict[str, Any] = {"text": "One."}
        if voices is not None:
            body["voices"] = [{"voice_id": name, "weight": weight} for name, weight in voices]
        answer = await interpolate(scene, body)
        assert (answer.status, (answer.error() or {})["param"]) == (422, param)


async def test_weights_may_be_rounded(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        OpenVoice(scene.upstreams["openvoice"])
        voices = [keep(scene, name, tone(0.5, seed=n)) for n, name in enumerate("abc", 1)]
        answer = await interpolate(scene, blend(*[(voice, 0.33) for voice in voices]))
        assert answer.status == 200


async def test_blending_with_a_voice_that_is_not_there_is_a_404(tmp_path: Path) -> None:
    async with scene_of(tmp_path, **OPENVOICE) as scene:
        voices = [{"voice_id": "nobody", "weight": 0.5}] * 2
        answer = await interpolate(scene, {"text": "One.", "voices": voices})
        assert answer.status == 404


def test_the_same_voices_in_the_same_ratio_have_one_name(tmp_path: Path) -> None:
    from synapse_gateway.voices.library import Library  # noqa: PLC0415

    library = Library(tmp_path)
    a, b = library.create("a", sources(ONE)), library.create("b", sources(TWO))
    half = Cast([(a, 0.5), (b, 0.5)])
    assert half.file == Cast([(a, 0.5), (b, 0.5)]).file
    assert len({half.file, Cast([(a, 0.4), (b, 0.6)]).file, Cast([(a, 1.0)]).file}) == 3
    assert hashlib.sha256(b"").hexdigest() not in half.file
    assert half.name == "'a' and 'b'"
