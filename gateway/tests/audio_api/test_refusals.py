from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.audio_api.refusals import refusal

NAMES = {"input": "text"}


@pytest.mark.parametrize(
    ("body", "message", "param", "code"),
    [
        (
            {"error": {"message": "input: too long", "param": "input", "code": "long"}},
            "text: too long",
            "text",
            "long",
        ),
        ({"error": {"message": "too long", "param": "file"}}, "too long", "file", None),
        ({"error": "no"}, "no", None, None),
        ({"detail": "Voice file 'x' not found."}, "Voice file 'x' not found.", None, None),
        (
            {"detail": [{"loc": ["body", "input"], "msg": "is missing"}]},
            "text: is missing",
            "text",
            None,
        ),
        ({"detail": [{"loc": [], "msg": "is wrong"}]}, "is wrong", None, None),
        ({"detail": []}, "The backend refused the request.", None, None),
        ({"error": {"message": 5, "param": 5}}, "The backend refused the request.", None, None),
        ([], "The backend refused the request.", None, None),
    ],
)
def test_a_refusal_of_any_shape_becomes_the_contracts(
    body: object, message: str, param: str | None, code: str | None
) -> None:
    assert json.loads(refusal(json.dumps(body).encode(), NAMES)) == {
        "error": {
            "message": message,
            "type": "invalid_request_error",
            "param": param,
            "code": code,
        }
    }


@given(body=st.binary(max_size=100))
def test_any_bytes_are_a_refusal(body: bytes) -> None:
    assert json.loads(refusal(body, NAMES))["error"]["message"]
