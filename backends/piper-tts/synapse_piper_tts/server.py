"""Routes of the Piper server: OpenAI's speech API and Piper's own."""

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import Histogram
from pydantic import BaseModel, ConfigDict, Field

from synapse_serving import (
    Admission,
    BadRequest,
    Metrics,
    ModelNotFound,
    Options,
    create_app,
)
from synapse_serving.audio_output import stretched
from synapse_serving.speech import (
    OPENAI_VOICES,
    Language,
    SpeechRequest,
    check_format,
    check_language,
    check_speed,
    check_text,
    spoken_response,
)

from .voice import Voice

MODELS = ("piper", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")


class SynthesizeRequest(BaseModel):
    """Body of Piper's own ``POST /synthesize``."""

    model_config = ConfigDict(extra="ignore")

    text: Annotated[str, Field(min_length=1)]
    length_scale: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0


class Speaker:
    """The voice and what may be asked of it."""

    def __init__(self, path: Path, name: str, options: Options, max_characters: int) -> None:
        self._path = path
        self._options = options
        self._voice: Voice | None = None
        self.name = name
        self.max_characters = max_characters

    async def load(self) -> None:
        """Load the voice and say a word, so that the first caller does not wait for that."""
        self._voice = await asyncio.to_thread(Voice, self._path, self._options.threads)
        await asyncio.to_thread(lambda: list(self.voice.speak("Ready.")))

    @property
    def voice(self) -> Voice:
        """The loaded voice; requests come in only once it is there."""
        assert self._voice is not None  # noqa: S101 - the gate answers 503 before
        return self._voice

    def check_voice(self, asked: str) -> None:
        """Refuse a voice that nobody knows."""
        if asked not in {self.name, "default", *OPENAI_VOICES}:
            raise BadRequest(
                f"voice: {asked!r} is not known; known: {self.name}, and OpenAI's names for it",
                param="voice",
                code="voice_not_found",
            )

    def languages(self) -> list[Language]:
        """What the voice speaks."""
        return [Language(self.voice.language.split("-", 1)[0], self.voice.language_name)]


def _routes(speaker: Speaker, admission: Admission, spoken: Histogram) -> APIRouter:
    router = APIRouter()

    def sentences(text: str, length_scale: float, speed: float) -> Iterator[Any]:
        rate = speaker.voice.rate
        for samples in speaker.voice.speak(text, length_scale):
            said = samples if speed == 1 else stretched(samples, rate, speed)
            spoken.observe(len(said) / rate)
            yield said

    async def respond(said: Iterator[Any], form: str, *, events: bool = False) -> Response:
        rate = speaker.voice.rate
        return await spoken_response(admission, said, rate, form, voice=speaker.name, events=events)

    @router.post("/v1/audio/speech", summary="OpenAI: speech for a text, sent as it is made")
    async def speech(body: SpeechRequest) -> Response:
        if body.model not in {*MODELS, speaker.name}:
            raise ModelNotFound(body.model, [*MODELS, speaker.name])
        speaker.check_voice(body.voice_name)
        check_language(body.language, speaker.languages(), f"the voice {speaker.name}")
        form = check_format(body.response_format)
        text = check_text(body.input, speaker.max_characters, "input")
        said = sentences(text, 1.0, check_speed(body.speed))
        return await respond(said, form, events=body.stream_format == "sse")

    @router.post("/synthesize", summary="Piper: a WAV file for a text")
    async def synthesize(body: SynthesizeRequest) -> Response:
        text = check_text(body.text, speaker.max_characters, "text")
        return await respond(sentences(text, body.length_scale, 1.0), "wav")

    @router.get("/v1/audio/voices", summary="Voices that can speak")
    async def voices() -> dict[str, Any]:
        voice = {
            "id": speaker.name,
            "name": speaker.name,
            "language": speaker.voice.language,
            "sample_rate": speaker.voice.rate,
        }
        return {"object": "list", "data": [voice]}

    @router.get("/languages", summary="Languages that can be spoken")
    async def languages() -> list[dict[str, str]]:
        return [asdict(language) for language in speaker.languages()]

    return router


def make_app(path: Path, name: str, options: Options, max_characters: int) -> FastAPI:
    """The Piper server for the voice file ``path``, shown to callers as ``name``."""
    metrics = Metrics()
    admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
    spoken = Histogram(
        "synapse_backend_spoken_seconds",
        "Seconds of speech in a sentence.",
        buckets=(0.5, 1, 2, 4, 8, 16, 32, 64),
        registry=metrics.registry,
    )
    speaker = Speaker(path, name, options, max_characters)
    return create_app(
        title="Piper text to speech",
        options=options,
        metrics=metrics,
        admission=admission,
        load=speaker.load,
        router=_routes(speaker, admission, spoken),
        models=(*MODELS, name),
    )
