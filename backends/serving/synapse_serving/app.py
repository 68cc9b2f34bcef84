"""The application around a model: its routes come from the server, the rest from here."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from .admission import Admission
from .errors import Unavailable, add_error_handlers
from .gate import Gate
from .metrics import Metrics
from .options import Options

log = logging.getLogger(__name__)


class State:
    """What a server knows of itself.

    Attributes:
        status: ``loading``, ``ok``, ``unavailable``, ``stopping`` or ``failed``.
        reason: Why it is unavailable.
        stop: Called when the model could not be loaded.
    """

    def __init__(self) -> None:
        self.status = "loading"
        self.reason = ""
        self.stop: Callable[[], None] = lambda: None

    def begin_to_stop(self) -> None:
        """Be ready no more; a failure stays one."""
        if self.status != "failed":
            self.status = "stopping"


def create_app(
    *,
    title: str,
    options: Options,
    metrics: Metrics,
    admission: Admission,
    load: Callable[[], Awaitable[None]],
    router: APIRouter,
    models: Iterable[str],
) -> FastAPI:
    """A FastAPI application with ``router`` and the routes that every server has.

    Args:
        title: Shown in the OpenAPI document.
        options: Limits.
        metrics: Shown at ``/metrics``.
        admission: Bounds the POST requests.
        load: Called once at start, before the server is ready.
        router: The server's own routes.
        models: Names that ``/v1/models`` lists.

    The server is ready once ``load`` has returned; while it runs ``/health`` and ``/readyz`` answer
    503. An exception of ``load`` ends the server, but for ``Unavailable``: then it stays, is not
    ready, and says why.
    """
    state = State()
    names = list(models)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(load, state))
        yield
        state.begin_to_stop()
        loading.cancel()

    app = FastAPI(title=title, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.serving = state
    add_error_handlers(app)
    _add_common_routes(app, state, metrics, names)
    app.include_router(router)
    app.add_middleware(
        Gate, metrics=metrics, admission=admission, state=state, limit=options.max_request_bytes
    )
    return app


async def _load(load: Callable[[], Awaitable[None]], state: State) -> None:
    try:
        await load()
    except Unavailable as error:
        state.status, state.reason = "unavailable", error.reason
        log.error("not available: %s", error.reason)  # noqa: TRY400 - the reason is all there is
        return
    except Exception:
        state.status = "failed"
        log.exception("the model could not be loaded")
        state.stop()
        return
    state.status = "ok"
    log.info("the model is loaded")


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "synapse"}


def _add_common_routes(app: FastAPI, state: State, metrics: Metrics, names: list[str]) -> None:
    def status() -> JSONResponse:
        body = {"status": state.status} | ({"reason": state.reason} if state.reason else {})
        return JSONResponse(body, 200 if state.status == "ok" else 503)

    @app.get("/health", summary="Whether the model is loaded")
    async def health() -> Response:
        return status()

    @app.get("/readyz", summary="Whether requests should be sent here")
    async def readyz() -> Response:
        return status()

    @app.get("/metrics", summary="Metrics in the Prometheus text format")
    async def metrics_page(_: Request) -> Response:
        return PlainTextResponse(
            metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @app.get("/v1/models", summary="Names that the field `model` may have")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(name) for name in names]}
