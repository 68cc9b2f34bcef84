"""Errors that a caller may see, and the one place where they become a response.

::

    ServiceError
      BadRequest              400  the request cannot be right
      ModelNotFound           404
      MediaTooLarge           413  bytes, seconds, memory
      UnsupportedMedia        415  not an audio file, or one with video
      UnprocessableField      422  a field's value is outside what is known
      NotImplementedByModel   501  right, but this model cannot
      CallerLeft              499  nobody is there to read the answer
      Overloaded              503  every slot and place in the queue is taken
      Unavailable             503  the model is not there yet, or cannot be had

The body has OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)


class ServiceError(HTTPException):
    """An error with a sentence for the caller; it names the field and what would be right.

    Attributes:
        param: The request's field, or None.
        code: A word for programs, such as ``model_not_found``, or None.
        kind: OpenAI's ``type``.
    """

    status = 500
    kind = "server_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(self.status, message, dict(headers or {}))
        self.param = param
        self.code = code


class BadRequest(ServiceError):
    """The request cannot be right."""

    status = 400
    kind = "invalid_request_error"


class ModelNotFound(BadRequest):
    """The model asked for is not among those served."""

    status = 404

    def __init__(self, model: str, known: list[str]) -> None:
        super().__init__(
            f"model: {model!r} is not served here; served: {', '.join(known)}",
            param="model",
            code="model_not_found",
        )


class MediaTooLarge(BadRequest):
    """Too many bytes, or too much time or memory to handle them."""

    status = 413


class UnsupportedMedia(BadRequest):
    """Not an audio file, or one with video."""

    status = 415


class UnprocessableField(BadRequest):
    """A field has a value that is not known here."""

    status = 422


class NotImplementedByModel(ServiceError):
    """The request is right, but no model of this server can do it."""

    status = 501
    kind = "not_supported_error"


class CallerLeft(ServiceError):
    """The caller has closed the connection; raised to stop work for it."""

    status = 499

    def __init__(self) -> None:
        super().__init__("the caller has left")


class Overloaded(ServiceError):
    """Full; ``retry_after`` is in seconds and is rounded up to whole ones (RFC 9110, 10.2.3)."""

    status = 503
    kind = "overloaded_error"

    def __init__(self, retry_after: float) -> None:
        seconds = max(1, math.ceil(retry_after))
        super().__init__(
            f"every slot is busy and the queue is full; try again in {seconds} s",
            code="overloaded",
            headers={"retry-after": str(seconds)},
        )


class Unavailable(ServiceError):
    """The model is not loaded.

    Attributes:
        reason: Why it will not be, or nothing while it may still be.
    """

    status = 503

    def __init__(self, reason: str = "") -> None:
        super().__init__(
            reason or "the model is not loaded",
            code="model_not_ready",
            headers={"retry-after": "60" if reason else "2"},
        )
        self.reason = reason


def error_body(
    message: str, kind: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """An error object in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def body_of(error: Exception) -> dict[str, Any]:
    """The error object for any exception; one that is not ours says nothing about its inside."""
    if isinstance(error, ServiceError):
        return error_body(str(error.detail), error.kind, error.param, error.code)
    return error_body("the server failed to handle the request", "server_error")


def _from_http(error: HTTPException) -> JSONResponse:
    if isinstance(error, ServiceError):
        body = body_of(error)
    else:
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        body = error_body(str(error.detail), kind)
    return JSONResponse(body, error.status_code, headers=error.headers)


def _from_validation(error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in {"body", "query"})
    status = 400 if first["type"] in {"missing", "json_invalid", "model_attributes_type"} else 422
    message = f"{field}: {first['msg']}" if field else str(first["msg"])
    body = error_body(message, "invalid_request_error", field or None)
    return JSONResponse(body, status)


def add_error_handlers(app: FastAPI) -> None:
    """Have every error of ``app`` rendered in OpenAI's shape, without a stack trace."""

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> JSONResponse:
        return _from_http(error)

    @app.exception_handler(RequestValidationError)
    async def _validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return _from_validation(error)

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(body_of(error), 500)
