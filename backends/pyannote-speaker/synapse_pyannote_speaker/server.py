"""Routes of the speaker server: diarization and verification."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, Form, Response, UploadFile
from fastapi import Request as Caller
from fastapi.responses import JSONResponse
from prometheus_client import Histogram

from synapse_serving import (
    Admission,
    Audio,
    AudioLimits,
    BadRequest,
    Metrics,
    Options,
    UnprocessableField,
    create_app,
    decode_upload,
    stay,
)

from .choice import Choice
from .diarization import Speakers, Turn
from .encoder import RATE
from .engine import Engine, NoSpeech

MODEL = "speaker"
MOST_SPEAKERS = 100

Upload = Annotated[UploadFile, File(description="The audio file")]
Count = Annotated[int | None, Form(ge=1, le=MOST_SPEAKERS)]


class Listener:
    """The engine and its work under the server's limits."""

    def __init__(
        self,
        choice: Choice,
        threshold: float | None,
        admission: Admission,
        limits: AudioLimits,
        heard: Histogram,
    ) -> None:
        self._choice = choice
        self._threshold = threshold
        self._limits = limits
        self._heard = heard
        self._engine: Engine | None = None
        self.admission = admission

    async def load(self) -> None:
        """Load the engine and run it once, so that the first caller does not wait for that."""

        def work() -> Engine:
            engine = self._choice.load()
            engine.diarize(_hum(), Speakers())
            return engine

        self._engine = await asyncio.to_thread(work)

    @property
    def engine(self) -> Engine:
        """The loaded engine; requests come in only once it is there."""
        assert self._engine is not None  # noqa: S101 - the gate answers 503 before
        return self._engine

    @property
    def threshold(self) -> float:
        """Likeness from which two recordings are of one speaker."""
        return self.engine.threshold if self._threshold is None else self._threshold

    async def hear(self, upload: UploadFile, field: str) -> Audio:
        """The upload's samples; needs a slot."""
        audio = await decode_upload(upload, rate=RATE, limits=self._limits, field=field)
        self._heard.observe(audio.seconds)
        return audio


def _hum() -> Any:
    import numpy as np  # noqa: PLC0415 - for this alone

    return (0.1 * np.sin(np.arange(2 * RATE) * 0.05)).astype(np.float32)


def wanted_speakers(exactly: int | None, least: int | None, most: int | None) -> Speakers:
    """How many speakers a caller asks for.

    Raises:
        UnprocessableField: The numbers contradict each other.
    """
    if least is not None and most is not None and least > most:
        raise UnprocessableField(
            f"min_speakers: {least} is more than max_speakers, which is {most}",
            param="min_speakers",
        )
    if exactly is not None and least is not None and exactly < least:
        raise UnprocessableField(
            f"num_speakers: {exactly} is less than min_speakers, which is {least}",
            param="num_speakers",
        )
    if exactly is not None and most is not None and exactly > most:
        raise UnprocessableField(
            f"num_speakers: {exactly} is more than max_speakers, which is {most}",
            param="num_speakers",
        )
    return Speakers(exactly, least, most)


def _segment(turn: Turn, duration: float) -> dict[str, Any]:
    return {
        "speaker": f"SPEAKER_{turn.speaker:02}",
        "start": round(turn.start, 3),
        "end": round(min(turn.end, duration), 3),
    }


def _routes(listener: Listener) -> APIRouter:
    router = APIRouter()

    @router.post("/diarize", summary="Who speaks when in a recording")
    async def diarize(
        caller: Caller,
        file: Upload,
        num_speakers: Count = None,
        min_speakers: Count = None,
        max_speakers: Count = None,
    ) -> Response:
        wanted = wanted_speakers(num_speakers, min_speakers, max_speakers)
        async with listener.admission.slot():
            await stay(caller)
            audio = await listener.hear(file, "file")
            await stay(caller)
            turns = await listener.admission.in_thread(
                listener.engine.diarize, audio.samples, wanted
            )
        duration = round(audio.seconds, 3)
        answer = {
            "num_speakers": len({turn.speaker for turn in turns}),
            "duration": duration,
            "segments": [_segment(turn, duration) for turn in turns],
        }
        return _answer(listener, answer)

    @router.post("/verify", summary="Whether two recordings are of one speaker")
    async def verify(caller: Caller, file1: Upload, file2: Upload) -> Response:
        async with listener.admission.slot():
            await stay(caller)
            one = await listener.hear(file1, "file1")
            other = await listener.hear(file2, "file2")
            await stay(caller)
            try:
                score = await listener.admission.in_thread(
                    listener.engine.likeness, one.samples, other.samples
                )
            except NoSpeech as error:
                field = ("file1", "file2")[error.args[0]]
                raise BadRequest(
                    f"{field}: there is no speech in it that a speaker could be told by",
                    param=field,
                    code="no_speech",
                ) from error
        threshold = listener.threshold
        answer = {
            "is_same_speaker": score >= threshold,
            "similarity_score": round(score, 4),
            "threshold": threshold,
        }
        return _answer(listener, answer)

    return router


def _answer(listener: Listener, answer: dict[str, Any]) -> Response:
    name = listener.engine.name
    return JSONResponse(answer | {"engine": name}, headers={"x-synapse-engine": name})


def make_app(
    choice: Choice, threshold: float | None, options: Options, limits: AudioLimits
) -> FastAPI:
    """The speaker server."""
    metrics = Metrics()
    admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
    heard = Histogram(
        "synapse_backend_heard_seconds",
        "Seconds of audio in an upload.",
        buckets=(1, 3, 10, 30, 60, 180, 600, 1800),
        registry=metrics.registry,
    )
    listener = Listener(choice, threshold, admission, limits, heard)
    return create_app(
        title="Speaker diarization and verification",
        options=options,
        metrics=metrics,
        admission=admission,
        load=listener.load,
        router=_routes(listener),
        models=(MODEL,),
    )
