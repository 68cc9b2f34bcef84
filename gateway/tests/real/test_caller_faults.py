"""What llama.cpp answers with a 500 though the caller is at fault: told to him, counted nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.real.stack import scrape

if TYPE_CHECKING:
    import httpx

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

CHAT = "/v1/chat/completions"
EMBEDDINGS = "/v1/embeddings"
MESSAGES = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "aaaa", "format": "wav"}}
CALLS = [{"role": "assistant", "tool_calls": [{}]}, *MESSAGES]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "smollm2", "messages": MESSAGES, "max_tokens": 1, **fields}


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        pytest.param(chat(tools=[{}]), "Missing tool type", id="tool-without-type"),
        pytest.param(
            chat(tools=[{"type": "function", "function": {}}]), "'name'", id="tool-without-name"
        ),
        pytest.param(chat(messages=CALLS), "Missing tool call type", id="call-without-type"),
        pytest.param(chat(reasoning_format="zz"), "reasoning format", id="reasoning-format"),
        pytest.param(
            chat(json_schema={"type": "object"}, grammar='root ::= "a"'),
            "both json_schema and grammar",
            id="schema-and-grammar",
        ),
        pytest.param(chat(grammar="root ::= ((("), "grammar", id="grammar"),
        pytest.param(
            chat(messages=[{"role": "user", "content": [IMAGE]}]), "cannot do", id="image"
        ),
        pytest.param(
            chat(messages=[{"role": "user", "content": [SOUND]}]), "cannot do", id="sound"
        ),
        pytest.param(chat(model="all-minilm"), "cannot do", id="chat-on-embeddings"),
    ],
)
def test_a_chat_that_cannot_be_is_a_400_and_opens_no_breaker(
    stack: Stack, http: httpx.Client, body: dict[str, Any], says: str, *, stream: bool
) -> None:
    assert_refused(stack, http, CHAT, {**body, "stream": stream}, says)


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        pytest.param(
            EMBEDDINGS,
            {"model": "all-minilm", "input": "word " * 600},
            "too large to process",
            id="embedding-too-long",
        ),
        pytest.param(
            EMBEDDINGS, {"model": "smollm2", "input": "a"}, "cannot do", id="embedding-on-chat"
        ),
        pytest.param(
            "/v1/completions",
            {"model": "smollm2", "prompt": "", "n": 3, "max_tokens": 1},
            "must not be empty",
            id="several-continuations-of-nothing",
        ),
        pytest.param(
            "/v1/rerank",
            {"model": "smollm2", "query": "a", "documents": ["b"]},
            "cannot do",
            id="rerank-on-chat",
        ),
        pytest.param(
            "/v1/audio/speech",
            {"model": "piper", "input": "a\0b", "voice": "alloy"},
            "U+0000",
            id="speech-with-nul",
        ),
    ],
)
def test_a_request_that_cannot_be_is_a_400_and_opens_no_breaker(
    stack: Stack, http: httpx.Client, path: str, body: dict[str, Any], says: str
) -> None:
    assert_refused(stack, http, path, body, says)


def assert_refused(
    stack: Stack, http: httpx.Client, path: str, body: dict[str, Any], says: str
) -> None:
    failures = scrape(stack.url).value("synapse_attempts_total", outcome="server_error")
    for _ in range(6):  # one more than opens a breaker
        answer = http.post(path, json=body)
        assert answer.status_code == 400
        assert says in answer.json()["error"]["message"]
        assert answer.json()["error"].get("code") != 500
    metrics = scrape(stack.url)
    assert metrics.value("synapse_attempts_total", outcome="server_error") == failures
    for backend in ("chat-a", "chat-b", "embeddings", "piper"):
        assert metrics.value("synapse_breaker_state", backend=backend) == 0
