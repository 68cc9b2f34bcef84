"""The API's description: an OpenAPI document, and a page that shows it all by itself."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.openapi.utils import get_openapi

from synapse_gateway.api import bodies
from synapse_gateway.api.audio import AUDIO_ROUTES, AudioRoute
from synapse_gateway.api.audio_schemas import ANSWERS
from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.api.routes import OPENAI_ROUTES, HotRoute
from synapse_gateway.api.speech import SPEECH_ROUTES

if TYPE_CHECKING:
    from fastapi import FastAPI

_ERRORS = {
    "400": "The request is malformed; the error names the field.",
    "401": "No key, or a wrong one.",
    "404": "No such model for this key.",
    "413": "The body is too large.",
    "415": "The body is of a type that this route does not take.",
    "429": "The key's own limit is reached; see Retry-After.",
    "501": "No backend of this deployment can do it.",
    "502": "Every backend that was tried answered wrongly.",
    "503": "No backend is available, or all are full; see Retry-After.",
    "504": "The backends did not answer in time.",
}
_CONTRACT_ERRORS = {
    "403": "The key is limited to models, and this path is not among them.",
    "422": "A field is missing, or has a value that it cannot have.",
}
_VOICE_ERRORS = {
    "403": "The key is limited to models, and this path is not among them.",
    "404": "No voice has this id.",
    "408": "The upload came to a standstill.",
    "422": "A field is missing, or has a value that it cannot have; a recording is no sound WAV.",
    "503": "There is no room for the upload, or the library cannot be read; see Retry-After.",
}
_REFUSED_BY_BACKENDS = ("400", "413", "415", "422", "4XX")
"""Statuses that a backend's own refusal of the request can have."""
_REFUSED = "The backend refuses the request; its own words."
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_REFUSAL_SCHEMA = {
    "type": "object",
    "description": "A backend's own words, passed on as they are; or the gateway's `Error`.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message"],
            "properties": {"message": {"type": "string"}},
        }
    },
}
_OLLAMA_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}
_OLLAMA_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"type": "string", "enum": ["system", "user", "assistant", "tool"]},
        "content": {"type": "string"},
    },
}
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_RAW_FIELDS = {
    "input": _TEXTS,
    "query": {"type": "string"},
    "documents": {"type": "array", "items": {"type": "string"}},
}
"""Fields that pass unread, as backends take them."""
_RECORDING = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "language": {"type": "string"},
        "prompt": {"type": "string"},
        "response_format": {
            "type": "string",
            "enum": ["json", "text", "srt", "vtt", "verbose_json"],
        },
        "temperature": {"type": "number"},
        "stream": {"type": "string", "enum": ["true", "false"]},
    },
}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of all routes."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary="One endpoint in front of every local AI service.",
        routes=app.routes,
    )
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Error"] = _ERROR_SCHEMA
    schemas["Refusal"] = _REFUSAL_SCHEMA
    schemas["OllamaError"] = _OLLAMA_ERROR_SCHEMA
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]
    for route in OPENAI_ROUTES.values():
        document["paths"][route.path] = {"post": _operation(route, schemas)}
    for route_path, summary in OLLAMA_ROUTES.items():
        document["paths"][route_path] = {"post": _ollama_operation(route_path, summary)}
    for recording in AUDIO_ROUTES.values():
        document["paths"][recording.path] = {"post": _recording_operation(recording)}
    for route_path, summary in SPEECH_ROUTES.items():
        document["paths"][route_path] = {"post": _speech_operation(route_path, summary, schemas)}
    document["paths"]["/metrics"]["get"]["responses"]["200"]["content"] = {
        "text/plain": {},
        "application/openmetrics-text": {},
    }
    _add_all_errors(document["paths"])
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    return document


def _operation(route: HotRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.body is None:
        content: dict[str, Any] = {"multipart/form-data": {"schema": _RECORDING}}
    else:
        content = _json_content(route.body, schemas)
    return {
        "tags": ["openai"],
        "summary": route.summary,
        "operationId": route.path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The backend's answer, byte for byte.",
                "content": _answer(route),
            }
        },
    }


def _json_content(body: type[msgspec.Struct], schemas: dict[str, Any]) -> dict[str, Any]:
    (reference,), found = msgspec.json.schema_components(
        [body], ref_template="#/components/schemas/{name}"
    )
    schemas.update(found)
    _require(schemas[body.__name__], body)
    return {"application/json": {"schema": reference}}


def _recording_operation(route: AudioRoute) -> dict[str, Any]:
    properties: dict[str, Any] = {
        name: {"type": "string", "format": "binary"} for name in route.files
    }
    properties.update({name: rule.schema for name, rule in route.fields.items()})
    schema = {
        "type": "object",
        "required": [*route.files, *route.required],
        "properties": properties,
    }
    answer = {"schema": ANSWERS[route.path]} if route.path in ANSWERS else {}
    return _contract_operation(
        route.path,
        route.summary,
        {"multipart/form-data": {"schema": schema}},
        {route.answers: answer},
    )


def _speech_operation(path: str, summary: str, schemas: dict[str, Any]) -> dict[str, Any]:
    kind = bodies.Interpolate if path == "/tts/interpolate" else bodies.Synthesize
    content = _json_content(kind, schemas)
    return _contract_operation(path, summary, content, {"audio/wav": {}})


def _contract_operation(
    path: str, summary: str, content: dict[str, Any], answer: dict[str, Any]
) -> dict[str, Any]:
    return {
        "tags": [path.split("/")[1]],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_").replace("-", "_"),
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "The answer.", "content": answer}},
    }


def _require(schema: dict[str, Any], body: type[msgspec.Struct]) -> None:
    """Add what the decoder leaves to a check of its own, or to the backend."""
    required = bodies.REQUIRED[body]
    if required:
        schema["required"] = list(required)
    for name in required:
        schema["properties"][name] = schema["properties"][name] or _RAW_FIELDS.get(name, {})


def _ollama_operation(path: str, summary: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"model": {"type": "string"}, "options": {"type": "object"}}
    if path == "/api/chat":
        properties["messages"] = {"type": "array", "items": _OLLAMA_MESSAGE}
    elif path == "/api/embed":
        properties["input"] = _TEXTS
    else:
        properties["prompt"] = {"type": "string"}
    if path in {"/api/chat", "/api/generate"}:
        properties["stream"] = {"type": "boolean", "default": True}
    required = ["model", *({"/api/embed": ["input"], "/api/embeddings": ["prompt"]}.get(path, []))]
    schema = {"type": "object", "required": required, "properties": properties}
    return {
        "tags": ["ollama"],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {
                "description": "As Ollama answers.",
                "content": {"application/json": {}, "application/x-ndjson": {}},
            }
        },
    }


def _answer(route: HotRoute) -> dict[str, Any]:
    if route.capability.value == "speech":
        return {"audio/*": {}, "text/event-stream": {}}
    content: dict[str, Any] = {"application/json": {}}
    if route.dialect is not None:
        content["text/event-stream"] = {}
    if route.body is None:
        content["text/plain"] = {}
        content["text/vtt"] = {}
        content["application/x-subrip"] = {}
    return content


def _add_all_errors(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for operation in operations.values():
            _add_errors(operation, "OllamaError" if path.startswith("/api/") else "Error")
            if path.startswith("/voices"):
                for status, text in _VOICE_ERRORS.items():
                    operation["responses"][status] = _error(text, "Error")
    for path in OPENAI_ROUTES:
        responses = paths[path]["post"]["responses"]
        for status in _REFUSED_BY_BACKENDS:
            responses[status] = _error(_ERRORS.get(status, _REFUSED), "Refusal")
    for path in (*AUDIO_ROUTES, *SPEECH_ROUTES):
        responses = paths[path]["post"]["responses"]
        for status, text in (*_CONTRACT_ERRORS.items(), ("4XX", _REFUSED)):
            responses[status] = _error(text, "Error")


def _add_errors(operation: dict[str, Any], schema: str) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status, text in _ERRORS.items():
        responses[status] = _error(text, schema)


def _error(text: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": text, "content": {"application/json": {"schema": reference}}}


def page(document: dict[str, Any]) -> str:
    """Return the document as a page for people."""
    rows = []
    for path, operations in sorted(document["paths"].items()):
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {})
            fields = ", ".join(_fields(document, body))
            rows.append(
                f"<tr><td><code>{method.upper()}</code></td><td><code>{html.escape(path)}</code>"
                f"</td><td>{html.escape(operation.get('summary', ''))}</td>"
                f"<td><small>{html.escape(fields)}</small></td></tr>"
            )
    return _PAGE.format(version=html.escape(document["info"]["version"]), rows="\n".join(rows))


def _fields(document: dict[str, Any], content: dict[str, Any]) -> list[str]:
    for media in content.values():
        schema = media["schema"]
        reference = schema.get("$ref")
        if reference is not None:
            schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        return list(schema.get("properties", {}))
    return []


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Synapse API</title>
<style>
body {{ font: 16px/1.5 sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ border-bottom: 1px solid #ccc; padding: .4rem .6rem; text-align: left }}
</style>
<h1>Synapse API {version}</h1>
<p>The machine-readable description is <a href="/openapi.json">/openapi.json</a>. Send a key as
<code>Authorization: Bearer KEY</code> or <code>X-API-Key: KEY</code>.</p>
<table><tr><th>Method</th><th>Path</th><th>What it does</th><th>Fields</th></tr>
{rows}
</table></html>
"""
