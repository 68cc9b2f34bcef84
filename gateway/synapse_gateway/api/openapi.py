"""The API's description: an OpenAPI document, and a page that shows it all by itself."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.openapi.utils import get_openapi

from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.api.routes import OPENAI_ROUTES, HotRoute

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
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    document["security"] = [{"bearer": []}, {"header": []}, {}]
    for route in OPENAI_ROUTES.values():
        document["paths"][route.path] = {"post": _operation(route, schemas)}
    for route_path, summary in OLLAMA_ROUTES.items():
        document["paths"][route_path] = {"post": _ollama_operation(route_path, summary)}
    for path in document["paths"].values():
        for operation in path.values():
            _add_errors(operation)
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    return document


def _operation(route: HotRoute, schemas: dict[str, Any]) -> dict[str, Any]:
    if route.body is None:
        content: dict[str, Any] = {"multipart/form-data": {"schema": _RECORDING}}
    else:
        (reference,), found = msgspec.json.schema_components(
            [route.body], ref_template="#/components/schemas/{name}"
        )
        schemas.update(found)
        content = {"application/json": {"schema": reference}}
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


def _ollama_operation(path: str, summary: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"model": {"type": "string"}, "options": {"type": "object"}}
    if path == "/api/chat":
        properties["messages"] = {"type": "array", "items": {"type": "object"}}
    elif path == "/api/embed":
        properties["input"] = {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        }
    else:
        properties["prompt"] = {"type": "string"}
    if path in {"/api/chat", "/api/generate"}:
        properties["stream"] = {"type": "boolean", "default": True}
    schema = {"type": "object", "required": ["model"], "properties": properties}
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
    return content


def _add_errors(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    for status, text in _ERRORS.items():
        responses[status] = {
            "description": text,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }


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
