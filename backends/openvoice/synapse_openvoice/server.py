"""Routes of the cloning server: OpenAI's speech API, and voices made of reference recordings."""

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, FastAPI, File, Response, UploadFile
from fastapi import Request as Caller
from fastapi.responses import JSONResponse
from prometheus_client import Gauge, Histogram
from pydantic import BaseModel, ConfigDict, Field

from synapse_serving import (
    Admission,
    AudioLimits,
    BadRequest,
    Metrics,
    ModelNotFound,
    Options,
    UnprocessableField,
    create_app,
    decoding,
    stay,
)
from synapse_serving.speech import (
    OPENAI_VOICES,
    SpeechRequest,
    check_format,
    check_language,
    check_speed,
    check_text,
    spoken_response,
)

from .cache import Cached, VoiceCache, id_of, is_id
from .engine import BaseVoice, Engine, Samples, Tone

MODELS = ("openvoice", "tts-1", "tts-1-hd", "gpt-4o-mini-tts")
MOST_REFERENCES = 10
LEAST_SECONDS = 0.5
MOST_SECONDS = 60.0
"""Of a recording that are listened to."""
_BLOCK = 1 << 20


class VoiceNotFound(BadRequest):
    """A voice that is not cached, or not any more."""

    status = 404

    def __init__(self, voice: str, param: str = "voice") -> None:
        super().__init__(
            f"{param}: {voice!r} is neither a voice of this server nor cached; PUT /voices/{{id}} "
            "with its recordings first",
            param=param,
            code="voice_not_found",
        )


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may take.

    Attributes:
        characters: Of a text.
        voices: Kept at a time.
        audio: Of a reference recording.
    """

    characters: int
    voices: int
    audio: AudioLimits


class Part(BaseModel):
    """A voice of a blend."""

    model_config = ConfigDict(extra="ignore")

    voice: str
    weight: Annotated[float, Field(gt=0, le=1)]


class InterpolateRequest(BaseModel):
    """Body of ``POST /interpolate``."""

    model_config = ConfigDict(extra="ignore")

    text: Annotated[str, Field(min_length=1)]
    voices: Annotated[list[Part], Field(min_length=2, max_length=5)]
    language: str | None = None
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0


class Cloner:
    """The engine, the cached voices, and the work with both under the server's limits."""

    def __init__(
        self, load: Callable[[], Engine], bounds: Bounds, admission: Admission, metrics: Metrics
    ) -> None:
        self._load = load
        self._engine: Engine | None = None
        self.bounds = bounds
        self.admission = admission
        self.cache = VoiceCache(bounds.voices)
        self._spoken = Histogram(
            "synapse_backend_spoken_seconds",
            "Seconds of speech in a sentence.",
            buckets=(0.5, 1, 2, 4, 8, 16, 32, 64),
            registry=metrics.registry,
        )
        Gauge(
            "synapse_backend_cached_voices",
            "Voices of reference recordings that are cached.",
            registry=metrics.registry,
        ).set_function(lambda: len(self.cache))

    async def load(self) -> None:
        """Load the engine."""
        self._engine = await asyncio.to_thread(self._load)

    @property
    def engine(self) -> Engine:
        """The loaded engine; requests come in only once it is there."""
        assert self._engine is not None  # noqa: S101 - the gate answers 503 before
        return self._engine

    def base_voice(self, language: str | None) -> BaseVoice:
        """The standard voice of a language.

        Raises:
            UnprocessableField: It is not spoken here.
        """
        code = check_language(language, self.engine.languages(), "this server").code
        return next(voice for voice in self.engine.voices() if voice.language == code)

    def cast(self, name: str, language: str | None) -> tuple[BaseVoice, Tone | None]:
        """Who speaks, and in whose tone colour.

        Raises:
            VoiceNotFound: Nobody has that name.
            UnprocessableField: He does not speak the language.
        """
        standard = self.base_voice(language)
        if name in {"default", *OPENAI_VOICES}:
            return standard, None
        for voice in self.engine.voices():
            if voice.id == name:
                own = [one for one in self.engine.languages() if one.code == voice.language]
                check_language(language, own, f"the voice {name}")
                return voice, None
        return standard, self.tone(name)

    def tone(self, name: str, param: str = "voice") -> Tone:
        """The tone colour of a cached voice.

        Raises:
            VoiceNotFound: It is not cached.
        """
        cached = self.cache.get(name)
        if cached is None:
            raise VoiceNotFound(name[:100], param)
        return cached.tone

    def sentences(
        self, text: str, voice: BaseVoice, speed: float, tone: Tone | None
    ) -> Iterator[Any]:
        """What the engine says, counted; blocking."""
        for samples in self.engine.speak(text, voice, speed, tone):
            self._spoken.observe(len(samples) / self.engine.rate)
            yield samples

    async def learn(self, caller: Caller, voice: str, files: Sequence[UploadFile]) -> Cached:
        """Take the tone colour of recordings, and keep it under their id.

        Raises:
            ServiceError: A recording is refused, or the id is not the one of the recordings.
        """
        if not 1 <= len(files) <= MOST_REFERENCES:
            raise UnprocessableField(
                f"files: {len(files)} recordings; 1 to {MOST_REFERENCES} are taken", param="files"
            )
        found = id_of([await _digest(file) for file in files])
        if found != voice:
            raise UnprocessableField(
                f"id: these recordings are the voice {found}: the SHA-256 over the sorted SHA-256 "
                "digests of the files",
                param="id",
            )
        async with self.admission.slot():
            recordings = []
            for number, file in enumerate(files):
                await stay(caller)
                recordings.append(await self._listen(file, f"files[{number}]"))
            tone = await self.admission.in_thread(self.engine.tone, recordings)
        samples = sum(len(recording) for recording in recordings)
        cached = Cached(tone, len(recordings), samples / self.engine.reference_rate)
        self.cache.put(voice, cached)
        return cached

    async def _listen(self, file: UploadFile, field: str) -> Samples:
        """The beginning of a recording; more of it would tell no more of a tone colour.

        Raises:
            ServiceError: It is refused, or too short.
        """
        rate = self.engine.reference_rate
        most = int(MOST_SECONDS * rate)
        heard: list[Samples] = []
        count = 0
        limits = self.bounds.audio
        async with decoding(file, rate=rate, limits=limits, field=field, mono=True) as running:
            async for block in running.blocks():
                heard.append(block[: most - count, 0])
                count += len(heard[-1])
                if count == most:
                    break
        if count < LEAST_SECONDS * rate:
            raise BadRequest(
                f"{field}: lasts {count / rate:.2f} s; at least {LEAST_SECONDS:g} s are needed",
                param=field,
                code="invalid_audio",
            )
        return np.concatenate(heard)


async def _digest(file: UploadFile) -> bytes:
    whole = hashlib.sha256()
    await file.seek(0)
    while block := await file.read(_BLOCK):
        whole.update(block)
    return whole.digest()


def blend(parts: Sequence[tuple[Tone, float]]) -> Tone:
    """The tone colour in the middle of several, each as near as its share of the weights."""
    whole = sum(weight for _, weight in parts)
    mixed = np.sum([tone * (weight / whole) for tone, weight in parts], axis=0)
    return np.asarray(mixed, np.float32)


def _check_id(voice: str) -> str:
    if not is_id(voice):
        raise UnprocessableField(
            "id: must be the SHA-256 of the recordings, 64 digits of lower-case hex", param="id"
        )
    return voice


def _described(voice: str, cached: Cached) -> dict[str, Any]:
    return {
        "id": voice,
        "references_count": cached.references,
        "seconds": round(cached.seconds, 3),
    }


def _voice_routes(cloner: Cloner) -> APIRouter:
    router = APIRouter()

    @router.put("/voices/{voice}", summary="Cache the voice of reference recordings")
    async def put_voice(
        caller: Caller, voice: str, files: Annotated[list[UploadFile], File()]
    ) -> Response:
        known = cloner.cache.get(_check_id(voice))
        if known is not None:
            return JSONResponse(_described(voice, known))
        learned = await cloner.learn(caller, voice, files)
        return JSONResponse(_described(voice, learned), 201)

    @router.get("/voices", summary="Voices that are cached")
    async def list_voices() -> dict[str, Any]:
        data = [_described(voice, cached) for voice, cached in cloner.cache.items()]
        return {"object": "list", "data": data}

    @router.delete("/voices/{voice}", status_code=204, summary="Forget a cached voice")
    async def delete_voice(voice: str) -> Response:
        if not cloner.cache.remove(voice):
            raise VoiceNotFound(voice[:100], "id")
        return Response(status_code=204)

    return router


def _speech_routes(cloner: Cloner) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/audio/speech", summary="OpenAI: speech for a text, sent as it is made")
    async def speech(body: SpeechRequest) -> Response:
        if body.model not in MODELS:
            raise ModelNotFound(body.model, list(MODELS))
        text = check_text(body.input, cloner.bounds.characters, "input")
        form = check_format(body.response_format)
        voice, tone = cloner.cast(body.voice_name, body.language)
        said = cloner.sentences(text, voice, check_speed(body.speed), tone)
        return await spoken_response(
            cloner.admission,
            said,
            cloner.engine.rate,
            form,
            voice=voice.id if tone is None else body.voice_name,
            events=body.stream_format == "sse",
        )

    @router.post("/interpolate", summary="Speech in a tone colour between those of several voices")
    async def interpolate(body: InterpolateRequest) -> Response:
        whole = sum(part.weight for part in body.voices)
        if abs(whole - 1) > 0.01:
            raise UnprocessableField(
                f"voices: the weights must sum to 1.0 within 0.01 (got {whole:g})", param="voices"
            )
        text = check_text(body.text, cloner.bounds.characters, "text")
        voice = cloner.base_voice(body.language)
        parts = [
            (cloner.tone(part.voice, f"voices[{number}].voice"), part.weight)
            for number, part in enumerate(body.voices)
        ]
        said = cloner.sentences(text, voice, check_speed(body.speed), blend(parts))
        names = ", ".join(f"{part.voice}={part.weight:g}" for part in body.voices)
        return await spoken_response(cloner.admission, said, cloner.engine.rate, "wav", voice=names)

    @router.get("/v1/audio/voices", summary="Voices that can speak without recordings")
    async def voices() -> dict[str, Any]:
        data = [
            {
                "id": voice.id,
                "name": voice.id,
                "language": voice.language,
                "sample_rate": cloner.engine.rate,
            }
            for voice in cloner.engine.voices()
        ]
        return {"object": "list", "data": data}

    @router.get("/languages", summary="Languages that can be spoken")
    async def languages() -> list[dict[str, str]]:
        return [asdict(language) for language in cloner.engine.languages()]

    return router


def make_app(load: Callable[[], Engine], options: Options, bounds: Bounds) -> FastAPI:
    """The cloning server around the engine that ``load`` makes."""
    metrics = Metrics()
    admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
    cloner = Cloner(load, bounds, admission, metrics)
    router = APIRouter()
    router.include_router(_speech_routes(cloner))
    router.include_router(_voice_routes(cloner))
    return create_app(
        title="OpenVoice text to speech",
        options=options,
        metrics=metrics,
        admission=admission,
        load=cloner.load,
        router=router,
        models=MODELS,
    )
