"""Keys and limits from outside: what each caller sees, may do, and is told when he may not."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

from tests.real.stack import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

CHAT = "/v1/chat/completions"
MESSAGES: list[Any] = [{"role": "user", "content": "hi"}]
BODY: dict[str, Any] = {"model": "smollm2", "messages": MESSAGES, "max_tokens": 1}


@pytest.fixture
def anybody(stack: Stack) -> Iterator[httpx.Client]:
    """A caller with no key."""
    with httpx.Client(base_url=stack.url, timeout=60) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer sk-nobody"},
        {"authorization": "Basic c2stZnVsbDo="},
        {"authorization": "sk-full"},
        {"x-api-key": "sk-nobody"},
        {"x-api-key": ""},
        {"authorization": b"Bearer \xff\xfe"},
        {"x-api-key": "schlüssel".encode()},
        {"authorization": "Bearer " + "x" * 30000},
    ],
    ids=["none", "empty", "wrong", "basic", "bare", "header", "empty-header", "bytes", "utf-8",
         "long"],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/api/chat", "/v1/messages"])
def test_a_caller_without_a_good_key_is_told_so(
    anybody: httpx.Client, path: str, headers: dict[str, Any]
) -> None:
    method = "GET" if path == "/v1/models" else "POST"
    answer = anybody.request(method, path, json=BODY, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    error = answer.json()["error"]
    message = error if path == "/api/chat" else error["message"]
    assert "key" in message
    assert "sk-" not in message
    if path != "/api/chat":
        none_sent = not any(headers.values())
        code = "missing_api_key" if none_sent else "invalid_api_key"
        assert (error["type"], error["code"]) == ("authentication_error", code)


@pytest.mark.parametrize("headers", [{"x-api-key": "sk-full"}, {"authorization": "bearer sk-full"}])
def test_a_key_may_come_in_either_header(anybody: httpx.Client, headers: dict[str, str]) -> None:
    assert anybody.post(CHAT, json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics", "/openapi.json"])
def test_what_machines_ask_needs_no_key_and_names_no_address(
    anybody: httpx.Client, path: str
) -> None:
    answer = anybody.get(path)
    assert answer.status_code == 200
    assert "http://127.0.0.1" not in answer.text


def test_a_restricted_key_sees_and_calls_its_models_only(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-small", max_retries=0) as small:
        assert [model.id for model in small.models.list()] == ["smollm2"]
        assert small.chat.completions.create(**BODY).choices
        with pytest.raises(openai.NotFoundError) as caught:
            small.embeddings.create(model="all-minilm", input="a")
        with pytest.raises(openai.NotFoundError):
            small.models.retrieve("all-minilm")
        with pytest.raises(openai.NotFoundError) as unknown:
            small.embeddings.create(model="no-such", input="a")
    # what exists and is not his reads like what does not exist
    assert caught.value.message.replace("all-minilm", "no-such") == unknown.value.message


def test_the_same_holds_for_ollamas_api(stack: Stack) -> None:
    headers = {"authorization": "Bearer sk-small"}
    with httpx.Client(base_url=stack.ollama_url, headers=headers, timeout=60) as small:
        names = {model["name"] for model in small.get("/api/tags").json()["models"]}
        assert {name.removesuffix(":latest") for name in names} == {"smollm2"}
        assert (
            small.post("/api/embed", json={"model": "all-minilm", "input": "a"}).status_code == 404
        )
        assert small.post("/api/show", json={"model": "all-minilm"}).status_code == 404


@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_a_second_model_in_other_letters_does_not_slip_through(
    anybody: httpx.Client, path: str
) -> None:
    body = {**BODY, "Model": "all-minilm"}
    answer = anybody.post(path, json=body, headers={"x-api-key": "sk-small"})
    assert answer.status_code == 400
    assert "Model: " in answer.text


def test_requests_a_minute_end_with_a_429_and_the_time_to_come_back(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-few", max_retries=0) as few:
        for _ in range(2):
            few.chat.completions.create(**BODY)
        with pytest.raises(openai.RateLimitError) as caught:
            few.chat.completions.create(**BODY)
    assert caught.value.type == "rate_limit_error"
    # a minute slides in steps of some seconds
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 65
    assert "requests" in caught.value.message


def test_tokens_a_minute_count_prompt_and_answer(stack: Stack) -> None:
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-sparing", max_retries=0) as sparing:
        with sparing.chat.completions.create(**BODY, stream=True) as stream:
            assert list(stream)  # about 32 tokens, of which the backend tells unasked
        with pytest.raises(openai.RateLimitError, match="tokens"):
            sparing.chat.completions.create(**BODY)


def test_concurrency_is_bounded_and_a_freed_place_serves_again(stack: Stack) -> None:
    headers = {"authorization": "Bearer sk-single"}
    long = {**BODY, "max_tokens": 1000, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as single:
        with ExitStack() as under_way:
            first = under_way.enter_context(single.stream("POST", CHAT, json=long))
            assert first.status_code == 200
            refused = single.post(CHAT, json=BODY)
            assert refused.status_code == 429
            assert refused.json()["error"]["type"] == "rate_limit_error"
            assert int(refused.headers["retry-after"]) >= 1
        answers = (single.post(CHAT, json=BODY).status_code for _ in range(50))
        assert 200 in answers


def test_anonymous_callers_are_served_where_that_was_chosen(stack: Stack) -> None:
    settings = stack.settings() | {"auth": "anonymous"}
    settings["limits"]["anonymous"] = {"models": ["smollm2"]}
    url = stack.gateway(settings).url
    assert httpx.post(url + CHAT, json=BODY, timeout=60).status_code == 200
    assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["smollm2"]
    # a client library that must send some key is as good as one without
    some_key = {"authorization": "Bearer not-needed"}
    assert httpx.post(url + CHAT, json=BODY, headers=some_key, timeout=60).status_code == 200


def test_serving_without_keys_is_refused_and_both_ways_out_are_named(tmp_path: Path) -> None:
    config = tmp_path / "synapse.yaml"
    config.write_text("backends: {one: {url: 'http://127.0.0.1:9'}}\n", encoding="utf-8")
    done = subprocess.run(  # noqa: S603
        [
            *(sys.executable, "-m", "synapse_gateway", "serve"),
            *("--config", str(config), "--host", "0.0.0.0", "--port", str(free_port())),  # noqa: S104
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT / "gateway")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "SYNAPSE_API_KEYS" in done.stderr
    assert "auth: anonymous" in done.stderr
    assert "Traceback" not in done.stderr
