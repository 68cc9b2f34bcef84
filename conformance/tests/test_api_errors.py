"""Bad input: a clear error that names the field, never a 5xx, never an address."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import openai
import pytest
from conformance.suite.gateway import CHAT, EMBEDDINGS, QUESTION, error_of
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

CHATS = "/v1/chat/completions"
BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"temperature": "hot"}, "temperature"),
    ({"max_tokens": -1}, "max_tokens"),
    ({"n": 10**9}, "n"),
    ({"messages": []}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages[0]"),
    ({"messages": "hi"}, "messages"),
    ({"stream": "yes"}, "stream"),
    ({"top_logprobs": 99}, "top_logprobs"),
]
NASTY = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"model": "\xff"}',
    b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    b'{"messages": [{"role": "user", "content": NaN}]}',
    b'{"temperature": 1e999, "messages": [{"role": "user", "content": "a"}]}',
    b'{"model": ["smollm2"], "messages": {"role": 7}}',
    b'{"messages": [{"role": "user", "content": {"a": [1, null, {}]}}]}',
    b'{"input": [[], {}, null], "prompt": {"a": 1}, "text": 7, "file": 1}',
]


@line("api.errors.fields", "A bad field is a 400 that names it")
def test_bad_fields(gateway: Gateway, evidence: Evidence) -> None:
    model = gateway.model(CHAT)
    for change, param in BAD_FIELDS:
        with pytest.raises(openai.BadRequestError) as caught:
            gateway.openai.chat.completions.create(
                **{"model": model, "messages": QUESTION, "max_tokens": 1, **change}
            )
        assert caught.value.param == param, f"{change}: param is {caught.value.param}"
        assert param in caught.value.message, f"{change}: {caught.value.message}"
    evidence("fields", len(BAD_FIELDS))


@line("api.errors.nasty", "No body, however broken, is a 5xx")
def test_nasty_bodies(gateway: Gateway, evidence: Evidence) -> None:
    paths = [path for path, operations in gateway.paths.items() if "post" in operations]
    for path in paths:
        for body in NASTY:
            answer = gateway.http.post(
                path, content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code < 500 or answer.status_code == 501, (
                f"{path} answers {answer.status_code} to {body[:60]!r}: {answer.text[:200]}"
            )
    evidence("requests", len(paths) * len(NASTY))


@line(
    "api.errors.routes", "What is not there is a 404, another method a 405 that says which is right"
)
def test_wrong_paths_and_methods(gateway: Gateway) -> None:
    answer = gateway.http.get("/v1/no-such-route")
    assert answer.status_code == 404
    error_of(answer)
    answer = gateway.http.get(CHATS)
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]
    error_of(answer)


@line("api.errors.media", "A body of another kind than the route takes is a 415 or a 400")
def test_wrong_media(gateway: Gateway) -> None:
    gateway.need(CHATS)
    answer = gateway.http.post(
        CHATS, content=b"<chat/>", headers={"content-type": "application/xml"}
    )
    assert answer.status_code in (400, 415)
    error_of(answer)


@line("api.errors.size", "A body that is too large is a 413, before it is sent")
def test_a_body_that_is_too_large(gateway: Gateway, evidence: Evidence) -> None:
    parts = urlsplit(gateway.url)
    if parts.scheme != "http":
        raise NotSupported("the URL is not plain http: a proxy in front decides on sizes")
    head = (
        f"POST {CHATS} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {gateway.key}\r\ncontent-length: {10**11}\r\n\r\n"
    )
    with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=20) as raw:
        raw.sendall(head.encode())
        answer = raw.recv(65536).decode(errors="replace")
    evidence("answer", answer.splitlines()[0] if answer else "none")
    assert answer.startswith("HTTP/1.1 413"), answer[:200]


@line("api.errors.context", "A prompt that does not fit is a 400 that says so")
def test_a_prompt_that_is_too_long(gateway: Gateway, evidence: Evidence) -> None:
    model = gateway.model(CHAT)
    length = 0
    for length in (20_000, 400_000):
        answer = gateway.http.post(
            CHATS,
            json={
                "model": model,
                "messages": [{"role": "user", "content": "word " * length}],
                "max_tokens": 1,
            },
        )
        if answer.status_code != 200:
            break
    else:
        raise NotSupported(f"{model} takes {length} words")
    assert answer.status_code == 400, f"{answer.status_code}: {answer.text[:200]}"
    evidence("words", length)
    # the backend's own words, as the failover table has it
    evidence("error", answer.json()["error"]["message"][:120])


@line("api.errors.capability", "A model that cannot do what is asked says so")
def test_a_model_that_cannot(gateway: Gateway, evidence: Evidence) -> None:
    model = gateway.model(EMBEDDINGS)
    answer = gateway.http.post(CHATS, json={"model": model, "messages": QUESTION})
    assert answer.status_code in (400, 501), answer.text
    error = error_of(answer)
    assert model in error["message"] or error["code"], error
    evidence("error", error["message"][:120])
