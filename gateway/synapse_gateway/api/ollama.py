"""Ollama's API in front of every model: passed through to Ollama, translated for all others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response

from synapse_gateway.api import bodies
from synapse_gateway.api.access import CallerOf
from synapse_gateway.api.catalog import find_model, visible_models
from synapse_gateway.api.prepare import forwarded, route_header, session_affinity
from synapse_gateway.backends.base import Capability, DiscoveredModel, ModelFile
from synapse_gateway.errors import InvalidRequest, ModelNotFound, RequestError, TooLarge
from synapse_gateway.ollama_api import catalog, requests, responses
from synapse_gateway.ollama_api.errors import (
    OllamaRequestError,
    error_from_openai,
    error_line,
    unknown_model,
)
from synapse_gateway.proxy.dialects import ChatDialect, OllamaDialect
from synapse_gateway.proxy.events import EventCutter
from synapse_gateway.proxy.fetch import BackendHttp
from synapse_gateway.proxy.readers import StreamReader, TranslatingReader
from synapse_gateway.proxy.request import Form, ProxyRequest

if TYPE_CHECKING:
    from fastapi import FastAPI

    from synapse_gateway.api.call import Call
    from synapse_gateway.api.gateway import Gateway
    from synapse_gateway.api.prepare import Resolver
    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.ollama_api.requests import Translated
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.routing.table import Candidate, ModelRoute, RouteTable
    from synapse_gateway.telemetry.record import RequestRecord

OLLAMA_ROUTES = {
    "/api/chat": "Answer a chat by Ollama's API.",
    "/api/generate": "Continue a text by Ollama's API.",
    "/api/embed": "Turn texts into vectors by Ollama's API.",
    "/api/embeddings": "Turn a text into a vector by Ollama's older API.",
}
"""Hot paths, with what each does."""

_CAPABILITIES = {
    requests.CHAT_COMPLETIONS: Capability.CHAT,
    requests.COMPLETIONS: Capability.COMPLETIONS,
    requests.EMBEDDINGS: Capability.EMBEDDINGS,
}
_REPLY_CAPABILITIES = {
    requests.Reply.CHAT: Capability.CHAT,
    requests.Reply.GENERATE: Capability.COMPLETIONS,
    requests.Reply.EMBED: Capability.EMBEDDINGS,
    requests.Reply.EMBEDDINGS: Capability.EMBEDDINGS,
}
_LINES = b"application/x-ndjson"


def prepare_ollama(
    call: Call, resolver: Resolver, caller: Caller, record: RequestRecord
) -> ProxyRequest | bytes:
    """Make the request of a route of Ollama's API.

    Returns:
        What the proxy can serve, or the whole answer where no backend is needed.

    Raises:
        RequestError: The caller's mistake.
    """
    otherwise: bytes | None = None
    body, translated, only_ollama = _read(call)
    if caller.exact is not None:
        bodies.refuse_other_spellings(body)
    capability = _CAPABILITIES.get(translated.path) or _REPLY_CAPABILITIES[translated.reply]
    try:
        route = resolver.resolve(translated.model, "", capability, None)
    except ModelNotFound as error:
        text = unknown_model(call.path, translated.model).sentence
        raise ModelNotFound(text, param="model") from error
    native = _native_form(call.path, body, translated)
    if only_ollama is not None or translated.immediate:
        if not _is_first_at_ollama(route, capability):
            if only_ollama is not None:
                raise _as_request_error(only_ollama)
            return responses.immediate_reply(translated, time)
        if translated.immediate and not all(map(_at_ollama, route.plan(capability).candidates)):
            # the others have the model loaded at all times
            otherwise = responses.immediate_reply(translated, time)
        # nobody else can be asked this
        capability = Capability.OLLAMA
        form = native
    else:
        form = _translated_form(translated)
    record.stream = translated.stream
    affinity = session_affinity(call.headers)
    return ProxyRequest(
        record=record,
        capability=capability,
        route=route,
        form=form,
        choose_form=lambda backend: native if _speaks_ollama(backend.adapter) else form,
        headers=forwarded(call.headers, b"application/json"),
        stream=translated.stream,
        deadline=record.started + route.plan(capability).overall,
        priority=caller.priority,
        affinity=affinity,
        session=affinity is not None,
        extra_headers=route_header(record),
        otherwise=otherwise,
    )


def _read(call: Call) -> tuple[bytes, Translated, requests.OnlyOllamaCan | None]:
    """Read a request as Ollama would.

    Returns:
        The body for an Ollama, the request for others, and why those cannot serve it, if so.

    Raises:
        RequestError: It is not a request of that path.
    """
    try:
        return call.body, *_translated(call.path, call.body)
    except OllamaRequestError as error:
        mistake = error
    body = requests.as_go_reads(call.body)
    try:
        return body, *_translated(call.path, body)
    except OllamaRequestError:
        raise _as_request_error(mistake) from None


def _translated(path: str, body: bytes) -> tuple[Translated, requests.OnlyOllamaCan | None]:
    try:
        return requests.to_openai(path, body), None
    except requests.OnlyOllamaCan as error:
        return error.request, error


def _as_request_error(error: OllamaRequestError) -> RequestError:
    if error.status == 404:
        return ModelNotFound(error.sentence, param=error.field or None)
    return InvalidRequest(error.sentence, param=error.field or None)


def _is_first_at_ollama(route: ModelRoute, capability: Capability) -> bool:
    return all(map(_at_ollama, route.plan(capability).orders[0]))


def _at_ollama(candidate: Candidate) -> bool:
    return _speaks_ollama(candidate.state.backend.adapter)


def _speaks_ollama(adapter: Any) -> bool:
    return Capability.OLLAMA in adapter.capabilities


def _native_form(path: str, body: bytes, translated: Translated) -> Form:
    def body_for(name: str) -> bytes:
        if not name or name == translated.model:
            return body
        return bodies.with_fields(body, {"model": name})

    return Form(path=path, body_for=body_for, dialect=OllamaDialect)


def _translated_form(translated: Translated) -> Form:
    started = time.monotonic_ns()

    def body_for(name: str) -> bytes:
        if not name or name == translated.model:
            return translated.body
        return bodies.with_fields(translated.body, {"model": name})

    def reader(dialect: Dialect, largest: int) -> StreamReader:
        translator = responses.StreamTranslator(translated, started_ns=started, clock=time)
        return TranslatingReader(EventCutter(largest), dialect, translator)

    return Form(
        path=translated.path,
        body_for=body_for,
        dialect=ChatDialect,
        reader=reader,
        whole=lambda body: responses.from_openai(translated, body, started_ns=started, clock=time),
        refused=lambda _status, body: error_from_openai(body),
        error_event=lambda error: error_line(error["message"]),
        content_type=_LINES if translated.stream else None,
    )


def add_ollama(app: FastAPI, gateway: Gateway) -> None:
    """Add the routes of Ollama's API that are not hot."""

    @app.get("/", include_in_schema=False)
    async def root() -> Response:
        # what Ollama's command line asks before anything else, and others to find it
        return Response("Ollama is running", media_type="text/plain")

    @app.get("/api/tags", tags=["ollama"], summary="List the models, as Ollama does.")
    async def tags(caller: CallerOf) -> Response:
        return _json(catalog.tags(_models(gateway.state.table, caller)))

    @app.get("/api/ps", tags=["ollama"], summary="List the models that are loaded.")
    async def ps(caller: CallerOf) -> Response:
        return _json(catalog.ps(_models(gateway.state.table, caller)))

    @app.get("/api/version", tags=["ollama"], summary="Say which Ollama's API this is.")
    async def version() -> Response:
        return _json(catalog.version())

    @app.post(
        "/api/show",
        tags=["ollama"],
        summary="Describe a model, as Ollama does.",
        openapi_extra={"requestBody": _SHOW_BODY},
    )
    async def show(request: Request, caller: CallerOf) -> Response:
        table = gateway.state.table
        limit = table.settings.limits.max_body_bytes
        body = bodies.parse(bodies.Show, await _small_body(request, limit))
        name = body.model or body.name or ""
        route = find_model(table, name)
        if route is None or not caller.allows(route.name):
            raise ModelNotFound(unknown_model("/api/show", name).sentence, param="model")
        return _json(await _shown(gateway, route))


_SHOW_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model"],
                "properties": {"model": {"type": "string"}},
            }
        }
    },
}


async def _small_body(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > min(limit, 65536):
            raise TooLarge("The body is larger than 65536 bytes.")
        parts.append(part)
    return b"".join(parts)


async def _shown(gateway: Gateway, route: ModelRoute) -> bytes:
    """Ask an Ollama that has the model; describe it from what is known where there is none."""
    for state in route.states:
        backend = state.backend
        if _speaks_ollama(backend.adapter) and backend.up:
            http = BackendHttp(gateway.state.upstreams.of(backend.name))
            asked = b'{"model":%b}' % bodies.encode(state.model or route.name)
            try:
                reply = await http.request("POST", "/api/show", body=asked)
            except (OSError, TimeoutError):
                continue
            if reply.status == 200:
                return reply.body
    return catalog.show(_catalog_model(route))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _models(table: RouteTable, caller: Caller) -> list[catalog.CatalogModel]:
    return [_catalog_model(route) for route in visible_models(table, caller)]


def _catalog_model(route: ModelRoute) -> catalog.CatalogModel:
    known = [found for state in route.states if (found := state.backend.known(state.model))]
    # whoever tells of a file knows more: Ollama, in front of others
    known.sort(key=lambda model: model.file is None)
    model = known[0] if known else DiscoveredModel(id="", state="cold")
    file = model.file or ModelFile()
    embeds = not route.plan(Capability.CHAT).orders
    return catalog.CatalogModel(
        name=route.name,
        size=file.size or model.size or 0,
        size_loaded=model.size or 0,
        size_vram=model.size_vram or 0,
        digest=file.digest or None,
        format=file.format,
        family=file.family,
        families=file.families,
        parameter_size=file.parameter_size,
        quantization_level=file.quantization_level,
        context_length=model.context or 0,
        capabilities=("embedding",) if embeds else ("completion",),
        modified_at=file.modified_at or None,
        loaded=model.state == "hot",
        expires_at=model.expires_at or None,
    )
