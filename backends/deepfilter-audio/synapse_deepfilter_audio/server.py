"""Routes of the audio server: noise removal and conversion."""

import asyncio
import contextlib
import tempfile
from typing import Annotated

from fastapi import APIRouter, FastAPI, File, Form, Response, UploadFile
from fastapi import Request as Caller
from prometheus_client import Histogram

from synapse_serving import (
    Admission,
    AudioLimits,
    BadRequest,
    Metrics,
    Options,
    create_app,
    decoding,
    file_response,
    stay,
)
from synapse_serving.audio_convert import convert_upload

from .cleaning import Cleaning
from .formats import target_for
from .library import RATE, Cleaner

MODEL = "deepfilternet3"
Upload = Annotated[UploadFile, File(description="The audio file")]


class Denoiser:
    """The model and its work under the server's limits."""

    def __init__(self, admission: Admission, limits: AudioLimits, cleaned: Histogram) -> None:
        self._admission = admission
        self._limits = limits
        self._cleaned = cleaned
        self._cleaner: Cleaner | None = None

    async def load(self) -> None:
        """Load the library and make the first state."""
        self._cleaner = await asyncio.to_thread(Cleaner)

    async def clean(self, caller: Caller, upload: UploadFile) -> Response:
        """The recording without its noise, with the channels and the sample rate that it had.

        Raises:
            ServiceError: The upload is refused.
        """
        assert self._cleaner is not None  # noqa: S101 - the gate answers 503 before
        run = self._admission.in_thread
        with contextlib.ExitStack() as undo:
            sink = undo.enter_context(tempfile.TemporaryFile())
            async with (
                self._admission.slot(),
                decoding(upload, rate=RATE, limits=self._limits) as decoded,
            ):
                work = await run(Cleaning, self._cleaner, decoded.channels, decoded.rate, sink)
                undo.callback(work.close)
                async for block in decoded.blocks():
                    await stay(caller)
                    await run(work.add, block)
                await run(work.finish)
            if not work.samples:
                raise BadRequest(
                    "file: the file holds no sound", param="file", code="invalid_audio"
                )
            work.close()
            undo.pop_all()
        self._cleaned.observe(work.samples / decoded.rate)
        return file_response(sink, media_type="audio/wav")


def _routes(denoiser: Denoiser, admission: Admission, limits: AudioLimits, most: int) -> APIRouter:
    router = APIRouter()

    @router.post("/denoise", summary="A recording without its noise, as WAV")
    async def denoise(caller: Caller, file: Upload) -> Response:
        return await denoiser.clean(caller, file)

    @router.post("/convert", summary="A recording in another format")
    async def convert(
        file: Upload,
        output_format: Annotated[str, Form()],
        sample_rate: Annotated[int | None, Form()] = None,
        bitrate: Annotated[str | None, Form()] = None,
    ) -> Response:
        made, target = target_for(output_format, sample_rate, bitrate)
        async with admission.slot():
            converted = await convert_upload(file, target, limits=limits, max_bytes=most)
        return file_response(converted, media_type=made.media_type)

    return router


def make_app(options: Options, limits: AudioLimits, max_output_bytes: int) -> FastAPI:
    """The audio server."""
    metrics = Metrics()
    admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
    cleaned = Histogram(
        "synapse_backend_cleaned_seconds",
        "Seconds of sound in a recording that was cleaned.",
        buckets=(1, 3, 10, 30, 60, 180, 600, 1800),
        registry=metrics.registry,
    )
    denoiser = Denoiser(admission, limits, cleaned)
    return create_app(
        title="Noise removal and conversion",
        options=options,
        metrics=metrics,
        admission=admission,
        load=denoiser.load,
        router=_routes(denoiser, admission, limits, max_output_bytes),
        models=(MODEL,),
    )
