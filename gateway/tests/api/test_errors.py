from __future__ import annotations

import json

import pytest

from synapse_gateway import errors
from synapse_gateway.api.errors import render


def leaves(kind: type[errors.RequestError]) -> list[type[errors.RequestError]]:
    below = kind.__subclasses__()
    return [leaf for each in below for leaf in leaves(each)] if below else [kind]


STATUSES = {
    "InvalidRequest": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "ModelNotFound": 404,
    "VoiceNotFound": 404,
    "RouteNotFound": 404,
    "MethodNotAllowed": 405,
    "RequestTimeout": 408,
    "TooLarge": 413,
    "UnsupportedMedia": 415,
    "Unprocessable": 422,
    "RateLimited": 429,
    "NotSupported": 501,
    "BadGateway": 502,
    "Unavailable": 503,
    "GatewayTimeout": 504,
}


@pytest.mark.parametrize("kind", leaves(errors.RequestError), ids=lambda kind: kind.__name__)
def test_every_error_has_openais_shape(kind: type[errors.RequestError]) -> None:
    status, headers, body = render(kind("m", param="p", code="c"), "/v1/chat/completions")
    assert status == STATUSES[kind.__name__]
    assert json.loads(body) == {
        "error": {"message": "m", "type": kind.kind, "param": "p", "code": "c"}
    }
    assert (b"content-type", b"application/json") in headers
    assert ((b"www-authenticate", b"Bearer") in headers) is (status == 401)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/chat", {"error": "m"}),
        (
            "/v1/messages",
            {
                "type": "error",
                "error": {
                    "message": "m",
                    "type": "api_error",
                    "param": None,
                    "code": "bad_gateway",
                },
            },
        ),
    ],
)
def test_each_api_has_its_own_shape(path: str, body: object) -> None:
    assert json.loads(render(errors.BadGateway("m"), path)[2]) == body


@pytest.mark.parametrize(("seconds", "header"), [(0.2, b"1"), (7.0, b"7"), (7.01, b"8")])
def test_retry_after_is_whole_seconds_and_never_too_short(seconds: float, header: bytes) -> None:
    _, headers, _ = render(errors.Unavailable("m", retry_after=seconds), "/")
    assert (b"retry-after", header) in headers
