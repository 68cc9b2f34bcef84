"""Every error of the gateway, as a tree.

SynapseError
├── ConfigError                 a configuration that cannot be used
├── RequestError                the caller's, or shown to him as it is; never retried
│   ├── InvalidRequest          400
│   ├── Unauthorized            401
│   ├── Forbidden               403
│   ├── ModelNotFound           404
│   ├── VoiceNotFound           404
│   ├── RouteNotFound           404
│   ├── MethodNotAllowed        405
│   ├── RequestTimeout          408
│   ├── TooLarge                413
│   ├── UnsupportedMedia        415
│   ├── Unprocessable           422
│   ├── RateLimited             429, Retry-After
│   ├── NotSupported            501
│   ├── BadGateway              502
│   ├── Unavailable             503, Retry-After
│   └── GatewayTimeout          504
└── (what an attempt met is no exception but a `routing.outcome.Outcome`)

`RequestError` is rendered in one place, `api.errors`: as an answer, or in band in a stream.
"""

from __future__ import annotations

from typing import Any


class SynapseError(Exception):
    """Base of all errors of the gateway."""


class ConfigError(SynapseError):
    """A configuration that cannot be used; the text names place, fault and remedy, a line each."""


class RequestError(SynapseError):
    """An error answer; rendered as an OpenAI error object.

    Attributes:
        status: HTTP status.
        kind: `type` of the error object.
        message: A sentence for the caller; never holds a backend's address.
        param: The field at fault, if one is.
        code: Machine-readable reason.
        retry_after: Seconds after which a repetition may succeed.
    """

    status = 500
    kind = "api_error"
    default_code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.retry_after = retry_after

    def as_object(self) -> dict[str, Any]:
        """Return the value of `error` in an OpenAI error object."""
        return {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }


class InvalidRequest(RequestError):
    """The request is malformed."""

    status = 400
    kind = "invalid_request_error"


class Unauthorized(RequestError):
    """No key, or an unknown one."""

    status = 401
    kind = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(RequestError):
    """The key may not do this."""

    status = 403
    kind = "permission_error"
    default_code = "forbidden"


class ModelNotFound(RequestError):
    """No such model, or none that this key may see."""

    status = 404
    kind = "invalid_request_error"
    default_code = "model_not_found"


class VoiceNotFound(RequestError):
    """No such voice in the library."""

    status = 404
    kind = "invalid_request_error"
    default_code = "voice_not_found"


class RouteNotFound(RequestError):
    """No such path."""

    status = 404
    kind = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(RequestError):
    """The path exists, but not with this method."""

    status = 405
    kind = "invalid_request_error"
    default_code = "method_not_allowed"


class RequestTimeout(RequestError):
    """The caller stopped within his request."""

    status = 408
    kind = "invalid_request_error"
    default_code = "request_timeout"


class TooLarge(RequestError):
    """The body is larger than the limit."""

    status = 413
    kind = "invalid_request_error"
    default_code = "request_too_large"


class UnsupportedMedia(RequestError):
    """The body is of a type that the route does not take."""

    status = 415
    kind = "invalid_request_error"
    default_code = "unsupported_media_type"


class Unprocessable(RequestError):
    """A field has a value that cannot be."""

    status = 422
    kind = "invalid_request_error"
    default_code = "invalid_value"


class RateLimited(RequestError):
    """The caller's own limit is reached."""

    status = 429
    kind = "rate_limit_error"
    default_code = "rate_limit_exceeded"


class NotSupported(RequestError):
    """No backend of this deployment can do it."""

    status = 501
    kind = "not_supported_error"
    default_code = "not_supported"


class BadGateway(RequestError):
    """Every backend that was tried answered wrongly."""

    status = 502
    kind = "api_error"
    default_code = "bad_gateway"


class Unavailable(RequestError):
    """No backend is available, or every one is full."""

    status = 503
    kind = "service_unavailable_error"
    default_code = "unavailable"


class GatewayTimeout(RequestError):
    """The backends did not answer in time."""

    status = 504
    kind = "timeout_error"
    default_code = "timeout"
