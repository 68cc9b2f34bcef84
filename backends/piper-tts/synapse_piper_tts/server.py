"""Routes of the Piper server: OpenAI's speech API and Piper's own."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import Histogram
from pydantic import BaseModel, ConfigDict, Field

from synapse_serving import (
    Admission,
    BadRequest,
    Metrics,
    ModelNotFound,
    Options,
    UnprocessableField,
    create_app,
    event,
    stream_response,
)
from synapse_serving.audio_output import FORMATS, available_formats, encode, stretched
from synapse_serving.streams import from_thread

from .voice import Voice

MODELS = ("piper", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")

# OpenAI's voices. A client must name one, and here there is one voice for all of them; the
# response header x-synapse-voice tells which spoke.
OPENAI_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)


class SpeechRequest(BaseModel):
    """Body of OpenAI's ``POST /v1/audio/speech``, and ``language``, which OpenAI has not."""

    model_config = ConfigDict(extra="ignore")

    model: str = "piper"
    input: Annotated[str, Field(min_length=1)]
    voice: str | dict[str, str] = "default"
    response_format: str = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    language: str | None = None


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
        self._max_characters = max_characters
        self._voice: Voice | None = None
        self.name = name

    async def load(self) -> None:
        """Load the voice and say a word, so that the first caller does not wait for that."""
        self._voice = await asyncio.to_thread(Voice, self._path, self._options.threads)
        await asyncio.to_thread(lambda: list(self.voice.speak("Ready.")))

    @property
    def voice(self) -> Voice:
        """The loaded voice; requests come in only once it is there."""
        assert self._voice is not None  # noqa: S101 - the gate answers 503 before
        return self._voice

    def check_text(self, text: str, field: str) -> str:
        """The text, if it can be spoken."""
        if len(text) > self._max_characters:
            raise BadRequest(
                f"{field}: {len(text)} characters, at most {self._max_characters}", param=field
            )
        if "\0" in text:  # espeak-ng takes C strings
            raise BadRequest(f"{field}: must not hold the character U+0000", param=field)
        if not any(letter.isalnum() for letter in text):
            raise BadRequest(f"{field}: there is nothing to speak in it", param=field)
        return text

    def check_voice(self, voice: str | dict[str, str]) -> None:
        """Refuse a voice that nobody knows."""
        asked = voice.get("id", "") if isinstance(voice, dict) else voice
        if asked not in {self.name, "default", *OPENAI_VOICES}:
            raise BadRequest(
                f"voice: {asked!r} is not known; known: {self.name}, and OpenAI's names for it",
                param="voice",
                code="voice_not_found",
            )

    def languages(self) -> list[dict[str, str]]:
        """What the voice speaks: the code without its region, and the English name."""
        code = self.voice.language.split("-", 1)[0]
        return [{"code": code, "name": self.voice.language_name}]

    def check_language(self, language: str | None) -> None:
        """Refuse a language that the voice does not speak; its code, locale or name is right."""
        if not language:
            return
        (known,) = self.languages()
        asked = language.strip().lower().replace("_", "-")
        if asked.split("-", 1)[0] != known["code"] and asked != known["name"].lower():
            raise UnprocessableField(
                f"language: the voice {self.name} does not speak {language!r}; it speaks "
                f"{known['code']} ({known['name']})",
                param="language",
            )

    def check_speed(self, speed: float) -> float:
        """The speed, if it can be had here."""
        if speed != 1 and len(available_formats()) == 1:
            raise UnprocessableField("speed: only 1.0 can be had here", param="speed")
        return speed

    def check_format(self, name: str) -> str:
        """The format, if it can be made here."""
        known = available_formats()
        if name not in known:
            raise UnprocessableField(
                f"response_format: {name!r} cannot be made here; known: {', '.join(known)}",
                param="response_format",
            )
        return name


async def _as_events(audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """OpenAI's speech events: base64 deltas, then one that says it is done."""
    try:
        async for part in audio:
            text = base64.b64encode(part).decode()
            yield event({"type": "speech.audio.delta", "audio": text})
        yield event({"type": "speech.audio.done", "usage": None})
    finally:
        await audio.aclose()


def _routes(speaker: Speaker, admission: Admission, spoken: Histogram) -> APIRouter:
    router = APIRouter()

    def sentences(text: str, length_scale: float, speed: float) -> Iterator[Any]:
        rate = speaker.voice.rate
        for samples in speaker.voice.speak(text, length_scale):
            said = samples if speed == 1 else stretched(samples, rate, speed)
            spoken.observe(len(said) / rate)
            yield said

    async def respond(said: Iterator[Any], form: str, *, events: bool = False) -> Response:
        async def make() -> AsyncGenerator[bytes, None]:
            encoded = encode(said, speaker.voice.rate, form)
            audio = from_thread(admission, encoded)
            return _as_events(audio) if events else audio

        media_type = "text/event-stream" if events else FORMATS[form].media_type
        headers = {"x-synapse-voice": speaker.name}
        return await stream_response(admission, make, media_type=media_type, headers=headers)

    @router.post("/v1/audio/speech", summary="OpenAI: speech for a text, sent as it is made")
    async def speech(body: SpeechRequest) -> Response:
        if body.model not in {*MODELS, speaker.name}:
            raise ModelNotFound(body.model, [*MODELS, speaker.name])
        speaker.check_voice(body.voice)
        speaker.check_language(body.language)
        form = speaker.check_format(body.response_format)
        text = speaker.check_text(body.input, "input")
        said = sentences(text, 1.0, speaker.check_speed(body.speed))
        return await respond(said, form, events=body.stream_format == "sse")

    @router.post("/synthesize", summary="Piper: a WAV file for a text")
    async def synthesize(body: SynthesizeRequest) -> Response:
        text = speaker.check_text(body.text, "text")
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
        return speaker.languages()

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
