"""Routes of the Whisper server: OpenAI's transcription API and its own."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, FastAPI, File, Form, Response, UploadFile
from fastapi import Request as Caller
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import Histogram

from synapse_serving import (
    Admission,
    Audio,
    AudioLimits,
    BadRequest,
    Metrics,
    ModelNotFound,
    NotImplementedByModel,
    Options,
    UnprocessableField,
    create_app,
    decode_upload,
    event,
    stay,
    stream_response,
)
from synapse_serving.streams import from_thread

from . import formats
from .languages import LANGUAGES, english_name, language_code
from .recognizer import RATE, Recognizer, Request, Speech

MODELS = ("whisper", "whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")

ResponseFormat = Literal["json", "text", "srt", "vtt", "verbose_json"]
Upload = Annotated[UploadFile, File(description="The audio file")]


@dataclass(frozen=True, slots=True)
class Settings:
    """The model and what a request may take.

    Attributes:
        path: Directory of the model.
        name: What callers call it, besides OpenAI's names.
        beam: Beam width.
        vad: Whether stretches without speech are skipped.
        limits: Bounds on decoding an upload.
    """

    path: Path
    name: str
    beam: int
    vad: bool
    limits: AudioLimits


class Transcriber:
    """The model, and its work under the server's limits."""

    def __init__(self, settings: Settings, options: Options, metrics: Metrics) -> None:
        self.settings = settings
        self.admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
        self._options = options
        self._recognizer: Recognizer | None = None
        self._heard = Histogram(
            "synapse_backend_heard_seconds",
            "Seconds of audio in an upload.",
            buckets=(1, 3, 10, 30, 60, 180, 600, 1800),
            registry=metrics.registry,
        )

    async def load(self) -> None:
        """Load the model and run it once, so that the first caller does not wait for that."""
        settings = self.settings

        def work() -> Recognizer:
            made = Recognizer(settings.path, self._options.threads, settings.beam, vad=settings.vad)
            list(made.transcribe(np.zeros(RATE, np.float32), Request(language="en"))[1])
            return made

        self._recognizer = await asyncio.to_thread(work)

    @property
    def recognizer(self) -> Recognizer:
        """The loaded model; requests come in only once it is there."""
        assert self._recognizer is not None  # noqa: S101 - the gate answers 503 before
        return self._recognizer

    async def decode(self, upload: UploadFile) -> Audio:
        """The upload's samples, decoded in a child process."""
        audio = await decode_upload(upload, rate=RATE, limits=self.settings.limits)
        self._heard.observe(audio.seconds)
        return audio

    @asynccontextmanager
    async def begin(
        self, audio: Audio, request: Request
    ) -> AsyncIterator[tuple[Speech, AsyncGenerator[Any, None]]]:
        """What is known of the speech, and its segments as they are decoded; needs a slot."""
        speech, segments = await self.admission.in_thread(
            self.recognizer.transcribe, audio.samples, request
        )
        items = from_thread(self.admission, segments)
        try:
            yield speech, items
        finally:
            await items.aclose()

    async def transcribe(
        self, caller: Caller, upload: UploadFile, request: Request
    ) -> tuple[Speech, list[Any], float]:
        """Speech, every segment, and the duration in seconds; waits for a slot.

        Raises:
            CallerLeft: The connection closed; what is not decoded yet is not decoded.
        """
        found: list[Any] = []
        async with self.admission.slot():
            await stay(caller)
            audio = await self.decode(upload)
            async with self.begin(audio, request) as (speech, segments):
                async for segment in segments:
                    found.append(segment)
                    await stay(caller)
        return speech, found, audio.seconds

    def check_model(self, model: str) -> None:
        """Refuse a model that is not served here."""
        known = [*MODELS, self.settings.name]
        if model not in known:
            raise ModelNotFound(model, known)

    def check_language(self, language: str | None) -> str | None:
        """The code of the language asked for; an English-only model needs none."""
        if not language:
            return None if self.recognizer.multilingual else "en"
        code = language_code(language)
        if code is None:
            raise UnprocessableField(
                f"language: {language!r} is not known; known: {', '.join(LANGUAGES)}",
                param="language",
            )
        if code != "en" and not self.recognizer.multilingual:
            raise NotImplementedByModel(
                f"language: the model {self.settings.name} knows English only", param="language"
            )
        return code


def _wanted(granularities: list[str], response_format: str) -> frozenset[str]:
    wanted = frozenset(granularities)
    if unknown := wanted - {"word", "segment"}:
        raise BadRequest(
            f"timestamp_granularities: {min(unknown)!r} is not one of word, segment",
            param="timestamp_granularities",
        )
    if wanted and response_format != "verbose_json":
        raise BadRequest(
            "timestamp_granularities: needs response_format verbose_json",
            param="timestamp_granularities",
        )
    return wanted or frozenset({"segment"})


async def _openai_stream(
    transcriber: Transcriber, upload: UploadFile, request: Request
) -> Response:
    """OpenAI's transcript events, a delta a segment."""

    async def make() -> AsyncGenerator[bytes, None]:
        return events(await transcriber.decode(upload))

    async def events(audio: Audio) -> AsyncGenerator[bytes, None]:
        text = ""
        async with transcriber.begin(audio, request) as (_, segments):
            async for segment in segments:
                delta = segment.text if text else segment.text.lstrip()
                text += delta
                yield event({"type": "transcript.text.delta", "delta": delta})
        yield event({"type": "transcript.text.done", "text": text.strip()})

    return await stream_response(transcriber.admission, make, media_type="text/event-stream")


async def _own_stream(transcriber: Transcriber, upload: UploadFile, request: Request) -> Response:
    """One unnamed event a segment, then an event named ``done``."""

    async def make() -> AsyncGenerator[bytes, None]:
        return events(await transcriber.decode(upload))

    async def events(audio: Audio) -> AsyncGenerator[bytes, None]:
        number = 0
        async with transcriber.begin(audio, request) as (speech, segments):
            async for segment in segments:
                yield event(formats.own_segment(number, segment, words=request.words))
                number += 1
        summary = {
            "segments": number,
            "language": speech.language,
            "duration": round(audio.seconds, 3),
        }
        yield event(summary, "done")

    return await stream_response(transcriber.admission, make, media_type="text/event-stream")


def _openai_routes(transcriber: Transcriber) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/audio/transcriptions", summary="OpenAI: the text of a recording")
    async def transcriptions(  # noqa: PLR0913 - the fields of OpenAI's form
        *,
        caller: Caller,
        file: Upload,
        model: Annotated[str, Form()] = "whisper",
        language: Annotated[str | None, Form()] = None,
        prompt: Annotated[str | None, Form(max_length=4000)] = None,
        response_format: Annotated[ResponseFormat, Form()] = "json",
        temperature: Annotated[float | None, Form(ge=0, le=1)] = None,
        granularities: Annotated[list[str], Form(alias="timestamp_granularities[]")] = [],  # noqa: B006 - FastAPI copies it
        stream: Annotated[bool, Form()] = False,
    ) -> Response:
        transcriber.check_model(model)
        code = transcriber.check_language(language)
        wanted = _wanted(granularities, response_format)
        request = Request(code, prompt, temperature, words="word" in wanted)
        if stream:
            return await _openai_stream(transcriber, file, request)
        speech, segments, seconds = await transcriber.transcribe(caller, file, request)
        return _rendered(response_format, segments, speech.language, seconds, wanted)

    @router.post("/v1/audio/translations", summary="OpenAI: a recording's text in English")
    async def translations(
        *,
        caller: Caller,
        file: Upload,
        model: Annotated[str, Form()] = "whisper",
        prompt: Annotated[str | None, Form(max_length=4000)] = None,
        response_format: Annotated[ResponseFormat, Form()] = "json",
        temperature: Annotated[float | None, Form(ge=0, le=1)] = None,
    ) -> Response:
        transcriber.check_model(model)
        if not transcriber.recognizer.multilingual:
            raise NotImplementedByModel(
                f"the model {transcriber.settings.name} transcribes English and translates nothing"
            )
        request = Request(None, prompt, temperature, translate=True)
        _, segments, seconds = await transcriber.transcribe(caller, file, request)
        only_segments = frozenset({"segment"})
        return _rendered(response_format, segments, "en", seconds, only_segments, "translate")

    return router


def _rendered(
    response_format: ResponseFormat,
    segments: list[Any],
    language: str,
    seconds: float,
    wanted: frozenset[str],
    task: str = "transcribe",
) -> Response:
    """An answer in one of OpenAI's formats."""
    if response_format == "text":
        return PlainTextResponse(formats.plain_text(segments) + "\n")
    if response_format == "srt":
        return PlainTextResponse(formats.srt(segments), media_type="application/x-subrip")
    if response_format == "vtt":
        return PlainTextResponse(formats.vtt(segments), media_type="text/vtt")
    if response_format == "verbose_json":
        return JSONResponse(formats.verbose(segments, language, seconds, wanted, task))
    return JSONResponse({"text": formats.plain_text(segments)})


def _own_routes(transcriber: Transcriber) -> APIRouter:
    router = APIRouter()

    @router.post("/transcribe", summary="The text of a recording, with times")
    async def transcribe(
        caller: Caller,
        file: Upload,
        language: Annotated[str | None, Form()] = None,
        word_timestamps: Annotated[bool, Form()] = False,
    ) -> Response:
        request = Request(transcriber.check_language(language), words=word_timestamps)
        speech, segments, seconds = await transcriber.transcribe(caller, file, request)
        answer = {
            "text": formats.plain_text(segments),
            "language": speech.language,
            "language_probability": round(speech.probability, 4),
            "duration": round(seconds, 3),
            "segments": [
                formats.own_segment(number, segment, words=word_timestamps)
                for number, segment in enumerate(segments)
            ],
        }
        return JSONResponse(answer)

    @router.post("/stream", summary="A recording's segments, each sent once it is decoded")
    async def stream(
        file: Upload,
        language: Annotated[str | None, Form()] = None,
        word_timestamps: Annotated[bool, Form()] = False,
    ) -> Response:
        request = Request(transcriber.check_language(language), words=word_timestamps)
        return await _own_stream(transcriber, file, request)

    @router.post("/detect-language", summary="The language spoken in a recording")
    async def detect_language(file: Upload) -> Response:
        if not transcriber.recognizer.multilingual:
            raise NotImplementedByModel(
                f"the model {transcriber.settings.name} knows English only and cannot tell others"
            )
        async with transcriber.admission.slot():
            audio = await transcriber.decode(file)
            if not audio.seconds:
                raise BadRequest("file: the file holds no sound", param="file")
            language, probability = await transcriber.admission.in_thread(
                transcriber.recognizer.detect_language, audio.samples
            )
        answer = {
            "detected_language": language,
            "probability": round(probability, 4),
            "all_languages": [{"code": code, "name": english_name(code)} for code in LANGUAGES],
        }
        return JSONResponse(answer)

    return router


def make_app(settings: Settings, options: Options) -> FastAPI:
    """The Whisper server for one model."""
    metrics = Metrics()
    transcriber = Transcriber(settings, options, metrics)
    router = APIRouter()
    router.include_router(_openai_routes(transcriber))
    router.include_router(_own_routes(transcriber))
    return create_app(
        title="Whisper speech to text",
        options=options,
        metrics=metrics,
        admission=transcriber.admission,
        load=transcriber.load,
        router=router,
        models=(*MODELS, settings.name),
    )
