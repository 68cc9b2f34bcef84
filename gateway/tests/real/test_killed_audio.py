"""SIGKILL of real Piper and Whisper in the middle of speech and of a transcription.

Each has a twin that is asked second, so that what the table promises before the caller has heard
anything can be seen as well as what it promises after.
"""

from __future__ import annotations

import asyncio
import io
import json
import wave
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from synapse_gateway.testing import wire
from synapse_gateway.testing.wire import Ending
from synapse_gateway.up.plan import EMBEDDED
from tests.real.stack import scrape, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.stack import Process, Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

SENTENCE = "The river runs slowly through the wide green valley to the sea."
TEXT = " ".join([SENTENCE] * 40)
PATIENT = {"first_token": 240.0, "first_byte": 240.0, "between_tokens": 240.0, "overall": 480.0}
WINDOW = 30
"""Seconds that Whisper listens to at a time; it works on them for a while."""
SPOKEN = {
    "/tts/stream": {"text": TEXT, "split_sentences": False},
    "/v1/audio/speech": {
        "model": "piper",
        "voice": "alloy",
        "input": TEXT,
        "response_format": "wav",
    },
}
"""The whole text in one request to the server, by route."""


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "TIMEOUT", 480.0)
        yield


@pytest.fixture(scope="module")
def twins(stack: Stack) -> dict[str, Process]:
    """A server that is tried first and may be killed, for each kind."""
    made = {}
    for server in EMBEDDED:
        if server.name in ("piper", "whisper"):
            made[server.name] = stack.twin(server)
    for process in made.values():
        process.wait_ready("/health")
    return made


@pytest.fixture
def gateway(stack: Stack, twins: dict[str, Process]) -> Iterator[Process]:
    """A gateway whose models have the one that is killed first, and the other second."""
    backends: dict[str, Any] = {}
    models: dict[str, Any] = {}
    for name, kind in (("piper", "piper"), ("whisper", "faster-whisper")):
        both = {f"{name}-first": twins[name].url, name: stack.backends[name].url}
        backends |= {
            each: {"url": url, "type": kind, "device": "cpu", "probe_interval": 3600.0}
            for each, url in both.items()
        }
        models[name] = {
            "targets": [
                {"backend": each, "model": name, "order": order}
                for order, each in enumerate(both, start=1)
            ],
            "timeouts": PATIENT,
        }
    routes = {
        "/tts/*": {"model": "piper", "timeouts": PATIENT},
        "/stt/*": {"model": "whisper", "timeouts": PATIENT},
    }
    made = stack.gateway(
        {"auth": "anonymous", "backends": backends, "models": models, "routes": routes}
    )
    yield made
    made.stop()
    for process in twins.values():
        if not process.alive:
            process.start_again()
            process.wait_ready("/health")


@pytest.fixture(scope="module")
def sentence(stack: Stack) -> bytes:
    """A WAV file of a sentence."""
    one = httpx.post(
        f"{stack.backends['piper'].url}/v1/audio/speech",
        json={"input": SENTENCE, "response_format": "wav"},
        timeout=120,
    )
    assert one.status_code == 200
    return one.content


def repeated(sentence: bytes, seconds: int) -> bytes:
    """Return a WAV file of the same sentence again and again."""
    with wave.open(io.BytesIO(sentence)) as file:
        rate, samples = file.getframerate(), file.readframes(file.getnframes())
    made = io.BytesIO()
    with wave.open(made, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        whole = 2 * rate * seconds
        file.writeframes((samples * (whole // len(samples) + 1))[:whole])
    return made.getvalue()


def form(recording: bytes, **fields: str) -> tuple[bytes, dict[str, str]]:
    request = httpx.Request(
        "POST", "http://x", files={"file": ("a.wav", recording, "audio/wav")}, data=fields
    )
    return request.read(), {"content-type": request.headers["content-type"]}


def works(process: Process) -> bool | None:
    """Say whether a server is at work on a request; None where it is not."""
    return scrape(process.url).value("synapse_backend_requests_in_flight") > 0 or None


@pytest.mark.parametrize("path", SPOKEN)
async def test_speech_that_was_heard_is_broken_off(
    gateway: Process, twins: dict[str, Process], path: str
) -> None:
    async with wire.open_stream(gateway.url, path, SPOKEN[path]) as stream:
        assert stream.answer.status == 200, await stream.read_rest()
        assert await stream.next_chunk()
        twins["piper"].kill()
        answer = await stream.read_rest()
    assert (answer.status, answer.ending) == (200, Ending.CUT)
    assert answer.header("x-synapse-backend") == "piper-first"
    assert scrape(gateway.url).value("synapse_cut_streams_total", backend="piper-first") == 1


async def test_the_openai_client_raises(gateway: Process, twins: dict[str, Process]) -> None:
    def listen() -> None:
        with (
            openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="x", max_retries=0) as client,
            client.audio.speech.with_streaming_response.create(
                model="piper", voice="alloy", input=TEXT, response_format="wav"
            ) as answer,
        ):
            for _ in answer.iter_bytes(4096):
                if twins["piper"].alive:
                    twins["piper"].kill()

    with pytest.raises(Exception, match=r"(?i)connection"):
        await asyncio.to_thread(listen)


async def test_speech_that_nobody_heard_is_spoken_by_the_twin(
    gateway: Process, twins: dict[str, Process]
) -> None:
    first = twins["piper"]

    def sentences() -> float:
        return scrape(first.url).value("synapse_backend_spoken_seconds_count")

    before = sentences()
    asked = asyncio.create_task(wire.post(gateway.url, "/tts/synthesize", {"text": TEXT}))
    await asyncio.to_thread(until, lambda: sentences() >= before + 2 or None, "nothing is spoken")
    first.kill()
    answer = await asked
    assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
    with wave.open(io.BytesIO(answer.body)) as file:
        assert file.getnframes() / file.getframerate() > 40 * 2
    metrics = scrape(gateway.url)
    assert metrics.value("synapse_attempts_total", backend="piper", outcome="ok") >= 1
    assert metrics.value("synapse_cut_streams_total") == 0


async def test_a_transcription_is_made_by_the_twin(
    gateway: Process, twins: dict[str, Process], sentence: bytes
) -> None:
    body, headers = form(repeated(sentence, WINDOW))
    path = "/stt/transcribe"
    asked = asyncio.create_task(
        wire.exchange(gateway.url, "POST", path, body=body, headers=headers)
    )
    first = twins["whisper"]
    await asyncio.to_thread(until, lambda: works(first), "nothing to do")
    first.kill()
    answer = await asked
    assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
    assert answer.header("x-synapse-backend") == "whisper"
    assert answer.header("x-synapse-fallback") == "reset"
    assert "river" in answer.json()["text"]
    assert answer.json()["duration"] == pytest.approx(WINDOW, abs=0.1)


async def test_a_streamed_transcription_ends_with_an_error(
    gateway: Process, twins: dict[str, Process], sentence: bytes
) -> None:
    body, headers = form(repeated(sentence, 2 * WINDOW))
    path = "/stt/stream"
    async with wire.send(gateway.url, "POST", path, body=body, headers=headers) as stream:
        assert b"river" in (await stream.next_chunk() or b"")
        twins["whisper"].kill()
        answer = await stream.read_rest()
    assert answer.status == 200
    assert b"event: done" not in answer.body
    assert b"event: error" in answer.body
    assert json.loads(answer.events()[-1])["error"]["code"] == "stream_cut"


async def test_with_nobody_left_it_is_a_503(
    gateway: Process, twins: dict[str, Process], sentence: bytes, stack: Stack
) -> None:
    body, headers = form(repeated(sentence, WINDOW))
    alone = stack.gateway(
        {
            "auth": "anonymous",
            "backends": {
                "whisper": {
                    "url": twins["whisper"].url,
                    "type": "faster-whisper",
                    "timeouts": PATIENT,
                }
            },
            "limits": {"queue": {"deadline": 1.0}},
        }
    )
    asked = asyncio.create_task(
        wire.exchange(alone.url, "POST", "/stt/transcribe", body=body, headers=headers)
    )
    first = twins["whisper"]
    await asyncio.to_thread(until, lambda: works(first), "nothing to do")
    first.kill()
    answer = await asked
    alone.stop()
    assert answer.status == 503
    assert answer.header("retry-after")
    assert answer.error()
    del gateway  # it starts the killed one again
