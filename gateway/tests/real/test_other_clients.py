"""The official `anthropic` and `ollama` clients and plain curl, in front of real llama.cpp."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def claude(stack: Stack) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stack.url, api_key="sk-full", max_retries=0) as client:
        yield client


def test_anthropics_client_gets_a_message(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="smollm2", messages=QUESTION, max_tokens=16, extra_body={"temperature": 0}
    )
    assert answer.content[0].type == "text"
    assert len(answer.content[0].text) > 10
    assert answer.usage.output_tokens > 1


def test_anthropics_client_streams(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(model="smollm2", messages=QUESTION, max_tokens=5) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert final.content[0].type == "text"
    assert "".join(pieces) == final.content[0].text
    assert final.stop_reason == "max_tokens"


def test_anthropics_client_counts_tokens(claude: anthropic.Anthropic) -> None:
    assert claude.messages.count_tokens(model="smollm2", messages=QUESTION).input_tokens > 5


def test_anthropics_client_gets_typed_errors(stack: Stack, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        claude.messages.create(model="claude-9", messages=QUESTION, max_tokens=1)
    assert caught.value.body["type"] == "error"  # type: ignore[index]  # what Anthropic's API has
    with (
        anthropic.Anthropic(base_url=stack.url, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(anthropic.AuthenticationError),
    ):
        stranger.messages.create(model="smollm2", messages=QUESTION, max_tokens=1)


@pytest.fixture
def llama(stack: Stack) -> Iterator[ollama.Client]:
    client = ollama.Client(host=stack.ollama_url, headers={"authorization": "Bearer sk-full"})
    yield client
    client.close()  # type: ignore[no-untyped-call]


def test_ollamas_client_chats_streams_and_embeds(llama: ollama.Client) -> None:
    options = {"temperature": 0, "num_predict": 8}
    whole = llama.chat("smollm2", QUESTION, options=options)
    *pieces, last = llama.chat("smollm2", QUESTION, options=options, stream=True)
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert last.done
    assert len(llama.embed("all-minilm", "a river").embeddings[0]) == 384
    assert "smollm2" in {model.model for model in llama.list().models}


def test_ollamas_client_gets_a_response_error(llama: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        llama.chat("nothing", QUESTION)
    assert caught.value.status_code == 404


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        pytest.skip("curl is not installed")
    return found


def run(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    return done.stdout


def test_curl_without_a_content_type_of_its_own_is_understood(stack: Stack, curl: str) -> None:
    body = json.dumps({"model": "smollm2", "messages": QUESTION, "max_tokens": 2})
    said = run(
        curl, "-sS", f"{stack.url}/v1/chat/completions", "-H", "X-API-Key: sk-full", "-d", body
    )
    assert json.loads(said)["choices"][0]["message"]["content"]


def test_curl_sees_every_event_of_a_stream(stack: Stack, curl: str) -> None:
    body = json.dumps({"model": "smollm2", "messages": QUESTION, "max_tokens": 3, "stream": True})
    said = run(
        curl, "-sSN", f"{stack.url}/v1/chat/completions",
        "-H", "Authorization: Bearer sk-full", "-H", "Content-Type: application/json", "-d", body,
    )  # fmt: skip
    events = [line.removeprefix("data: ") for line in said.splitlines() if line]
    assert events[-1] == "[DONE]"
    assert len(events) >= 4


def test_curl_may_wait_for_a_continue_before_it_sends(stack: Stack, curl: str) -> None:
    body = json.dumps({"model": "smollm2", "messages": QUESTION, "max_tokens": 1, "x": "y" * 5000})
    said = run(
        curl, "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"{stack.url}/v1/chat/completions",
        "-H", "Authorization: Bearer sk-full", "-H", "Expect: 100-continue",
        "-H", "Content-Type: application/json", "-d", body,
    )  # fmt: skip
    assert said == "200"
