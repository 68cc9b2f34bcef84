"""A server whose model works for as long as the test wants: until ``GET /release`` or SIGUSR1."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI, Request, Response

from synapse_serving import (
    Admission,
    Metrics,
    StartError,
    add_options,
    create_app,
    read_options,
    run,
    stream_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

gate = threading.Event()


def routes(admission: Admission) -> APIRouter:
    router = APIRouter()

    @router.get("/release")
    async def release() -> str:
        gate.set()
        return "released"

    @router.get("/hold")
    async def hold() -> str:
        gate.clear()
        return "held"

    @router.post("/work")
    async def work() -> str:
        async with admission.slot():
            await admission.in_thread(gate.wait)
        return "worked"

    @router.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @router.post("/fail")
    async def fail() -> None:
        raise RuntimeError("the secret inside")

    @router.post("/stream")
    async def stream(*, broken: bool = False, late: bool = True) -> Response:
        async def chunks() -> AsyncGenerator[bytes, None]:
            if not late:
                raise StartError("before the head")
            yield b"one\n"
            await admission.in_thread(gate.wait)
            if broken:
                raise RuntimeError("in the middle")
            yield b"two\n"

        async def make() -> AsyncGenerator[bytes, None]:
            return chunks()

        return await stream_response(admission, make, media_type="text/plain")

    return router


def main() -> int:
    parser = argparse.ArgumentParser()
    add_options(parser, port=0)
    parser.add_argument("--load", choices=["well", "never", "failing"], default="well")
    parsed = parser.parse_args()
    signal.signal(signal.SIGUSR1, lambda *_: gate.set())
    options = read_options(parsed)

    async def load() -> None:
        if parsed.load == "failing":
            raise StartError("no weights")

    def make() -> FastAPI:
        if parsed.load == "never":
            raise StartError("the model x is not there")
        metrics = Metrics()
        admission = Admission(options.concurrency, options.queue, options.max_wait, metrics)
        return create_app(
            title="gated",
            options=options,
            metrics=metrics,
            admission=admission,
            load=load,
            router=routes(admission),
            models=["gated"],
        )

    return run("gated_server", options, make)


if __name__ == "__main__":
    sys.exit(main())
