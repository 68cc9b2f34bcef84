"""What is taken out of text, and what is left."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.errors import ConfigError
from synapse_gateway.telemetry.redact import Redactor

SECRET = "sk-proj-Zm9vYmFyYmF6cXV4"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"Authorization: Bearer {SECRET}", "Authorization: ***"),
        (f"authorization: {SECRET}", "authorization: ***"),
        (f'{{"Authorization": "Bearer {SECRET}", "a": 1}}', '{"Authorization": "***", "a": 1}'),
        (f"(b'authorization', b'Bearer {SECRET}')", "(b'authorization', b'***')"),
        ("Proxy-Authorization: Basic dXNlcjpwYXNz, next", "Proxy-Authorization: ***, next"),
        ("got Bearer abc.def-ghi~1+/= from it", "got Bearer *** from it"),
        ("Cookie: synapse_dash_token=abc; other=1", "Cookie: ***"),
        ("X-API-Key: abc\r\nHost: here", "X-API-Key: ***\r\nHost: here"),
        (f"key {SECRET} is wrong", "key *** is wrong"),
        ("GET /dashboard/login?access_token=abc&x=1", "GET /dashboard/login?access_token=***&x=1"),
        ("GET /ws?ws_auth_key=abc HTTP/1.1", "GET /ws?ws_auth_key=*** HTTP/1.1"),
        ('{"api_key": "abc", "model": "m"}', '{"api_key": "***", "model": "m"}'),
        ("OPENAI_API_KEY=abc", "OPENAI_API_KEY=***"),
        ("password=hunter2 user=me", "password=*** user=me"),
        ("redis://:hunter2@redis:6379/0", "redis://***@redis:6379/0"),
        ("https://me:hunter2@host/x", "https://***@host/x"),
        ("token hf_abcdefghijklmnop", "token ***"),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
    ],
)
def test_credentials_are_masked_and_the_rest_stays(text: str, left: str) -> None:
    assert Redactor()(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "POST /v1/chat/completions 200 in 12 ms",
        "the key 'app' has used the 500 tokens allowed per minute",
        "tokens_per_minute: 500, max_tokens=12",
        "first_token: 60",
        "http://vllm-inference:8001/v1",
        "risk-averse task-force",
        "bearer",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert Redactor()(text) == text


def test_patterns_of_ones_own_are_masked_too() -> None:
    redact = Redactor.from_environ(
        {"SYNAPSE_TERMINAL_FEED_REDACT_EXTRA_PATTERNS": r"cust-\d+||(?i)project \w+"}
    )
    assert redact("cust-4711 asked for Project Falcon") == "*** asked for ***"


def test_without_patterns_in_the_environment_the_usual_ones_hold() -> None:
    assert Redactor.from_environ({})(f"x {SECRET}") == "x ***"


def test_a_pattern_that_is_none_is_named() -> None:
    with pytest.raises(
        ConfigError, match=r"REDACT_EXTRA_PATTERNS: '\(' is not a regular expression"
    ):
        Redactor(["("])


@given(st.text(), st.text())
def test_a_key_never_comes_through_whatever_is_around_it(before: str, after: str) -> None:
    assert SECRET not in Redactor()(f"{before} {SECRET} {after}")
    assert SECRET not in Redactor()(f"{before}Bearer {SECRET}{after}")
