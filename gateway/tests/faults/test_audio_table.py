"""The failover table for recordings and speech: a test a row and a way of asking.

What is sent once must reach the second target whole, and what is heard is one target's sound, or a
body that ends too early for the HTTP library of whoever listens.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import openai
import pytest

from synapse_gateway.config.settings import BackendType
from synapse_gateway.testing import answers, scripts, wire
from synapse_gateway.testing.blackhole import Blackhole
from synapse_gateway.testing.scripts import LAST_CHUNK, Close, Reset, Send, Stall, chunk, head
from synapse_gateway.testing.wire import Ending
from tests.api.audio_support import KIND, Received, form
from tests.faults.support import LONG, SHORT, SHORT_BETWEEN, pair

if TYPE_CHECKING:
    from collections.abc import Iterable

    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Script, Step
    from synapse_gateway.testing.wire import Answer
    from tests.faults.support import Pair

WAV = answers.wav(5)
TEXT = "Hello there."
SAMPLES = answers.wav()[44:]


class Way(NamedTuple):
    """A way of asking, and in whose words the targets are asked."""

    path: str
    kind: BackendType
    target_path: str
    upload: bool = True

    def pair(self, **more: Any) -> Any:
        """Run a gateway that serves it by two targets."""
        return pair(kind=self.kind, path=self.path, **more)

    async def ask(self, both: Pair) -> Answer:
        if self.upload:
            body = form(file=WAV, model="m")
            kind = {"content-type": KIND}
            return await wire.exchange(both.url, "POST", self.path, body=body, headers=kind)
        field = "input" if self.path == "/v1/audio/speech" else "text"
        asked = {field: TEXT, "model": "m", "voice": "x", "response_format": "wav"}
        return await wire.post(both.url, self.path, asked)

    def assert_asked(self, request: Request) -> None:
        """Check that a target got everything."""
        assert request.path == self.target_path
        if self.upload:
            assert Received(request).files == [("file", WAV)]
        else:
            assert request.json()["input"] == TEXT

    def assert_right(self, answer: Answer) -> None:
        """Check that an answer is whole, and one target's."""
        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        if self.path == "/stt/transcribe":
            assert answer.json()["text"] == "alpha beta gamma"
        elif self.path == "/stt/stream":
            *segments, done = answer.events()
            assert [json.loads(each)["text"] for each in segments] == ["alpha", "beta", "gamma"]
            assert json.loads(done)["segments"] == 3
        else:
            assert answer.body[:4] == b"RIFF"
            assert answer.body[44:] == SAMPLES


WAYS = {
    "upload": Way("/stt/transcribe", BackendType.FASTER_WHISPER, "/transcribe"),
    "upload-stream": Way("/stt/stream", BackendType.FASTER_WHISPER, "/stream"),
    "upload-sound": Way("/audio/denoise", BackendType.DEEPFILTER, "/denoise"),
    "speech-stream": Way("/tts/stream", BackendType.PIPER, "/v1/audio/speech", upload=False),
    "speech-openai": Way("/v1/audio/speech", BackendType.PIPER, "/v1/audio/speech", upload=False),
}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def nothing(request: Request) -> Iterable[Step]:
    """Answer 200 in the right type with a body that ends at once."""
    if request.stream:
        yield from scripts.empty()(request)
    else:
        kind, _ = answers.whole(request.path, "m")
        yield Send(scripts.sized(200, b"", {"content-type": kind}))


class Row(NamedTuple):
    """A way to fail before the caller has anything."""

    script: Script
    outcome: str
    status: int = 502
    """What the caller gets when the second target fails in the same way."""


ROWS = {
    "reset": Row(scripts.reset(), "reset", 503),
    "closed": Row(scripts.close(), "reset", 503),
    "no-answer": Row(scripts.stall(), "first_token_timeout", 504),
    **{
        str(status): Row(scripts.status(status), "server_error")
        for status in (500, 502, 503, 504, 507, 529)
    },
    "429": Row(scripts.throttled(), "throttled", 503),
    "429-seconds": Row(scripts.throttled(7), "throttled", 503),
    "404": Row(scripts.status(404), "misrouted", 404),
    "401": Row(scripts.status(401), "credentials"),
    "403": Row(scripts.status(403), "credentials"),
    "501": Row(scripts.status(501), "not_supported", 501),
    "head-then-nothing": Row(scripts.head_only(), "first_token_timeout", 504),
    "head-then-closed": Row(scripts.head_only(then=Close()), "empty"),
    "head-then-reset": Row(scripts.head_only(then=Reset()), "empty"),
    "empty": Row(nothing, "empty"),
    "chunk-size": Row(scripts.bad_chunk_size(), "malformed"),
    "not-http": Row(scripts.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", then=Stall()), "malformed"),
}


@EACH_WAY
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_the_second_target_serves_unseen(row: Row, way: Way) -> None:
    patience = SHORT if row.outcome == "first_token_timeout" else LONG
    async with way.pair(patience=patience) as both:
        both.first.queue(row.script)

        answer = await way.ask(both)

        way.assert_right(answer)
        assert answer.header("x-synapse-backend") == "second"
        assert answer.header("x-synapse-fallback") == row.outcome
        assert answer.header("x-synapse-attempts") == "2"
        for target in (both.first, both.second):
            [seen] = target.requests
            way.assert_asked(seen)
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", backend="first", outcome=row.outcome) == 1
        assert metrics.value("synapse_attempts_total", backend="second", outcome="ok") == 1
        assert metrics.value("synapse_cut_streams_total") == 0


@EACH_WAY
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
async def test_when_both_fail_the_caller_is_told_once(row: Row, way: Way) -> None:
    patience = SHORT if row.outcome == "first_token_timeout" else LONG
    async with way.pair(patience=patience, second_patience=patience) as both:
        both.first.queue(row.script)
        both.second.queue(row.script)

        answer = await way.ask(both)

        assert (answer.status, answer.ending) == (row.status, Ending.COMPLETE)
        error = answer.error()
        assert error is not None
        assert set(error) == {"message", "type", "param", "code"}
        assert str(both.first.port) not in answer.body.decode()
        assert (answer.header("retry-after") is not None) == (row.status == 503)
        assert both.seen == (1, 1)


@EACH_WAY
async def test_who_does_not_answer_at_all_is_followed_by_the_second(way: Way) -> None:
    async with way.pair() as both:
        await both.first.refuse(drop=True)
        answer = await way.ask(both)
        way.assert_right(answer)
        assert answer.header("x-synapse-fallback") == "refused"
    with Blackhole() as nowhere:
        async with way.pair(first_url=nowhere.url, patience=SHORT) as both:
            answer = await way.ask(both)
            way.assert_right(answer)
            assert answer.header("x-synapse-fallback") == "connect_timeout"


@EACH_WAY
@pytest.mark.parametrize("status", [400, 413, 415, 422])
async def test_the_callers_own_error_is_his(status: int, way: Way) -> None:
    async with way.pair(failures=1) as both:
        both.first.queue(scripts.status(status))

        answer = await way.ask(both)

        assert (answer.status, answer.ending) == (status, Ending.COMPLETE)
        assert (answer.error() or {})["message"] == f"status {status}"
        assert both.seen == (1, 0), "not asked elsewhere"
        metrics = await both.metrics()
        assert metrics.value("synapse_breaker_state", backend="first") == 0, "nor a failure"


# -- once something is heard


def sounds(then: Step) -> Script:
    """Send a half of the sound that is promised, or that a chunked body holds."""

    def run(request: Request) -> Iterable[Step]:
        framed = {"content-type": "audio/wav", "transfer-encoding": "chunked"}
        yield Send(head(200, framed) + chunk(answers.wav(20)[:40_000]))
        yield then

    return run


def promises(then: Step) -> Script:
    """Send fewer bytes than are promised."""

    def run(request: Request) -> Iterable[Step]:
        whole = answers.wav(20)
        framed = {"content-type": "audio/wav", "content-length": str(len(whole))}
        yield Send(head(200, framed) + whole[:40_000])
        yield then

    return run


BREAKS = {
    "fin": (sounds(Close()), "cut"),
    "rst": (sounds(Reset()), "cut"),
    "fewer-bytes": (promises(Close()), "cut"),
    "fewer-bytes-rst": (promises(Reset()), "cut"),
    "stall": (sounds(Stall()), "stalled"),
}
EARLY = sounds(Send(LAST_CHUNK))
"""A proper end of the body, but not of the file in it."""
HEARD = pytest.mark.parametrize(
    "way", [WAYS["speech-stream"], WAYS["speech-openai"]], ids=["speech-stream", "speech-openai"]
)


@HEARD
@pytest.mark.parametrize(("script", "outcome"), BREAKS.values(), ids=BREAKS)
async def test_speech_that_breaks_off_is_broken_off(script: Script, outcome: str, way: Way) -> None:
    patience = SHORT_BETWEEN if outcome == "stalled" else LONG
    async with way.pair(patience=patience) as both:
        both.first.queue(script)

        answer = await way.ask(both)

        assert (answer.status, answer.ending) == (200, Ending.CUT), "as read from the socket"
        assert answer.body == answers.wav(20)[:40_000] or answer.body[44:] == bytes(39_956)
        assert both.seen == (1, 0), "what was heard is not said again"
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", backend="first", outcome=outcome) == 1
        assert metrics.value("synapse_cut_streams_total", backend="first", reason=outcome) == 1


async def test_a_text_whose_sound_ends_early_is_broken_off() -> None:
    way = WAYS["speech-stream"]
    async with way.pair() as both:
        both.first.queue(EARLY)

        answer = await way.ask(both)

        assert (answer.status, answer.ending) == (200, Ending.CUT)


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "streamed"])
@pytest.mark.parametrize(("script", "outcome"), BREAKS.values(), ids=BREAKS)
async def test_the_openai_client_raises(script: Script, outcome: str, *, whole: bool) -> None:
    patience = SHORT_BETWEEN if outcome == "stalled" else LONG
    async with WAYS["speech-openai"].pair(patience=patience) as both:
        both.first.queue(script)

        def listen() -> None:
            client = openai.OpenAI(base_url=f"{both.url}/v1", api_key="x", max_retries=0)
            with client:
                speech = client.audio.speech
                asked: dict[str, Any] = {"model": "m", "voice": "x", "input": TEXT}
                if whole:
                    speech.create(**asked, response_format="wav")
                    return
                with speech.with_streaming_response.create(
                    **asked, response_format="wav"
                ) as answer:
                    for _ in answer.iter_bytes():
                        pass

        # streamed, it is the error of its HTTP library, which is another in newer versions
        with pytest.raises(Exception, match=r"(?i)connection"):
            await asyncio.to_thread(listen)


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (scripts.broken(2, then=Close()), "cut"),
        (scripts.broken(2, then=Reset()), "cut"),
        (scripts.broken(2, then=Stall()), "stalled"),
        (scripts.malformed_event(2), "malformed_event"),
        (scripts.error_event(2), "error_event"),
    ],
    ids=["fin", "rst", "stall", "malformed", "error"],
)
async def test_a_transcription_that_breaks_off_makes_the_openai_client_raise(
    script: Script, outcome: str
) -> None:
    patience = SHORT_BETWEEN if outcome == "stalled" else LONG
    way = Way("/v1/audio/transcriptions", BackendType.FASTER_WHISPER, "/v1/audio/transcriptions")
    async with way.pair(patience=patience) as both:
        both.first.queue(script)
        heard: list[str] = []

        def listen() -> None:
            with (
                openai.OpenAI(base_url=f"{both.url}/v1", api_key="x", max_retries=0) as client,
                client.audio.transcriptions.create(
                    model="m", file=("a.wav", WAV), stream=True
                ) as stream,
            ):
                heard.extend(event.type for event in stream)

        with pytest.raises(openai.APIError) as caught:
            await asyncio.to_thread(listen)
        assert caught.value.code == f"stream_{outcome}"
        assert "transcript.text.done" not in heard
        assert both.seen == (1, 0)


@EACH_WAY
async def test_leaving_cancels_it_at_the_backend_and_counts_for_nothing(way: Way) -> None:
    async with way.pair(failures=1) as both:
        both.first.queue(scripts.stall())
        asked = asyncio.create_task(way.ask(both))
        await both.first.seen(1)

        asked.cancel()  # closes the connection

        await both.first.requests[0].connection.closed_by_peer.wait()
        await both.until("synapse_client_disconnects_total", 1)
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome="caller_left") == 1
        assert metrics.value("synapse_breaker_state", backend="first") == 0
        assert both.seen == (1, 0)
