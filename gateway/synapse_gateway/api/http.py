"""Everything that is not hot: health, catalogue, metrics, and the API's own description."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from synapse_gateway import __version__, errors
from synapse_gateway.api.access import Account, CallerOf, error_response
from synapse_gateway.api.catalog import find_model, model_object, visible_models
from synapse_gateway.api.gateway import HOT_PATHS
from synapse_gateway.api.ollama import add_ollama
from synapse_gateway.api.openapi import describe, page
from synapse_gateway.api.voices import add_voices

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.api.gateway import Gateway
    from synapse_gateway.backends.downloads import Download
    from synapse_gateway.routing.fleet import BackendState

JSON = "application/json"
CALLER_LEFT = 499
"""Status of requests whose callers left before it was known, in the log."""


def make_app(gateway: Gateway) -> FastAPI:
    """Return the application for all paths that the hot path leaves.

    Args:
        gateway: What it tells about.
    """
    app = FastAPI(
        title="Synapse",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # to an address that the caller's own Host header names
        redirect_slashes=False,
    )
    app.state.gateway = gateway
    app.add_middleware(Account, gateway=gateway)
    _add_error_handlers(app)
    _add_health(app, gateway)
    _add_catalog(app, gateway)
    add_ollama(app, gateway)
    add_voices(app, gateway)
    _add_hot_paths(app)
    _add_description(app)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    def answer(request: Request, error: errors.RequestError) -> Response:
        request.state.record.error = error.code or error.kind
        return error_response(error, request.url.path)

    def on_request_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.RequestError)  # noqa: S101 - registered for it only
        return answer(request, error)

    def on_http_exception(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for it only
        path = request.url.path
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow") or "POST"
            response = answer(
                request,
                errors.MethodNotAllowed(f"{path} does not take {request.method}, but {allowed}."),
            )
            response.headers["allow"] = allowed
            return response
        if error.status_code == 404:
            return answer(
                request, errors.RouteNotFound(f"There is no {path}; GET /docs lists what there is.")
            )
        return answer(request, errors.InvalidRequest(str(error.detail)))

    def on_validation_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it only
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or None
        return answer(
            request, errors.Unprocessable(f"{where or 'body'}: {first['msg']}", param=where)
        )

    def on_disconnect(request: Request, error: Exception) -> Response:
        del error
        request.state.record.disconnected = True
        return Response(status_code=CALLER_LEFT)

    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(errors.RequestError, on_request_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RequestValidationError, on_validation_error)


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/health", tags=["health"], summary="Say how every backend is, for people.")
    async def health() -> dict[str, Any]:
        backends = {
            name: _backend_health(backend, gateway.fleet.downloads.get(name))
            for name, backend in gateway.fleet.backends.items()
        }
        good = sum(entry["status"] in {"healthy", "asleep"} for entry in backends.values())
        status = "healthy"
        if good < len(backends) or not backends:
            status = "degraded" if good else "unhealthy"
        return {"status": status, "version": __version__, "backends": backends}

    @app.get("/livez", tags=["health"], summary="Say that the process answers.")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"], summary="Say whether anything can be served.")
    async def readyz() -> dict[str, str]:
        if gateway.draining:
            raise errors.Unavailable("The gateway is stopping.", retry_after=1)
        backends = gateway.fleet.backends.values()
        if not backends:
            raise errors.Unavailable("No backend is configured.", retry_after=5)
        if all(backend.up is False for backend in backends):
            raise errors.Unavailable("No backend answers.", retry_after=5)
        return {"status": "ready"}

    @app.get("/metrics", tags=["health"], summary="Give the metrics to Prometheus.")
    async def metrics(request: Request) -> Response:
        body, kind = await asyncio.to_thread(
            gateway.telemetry.metrics.render, request.headers.get("accept", "")
        )
        return Response(body, media_type=None, headers={"content-type": kind})


def _backend_health(
    backend: BackendState, downloads: Mapping[str, Download] | None
) -> dict[str, Any]:
    if backend.asleep:
        status = "asleep"
    elif backend.up is None:
        status = "unknown"
    else:
        status = "healthy" if backend.up else "unhealthy"
    entry: dict[str, Any] = {
        "status": status,
        "code": backend.status or None,
        "type": backend.config.type.value,
        "detail": backend.detail,
        "in_flight": backend.in_flight,
        "models": sorted(backend.models),
    }
    if backend.waiting is not None:
        entry["waiting"] = backend.waiting
    if downloads:
        entry["downloads"] = msgspec.to_builtins(downloads)
    return entry


def _add_catalog(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/v1/models", tags=["models"], summary="List the models that the key may use.")
    async def models(caller: CallerOf) -> dict[str, Any]:
        table = gateway.state.table
        return {
            "object": "list",
            "data": [model_object(route) for route in visible_models(table, caller)],
        }

    @app.get("/v1/models/{model:path}", tags=["models"], summary="Describe one model.")
    async def model(model: str, caller: CallerOf) -> dict[str, Any]:
        route = find_model(gateway.state.table, model)
        if route is None or not caller.allows(route.name):
            raise errors.ModelNotFound(f"The model {model[:200]!r} does not exist.", param="model")
        return model_object(route)


def _add_hot_paths(app: FastAPI) -> None:
    """Make the hot paths known, so that another method gets 405 and not 404."""

    async def elsewhere(request: Request) -> Response:
        raise errors.RouteNotFound(f"There is no {request.scope['raw_path'].decode('latin-1')}.")

    for path in HOT_PATHS:
        app.add_api_route(path, elsewhere, methods=["POST"], include_in_schema=False)


def _add_description(app: FastAPI) -> None:
    described: list[dict[str, Any]] = []

    def document() -> dict[str, Any]:
        if not described:
            described.append(describe(app))
        return described[0]

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's way to change it

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> dict[str, Any]:
        return document()

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page(document()))
