"""Backends' refusals as the contract shows them: one shape, and the names of its own fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


def refusal(body: bytes, names: Mapping[str, str]) -> bytes:
    """Return a backend's error answer as the contract's error object.

    Args:
        body: `{"error": {...}}` (OpenAI), `{"detail": "text"}` or `{"detail": [{"loc", "msg"}]}`
            (FastAPI), or anything else.
        names: The contract's names of fields that the backend calls otherwise.
    """
    message, param, code = _read(body)
    if param is not None:
        known = names.get(param, param)
        if known != param and message.startswith(f"{param}: "):
            message = f"{known}{message[len(param) :]}"
        param = known
    error = {
        "message": message or "The backend refused the request.",
        "type": "invalid_request_error",
        "param": param,
        "code": code,
    }
    return msgspec.json.encode({"error": error})


def message_of(body: bytes) -> str:
    """Return what a backend's error answer says; Chatterbox lists an error for each file."""
    message, _, _ = _read(body)
    try:
        errors = msgspec.json.decode(body).get("errors")
        message = message or _text(errors[0].get("error"))
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError, LookupError, TypeError):
        pass
    return message or "the backend refused them"


def _read(body: bytes) -> tuple[str, str | None, str | None]:
    try:
        whole = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", None, None
    if not isinstance(whole, dict):
        return "", None, None
    error = whole.get("error")
    if isinstance(error, dict):
        return _text(error.get("message")), _name(error.get("param")), _name(error.get("code"))
    detail = whole.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        return _of_fastapi(detail[0])
    return _text(detail) or _text(error), None, None


def _of_fastapi(first: dict[str, Any]) -> tuple[str, str | None, str | None]:
    place = first.get("loc")
    field = _name(place[-1]) if isinstance(place, list) and place else None
    message = _text(first.get("msg"))
    return (f"{field}: {message}" if field else message), field, None


def _text(value: Any) -> str:
    return value[:4096] if isinstance(value, str) else ""


def _name(value: Any) -> str | None:
    return value[:200] if isinstance(value, str) else None
