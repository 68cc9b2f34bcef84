"""Writes docs/API.md from the OpenAPI document: `python hack/generate_api_doc.py [--check]`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "API.md"

_HEAD = """# API

Generated from the OpenAPI document (`GET /openapi.json`); `make api-doc` writes it anew.

Authenticate with `Authorization: Bearer KEY` or `X-API-Key: KEY`. `model` omitted, empty, `auto`,
`synapse:auto` or `synapse-auto` lets the gateway choose; `x-synapse-route` then says by which rule.

## What is changed on its way

Bodies pass as the backend sent them, chunk by chunk, with three exceptions:

1. Of a stream whose caller did not ask for usage (`stream_options.include_usage`), the gateway asks
   for it to count tokens, and takes that one chunk out again.
2. A stream that breaks after it has begun gets an error event appended, and no `[DONE]`.
3. `model` stays as the backend wrote it, unless the model's configuration says
   `rewrite_model: true`.

Ollama's API (`/api/*`) is passed through to an Ollama, and translated for every other backend.
`/stt/*` and `/tts/*` are translated for servers that have OpenAI's audio API alone. Sound is never
decoded or encoded: WAV files of several sentences become one by their heads.

## Headers

| request | |
| --- | --- |
| `x-request-id` | taken over if it is 1 to 128 of `A-Z a-z 0-9 _ . : -`, else one is made |
| `x-synapse-session` | requests of one session go to the same target while it has room |
| `x-synapse-allow-fallback` | `true`, `false`: may the standard voice speak in place of another? |
| `traceparent` | W3C trace context; the gateway's spans continue it |

| answer | |
| --- | --- |
| `x-synapse-backend`, `x-synapse-model` | who answered |
| `x-synapse-attempts` | how many targets were asked |
| `x-synapse-fallback` | why another than the first choice answered ([failover.md](failover.md)) |
| `x-synapse-voice` | who spoke: a voice of the library, or the backend's own |
| `x-synapse-route` | the rule of automatic choice |
| `x-request-id` | as in the log |

## Errors

`{"error": {"message", "type", "param", "code"}}`; under `/v1/messages` with `"type": "error"`
beside it, and under `/api/` as Ollama has it, `{"error": "sentence"}`. A message never names a
backend's address. A backend's own refusal of the request (400, 422 ...) is passed on in its words.

"""


def document() -> dict[str, Any]:
    """Return the OpenAPI document of a gateway without backends."""
    from synapse_gateway import app  # noqa: PLC0415 - the path is set by the caller
    from synapse_gateway.api.http import make_app  # noqa: PLC0415
    from synapse_gateway.config.settings import AuthMode, Settings  # noqa: PLC0415

    async def make() -> dict[str, Any]:
        runtime = app.Runtime({})
        await runtime.start(Settings(auth=AuthMode.ANONYMOUS), "")
        try:
            return make_app(runtime.gateway).openapi()
        finally:
            await runtime.stop()

    return asyncio.run(make())


def render(doc: dict[str, Any]) -> str:
    """Return the page."""
    errors: dict[str, str] = {}
    parts = [_HEAD, "| status | |\n| --- | --- |\n"]
    sections = []
    for path, operations in sorted(doc["paths"].items()):
        for method, operation in operations.items():
            sections.append(_section(doc, path, method, operation))
            for status, response in operation["responses"].items():
                if status != "200":
                    errors.setdefault(status, response["description"])
    parts.extend(f"| {status} | {text} |\n" for status, text in sorted(errors.items()))
    parts.append("\n## Routes\n")
    return "".join(parts + sections)


def _section(doc: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    lines = [f"\n### {method.upper()} {path}\n\n{operation.get('summary', '')}\n"]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = _resolved(doc, content["schema"])
        required = set(schema.get("required", ()))
        lines.append(f"\nBody: `{media}`\n\n| field | type | |\n| --- | --- | --- |\n")
        for name, field in schema.get("properties", {}).items():
            note = "required" if name in required else ""
            lines.append(f"| `{name}` | {_type(doc, field)} | {note} |\n")
    answers = operation["responses"].get("200", {}).get("content", {})
    if answers:
        lines.append("\nAnswers: " + ", ".join(f"`{media}`" for media in answers) + "\n")
    return "".join(lines)


def _resolved(doc: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = doc["components"]["schemas"][reference.rpartition("/")[2]]
    return found


def _type(doc: dict[str, Any], field: dict[str, Any]) -> str:
    if "$ref" in field:
        return _type(doc, _resolved(doc, field))
    if "anyOf" in field:
        kinds = dict.fromkeys(_type(doc, option) for option in field["anyOf"])
        return " or ".join(kind for kind in kinds if kind != "null")
    if "enum" in field:
        return " ".join(f"`{value}`" for value in field["enum"])
    if field.get("type") == "array":
        return f"list of {_type(doc, field['items'])}" if field.get("items") else "list"
    bounds = [
        f"{sign} {field[key]}"
        for key, sign in (("minimum", ">="), ("maximum", "<="))
        if key in field
    ]
    return " ".join([str(field.get("type", "any")), *bounds])


def main() -> int:
    """Write the page, or with `--check` say whether it is up to date."""
    sys.path.insert(0, str(ROOT / "gateway"))
    page = render(document())
    if "--check" in sys.argv[1:]:
        if TARGET.read_text(encoding="utf-8") == page:
            return 0
        sys.stderr.write("docs/API.md is not what the code says: run `make api-doc`\n")
        return 1
    TARGET.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
