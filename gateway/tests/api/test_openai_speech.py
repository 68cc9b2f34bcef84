"""/v1/audio/speech with voices of the library and in front of every kind of speech backend."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.config.settings import BackendType, Model, Target, Voices
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Close, Send
from synapse_gateway.testing.wire import Ending
from tests.api.audio_support import Received, sound, studio
from tests.api.cloners import Chatterbox, OpenVoice, error
from tests.voices.support import sources, tone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Step
    from synapse_gateway.testing.wire import Answer
    from synapse_gateway.voices.library import Voice
    from tests.api.audio_support import Studio

ONE = tone(1.0, seed=1)
KINDS = {
    "chatterbox": BackendType.CHATTERBOX,
    "openvoice": BackendType.OPENVOICE,
    "piper": BackendType.PIPER,
    "deepfilter": BackendType.DEEPFILTER,
    "speaches": BackendType.OPENAI_COMPATIBLE,
}
MEDIA = {"mp3": "audio/mpeg", "opus": "audio/ogg", "flac": "audio/flac", "pcm": "audio/pcm"}
FLAC = b"fLaC" + bytes(3000)


@asynccontextmanager
async def scene_of(tmp_path: Path, *names: str, **more: Any) -> AsyncIterator[Studio]:
    """Run a gateway with the model `tts-1` in front of servers, in the order of their names."""
    speakers = [name for name in names if name != "deepfilter"]
    models = {
        "tts-1": Model(
            targets=tuple(Target(backend=name, order=n) for n, name in enumerate(speakers, 1))
        )
    }
    settings = {"models": models, **more.pop("settings", {})}
    kinds: dict[str, Any] = {name: KINDS[name] for name in names}
    async with studio(voices=tmp_path / "voices", settings=settings, **more, **kinds) as scene:
        if "openvoice" in names:
            OpenVoice(scene.upstreams["openvoice"])
        if "chatterbox" in names:
            Chatterbox(scene.upstreams["chatterbox"])
        for name in {"piper", "speaches"}.intersection(names):
            scene.upstreams[name].script = plain
        if "deepfilter" in names:
            scene.upstreams["deepfilter"].script = convert
        yield scene


def plain(request: Request) -> Iterable[Step]:
    """Speak any voice in any format."""
    made = request.json().get("response_format", "mp3")
    kind = {"content-type": MEDIA.get(made, f"audio/{made}")}
    yield Send(scripts.sized(200, sound(5), kind))


def convert(request: Request) -> Iterable[Step]:
    assert request.path == "/convert"
    form = Received(request)
    assert form.fields == [("output_format", "flac")]
    yield Send(scripts.sized(200, FLAC, {"content-type": "audio/flac"}))


def keep(scene: Studio, name: str) -> Voice:
    voice = scene.running.runtime.gateway.voices.library.create(name, sources(ONE))
    scene.running.runtime.gateway.voices.forget()
    return voice


async def speak(scene: Studio, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
    body = {"model": "tts-1", "input": "Hello.", "voice": "alloy", **fields}
    return await wire.post(scene.url, "/v1/audio/speech", body, headers=headers or {})


# -- voices of the library


@pytest.mark.parametrize("by", ["id", "name", "object"])
async def test_a_voice_of_the_library_is_named_by_its_id_or_its_name(
    tmp_path: Path, by: str
) -> None:
    async with scene_of(tmp_path, "openvoice") as scene:
        voice = keep(scene, "anna")
        named = {"id": voice.id, "name": "anna", "object": {"id": voice.id}}[by]
        answer = await speak(scene, voice=named, response_format="wav", speed=1.5)
        assert (answer.status, answer.body) == (200, sound(6))
        assert answer.header("x-synapse-voice") == voice.id
        assert scene.seen("openvoice")[-1].json() == {
            "model": "tts-1",
            "input": "Hello.",
            "voice": voice.digest,
            "response_format": "wav",
            "speed": 1.5,
        }


@pytest.mark.parametrize("made", ["wav", "mp3", "opus"])
async def test_chatterbox_speaks_in_it_in_the_formats_that_it_makes(
    tmp_path: Path, made: str
) -> None:
    async with scene_of(tmp_path, "chatterbox") as scene:
        voice = keep(scene, "anna")
        answer = await speak(scene, voice="anna", response_format=made, speed=1.5)
        assert (answer.status, answer.body) == (200, sound(6))
        assert answer.header("x-synapse-voice") == voice.id
        asked = scene.seen("chatterbox")[-1].json()
        assert asked.pop("reference_audio_filename").startswith("synapse-")
        assert asked == {
            "text": "Hello.",
            "voice_mode": "clone",
            "output_format": made,
            "split_text": True,
            "speed_factor": 1.5,
            "language": "en",
        }


async def test_mp3_is_what_no_format_means(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox") as scene:
        keep(scene, "anna")
        assert (await speak(scene, voice="anna")).status == 200
        assert scene.seen("chatterbox")[-1].json()["output_format"] == "mp3"


async def test_pcm_is_the_samples_alone(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox") as scene:
        keep(scene, "anna")
        answer = await speak(scene, voice="anna", response_format="pcm")
        assert (answer.status, answer.body) == (200, sound(6)[44:])
        assert answer.header("content-type") == "audio/pcm"


async def test_a_model_that_cannot_clone_leaves_it_to_those_who_can(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "piper") as scene:
        keep(scene, "anna")
        answer = await speak(scene, voice="anna")
        assert answer.status == 501
        assert "cloning" in (answer.error() or {})["message"]
        allowed = await speak(scene, {"x-synapse-allow-fallback": "1"}, voice="anna")
        assert (allowed.status, allowed.header("x-synapse-backend")) == (200, "piper")
        assert scene.seen("piper")[-1].json()["voice"] == "default"


async def test_a_model_of_another_kind_of_voice_is_no_hindrance(tmp_path: Path) -> None:
    models = {"tts-1": Model(targets=(Target(backend="speaches"),))}
    async with studio(
        voices=tmp_path / "voices",
        settings={"models": models},
        speaches=BackendType.OPENAI_COMPATIBLE,
        openvoice=BackendType.OPENVOICE,
    ) as scene:
        OpenVoice(scene.upstreams["openvoice"])
        voice = keep(scene, "anna")
        answer = await speak(scene, voice="anna")
        assert (answer.status, answer.header("x-synapse-voice")) == (200, voice.id)
        assert scene.seen("speaches") == []


async def test_a_voice_that_cannot_be_had_is_replaced_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    for configured in (False, True):
        settings = {"voices": Voices(allow_standard=configured)}
        async with scene_of(
            tmp_path / str(configured), "openvoice", "piper", "speaches", settings=settings
        ) as scene:
            keep(scene, "anna")
            await scene.upstreams["openvoice"].refuse(drop=True)
            answer = await speak(scene, voice="anna")
            if not configured:
                assert answer.status == 503
                assert scene.seen("piper") == []
                continue
            assert (answer.status, answer.header("x-synapse-backend")) == (200, "piper")
            assert answer.header("x-synapse-fallback") == "refused"
            await scene.upstreams["piper"].refuse(drop=True)
            answer = await speak(scene, voice="anna")
            assert (answer.status, answer.header("x-synapse-backend")) == (200, "speaches")
            assert scene.seen("speaches")[-1].json() == {
                "model": "tts-1",
                "input": "Hello.",
                "voice": "alloy",
            }


async def test_a_voice_that_nobody_keeps_is_the_backends_to_know(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "piper") as scene:
        for voice in ("alloy", "joe", 7, None, {"id": "joe"}, {"name": "joe"}, ["joe"]):
            assert (await speak(scene, voice=voice)).status == 200
            assert scene.seen("piper")[-1].json() == {
                "model": "tts-1",
                "input": "Hello.",
                "voice": voice,
            }


# -- every format


@pytest.mark.parametrize("made", ["mp3", "opus", "aac", "flac", "wav", "pcm"])
@pytest.mark.parametrize("backend", ["openvoice", "piper", "speaches"])
async def test_a_format_that_a_backend_makes_passes_through(
    tmp_path: Path, backend: str, made: str
) -> None:
    async with scene_of(tmp_path, backend, "deepfilter") as scene:
        scene.upstreams[backend].script = plain
        answer = await speak(scene, response_format=made)
        assert (answer.status, answer.body) == (200, sound(5))
        assert answer.header("content-type") == MEDIA.get(made, f"audio/{made}")
        assert scene.seen(backend)[-1].json()["response_format"] == made
        assert scene.seen("deepfilter") == []


async def test_flac_of_a_chatterbox_is_made_by_the_converter(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        voice = keep(scene, "anna")
        answer = await speak(scene, voice="anna", response_format="flac")
        assert (answer.status, answer.body) == (200, FLAC)
        assert answer.header("content-type") == "audio/flac"
        assert answer.header("x-synapse-voice") == voice.id
        assert scene.seen("chatterbox")[-1].json()["output_format"] == "wav"
        [(name, sent)] = Received(scene.seen("deepfilter")[-1]).files
        assert (name, sent) == ("file", sound(6))
        await scene.until_idle()


async def test_the_next_target_makes_what_the_converter_turns_into_flac(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "piper", "deepfilter") as scene:
        await scene.upstreams["chatterbox"].refuse(drop=True)
        answer = await speak(scene, response_format="flac")
        assert (answer.status, answer.body) == (200, FLAC)
        assert scene.seen("piper")[-1].json()["response_format"] == "wav"


async def test_without_a_converter_flac_is_left_to_those_who_make_it(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "piper") as scene:
        answer = await speak(scene, response_format="flac")
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "piper")
        assert scene.seen("chatterbox") == []


@pytest.mark.parametrize("fields", [{"response_format": "aac"}, {"stream_format": "sse"}])
async def test_what_a_chatterbox_cannot_make_is_said(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        answer = await speak(scene, **fields)
        found = answer.error() or {}
        assert (answer.status, found["param"]) == (501, "response_format")
        assert scene.seen("chatterbox") == []


async def test_what_is_spoken_for_the_converter_must_be_whole(tmp_path: Path) -> None:
    cut = scripts.raw(
        b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"%x\r\n%b\r\n" % (len(sound(6)), sound(6)),
        then=Close(),
    )
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        scene.upstreams["chatterbox"].script = cut
        assert (await speak(scene, response_format="flac")).status == 502
        assert scene.seen("deepfilter") == []
        await scene.until_idle()


async def test_a_refused_text_is_not_converted(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        detail = {"detail": [{"loc": ["body", "text"], "msg": "Field too short"}]}
        scene.upstreams["chatterbox"].script = lambda _: [
            Send(scripts.sized(422, json.dumps(detail).encode()))
        ]
        answer = await speak(scene, response_format="flac")
        assert (answer.status, (answer.error() or {})["param"]) == (422, "input")
        assert scene.seen("deepfilter") == []


async def test_a_converter_that_fails_is_no_success(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        scene.upstreams["deepfilter"].script = scripts.status(500)
        answer = await speak(scene, response_format="flac")
        assert (answer.status, answer.error() is not None) == (502, True)
        await scene.until_idle()


async def test_flac_that_is_cut_is_cut(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "chatterbox", "deepfilter") as scene:
        scene.upstreams["deepfilter"].script = scripts.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: audio/flac\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"%x\r\n%b\r\n" % (len(FLAC), FLAC),
            then=Close(),
        )
        answer = await speak(scene, response_format="flac")
        assert (answer.status, answer.ending) == (200, Ending.CUT)
        await scene.until_idle()


# -- no false success


@pytest.mark.parametrize("made", ["mp3", "wav", "pcm"])
async def test_a_head_without_sound_is_no_answer(tmp_path: Path, made: str) -> None:
    async with scene_of(tmp_path, "piper", "speaches") as scene:
        kind = MEDIA.get(made, f"audio/{made}").encode()
        scene.upstreams["piper"].script = scripts.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\ntransfer-encoding: chunked\r\n\r\n"
            b"2c\r\n" + sound(5)[:44] + b"\r\n",
            then=Close(),
        )
        answer = await speak(scene, response_format=made)
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "speaches")


async def test_an_answer_that_is_no_sound_is_another_targets_to_give(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "piper", "speaches") as scene:
        page = {"content-type": "text/html"}
        scene.upstreams["piper"].script = lambda _: [
            Send(scripts.sized(200, b"<h1>Welcome</h1>" * 200, page))
        ]
        answer = await speak(scene)
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "speaches")


async def test_a_voice_of_the_library_is_refused_with_the_backends_words(tmp_path: Path) -> None:
    async with scene_of(tmp_path, "openvoice") as scene:
        keep(scene, "anna")
        server = scene.upstreams["openvoice"].script

        def picky(request: Request) -> Iterable[Step]:
            if request.method == "PUT":
                yield Send(error(422, "files: too quiet"))
            else:
                yield from server(request)

        scene.upstreams["openvoice"].script = picky
        answer = await speak(scene, voice="anna")
        assert answer.status == 422
        assert "too quiet" in (answer.error() or {})["message"]
