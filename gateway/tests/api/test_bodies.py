from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from synapse_gateway.api import bodies
from synapse_gateway.errors import InvalidRequest

MESSAGES = [{"role": "user", "content": "hi"}]


def wrong(kind: type[msgspec.Struct], body: object) -> InvalidRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidRequest) as caught:
        bodies.parse(kind, raw)
    return caught.value


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        pytest.param(b"{", None, "invalid_json", id="half"),
        pytest.param(b'{"model": "\xff"}', None, "invalid_json", id="not-utf-8"),
        pytest.param(b"", None, "invalid_json", id="nothing"),
        pytest.param([], None, "invalid_type", id="list"),
        pytest.param({}, "messages", "missing_field", id="no-messages"),
        pytest.param({"messages": []}, "messages", "invalid_type", id="no-message"),
        pytest.param({"messages": "hi"}, "messages", "invalid_type", id="text"),
        pytest.param({"messages": [{}]}, "messages[0]", "invalid_type", id="no-role"),
        pytest.param({"messages": MESSAGES, "model": 7}, "model", "invalid_type", id="model"),
        pytest.param({"messages": MESSAGES, "n": 0}, "n", "invalid_type", id="n"),
        pytest.param(
            {"messages": MESSAGES, "stream": "yes"}, "stream", "invalid_type", id="stream"
        ),
    ],
)
def test_a_wrong_field_is_named(body: object, param: str | None, code: str) -> None:
    error = wrong(bodies.Chat, body)
    assert (error.param, error.code) == (param, code)
    if param is not None:
        assert error.message.startswith(f"{param}: ")


def test_a_body_nested_too_deeply_is_refused() -> None:
    deep = b'{"messages": [{"role": "u", "tool_calls": [' + b"[" * 100_000
    assert wrong(bodies.Chat, deep).code in {"invalid_json", "invalid_type"}


@given(body=st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for kind in bodies.REQUIRED:
        with contextlib.suppress(InvalidRequest):
            assert isinstance(bodies.parse(kind, body), kind)


def test_every_kind_has_what_it_requires() -> None:
    for kind, required in bodies.REQUIRED.items():
        for name in required:
            assert wrong(kind, {}).param == required[0]
            assert name in kind.__struct_fields__


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hi", ("hi", False)),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], ("a\nb", False)),
        ([{"type": "image_url", "image_url": {}}, {"type": "text", "text": "a"}], ("a", True)),
        ([{"type": "input_image"}], ("", True)),
        ([{"type": "text", "text": 7}, "odd"], ("", False)),
        (None, ("", False)),
        (7, ("", False)),
    ],
)
def test_the_text_of_a_message(content: Any, expected: tuple[str, bool]) -> None:
    assert bodies.text_of(Raw(json.dumps(content).encode())) == expected


def test_a_message_may_have_no_content() -> None:
    assert bodies.text_of(UNSET) == bodies.text_of(None) == ("", False)


def test_fields_are_set_and_all_else_stays() -> None:
    body = b'{"b": 1.50, "model": "x",  "a": [1, 2 ]}'
    changed = bodies.with_fields(body, {"model": "y", "stream": True})
    assert changed == b'{"b":1.50,"model":"y","a":[1, 2 ],"stream":true}'
    with pytest.raises(msgspec.DecodeError):
        bodies.with_fields(b"[", {"model": "y"})


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"model":"in","choices":[]}', '{"model":"out","choices":[]}'),
        ('{"input_tokens":3}', '{"input_tokens":3}'),
        ('{"type":"ping"}', '{"type":"ping"}'),
        (
            '{"type":"message_start","message":{"id":"1","model":"in"}}',
            '{"type":"message_start","message":{"id":"1","model":"out"}}',
        ),
        ('{"response":{"model":"in"}}', '{"response":{"model":"out"}}'),
        ('{"response":{},"message":"model"}', '{"response":{},"message":"model"}'),
    ],
)
def test_an_answer_is_renamed_where_its_api_has_the_name(body: str, expected: str) -> None:
    assert bodies.renamed(body.encode(), "out") == expected.encode()


@pytest.mark.parametrize(
    ("body", "options"),
    [
        (b"{}", {}),
        (b'{"stream_options": null}', {}),
        (
            b'{"stream_options": {"include_usage": false, "own": [1]}}',
            {"include_usage": False, "own": [1]},
        ),
    ],
)
def test_a_backends_own_stream_options_are_kept(body: bytes, options: dict[str, Any]) -> None:
    assert bodies.stream_options(body) == options
