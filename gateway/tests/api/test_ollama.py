"""Ollama's API over HTTP, in front of one that speaks it and one that does not."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Breaker,
    Limits,
    Model,
    Settings,
    Target,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from tests.api.support import until
from tests.exchanges.wire import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.app import Running

HI = [{"role": "user", "content": "hi"}]
TARGETS = {
    "native": (Target(backend="ollama"),),
    "translated": (Target(backend="llama", model="m"),),
    "both": (
        Target(backend="ollama", model="smollm2", weights="w"),
        Target(backend="llama", model="m", order=2, weights="w"),
    ),
}


class Scene:
    """A gateway with an Ollama and a llama.cpp."""

    def __init__(self, running: Running, ollama: FaultyUpstream, llama: FaultyUpstream) -> None:
        self.running = running
        self.ollama = ollama
        self.llama = llama

    async def ask(self, path: str, model: str, **body: Any) -> wire.Answer:
        return await wire.post(self.running.url, path, {"model": model, **body})

    async def get(self, path: str) -> Any:
        answer = await wire.get(self.running.url, path)
        assert answer.status == 200
        return answer.json()

    async def misrouted(self) -> float:
        metrics = await wire.metrics(self.running.url)
        return metrics.value("synapse_attempts_total", outcome="misrouted")


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        ollama, llama = [await stack.enter_async_context(FaultyUpstream()) for _ in range(2)]
        for path, name in (("tags", "tags"), ("ps", "ps_loaded")):
            ollama.probes[f"/api/{path}"] = scripts.probe(load("ollama", name).body)
        ollama.probes["/api/version"] = scripts.probe(b'{"version":"0.17.4"}')
        llama.probes.update(dict.fromkeys(("/props", "/slots", "/metrics"), scripts.probe()))
        backends = {
            "ollama": Backend(url=ollama.url, type=BackendType.OLLAMA, probe_interval=3600.0),
            "llama": Backend(url=llama.url, type=BackendType.LLAMACPP, probe_interval=3600.0),
        }
        settings = Settings(
            auth=AuthMode.ANONYMOUS,
            backends=backends,
            models={name: Model(targets=targets) for name, targets in TARGETS.items()},
            limits=Limits(breaker=Breaker(failures=2)),
        )
        running = await stack.enter_async_context(app.running(settings))
        table = running.runtime.gateway.state.table
        await until(lambda: table.model("both").states[0].backend.models)  # type: ignore[union-attr]
        yield Scene(running, ollama, llama)


def recorded(name: str) -> scripts.Script:
    """Return the script of a recorded answer of Ollama."""
    exchange = load("ollama", name)
    headers = {"content-type": exchange.headers["content-type"]}
    return scripts.status(exchange.status, headers=headers, body=exchange.body)


async def test_an_error_in_ollamas_words_has_headers_of_its_own() -> None:
    async with scene() as stage:
        headers = {"content-type": "text/html", "content-encoding": "gzip"}
        stage.llama.queue(scripts.status(422, headers=headers, body=b"\x1f\x8b not for you"))
        answer = await stage.ask("/api/chat", "translated", messages=HI)
        assert answer.status == 422
        assert answer.header("content-type") == "application/json"
        assert answer.header("content-encoding") is None
        assert answer.json() == {"error": "the model failed to answer"}


@pytest.mark.parametrize("stream", [False, True])
async def test_what_cannot_be_translated_is_passed_on_to_nobody(stream: bool) -> None:
    async with scene() as stage:
        packed = scripts.status(200, headers={"content-encoding": "gzip"}, body=b"\x1f\x8b\x08")
        stage.llama.queue(packed)
        answer = await stage.ask("/api/chat", "translated", messages=HI, stream=stream)
        assert answer.status == 502
        assert "error" in answer.json()


@pytest.mark.parametrize(
    ("body", "elsewhere"),
    [
        pytest.param(b'{"model":"%b","messages":[{"content":"hi"}]}', 400, id="no-role"),
        pytest.param(b'{"Model":"%b","messages":[{"role":"user"}]}', 200, id="letter-case"),
        pytest.param(b'{"model":"%b","messages":[{"role":"user"}]} x', 200, id="trailing"),
    ],
)
async def test_what_ollama_takes_is_taken(body: bytes, elsewhere: int) -> None:
    async with scene() as stage:
        stage.ollama.script = recorded("chat_stream")
        url = stage.running.url
        answer = await wire.exchange(url, "POST", "/api/chat", body=body % b"both")
        assert (answer.status, answer.header("x-synapse-backend")) == (200, "ollama")
        answer = await wire.exchange(url, "POST", "/api/chat", body=body % b"translated")
        assert answer.status == elsewhere


@pytest.mark.parametrize(
    ("path", "body"),
    [
        pytest.param("/api/generate", {"prompt": "a", "context": [1, 2]}, id="context"),
        pytest.param("/api/generate", {"prompt": "a", "suffix": "b"}, id="suffix"),
        pytest.param("/api/generate", {"prompt": "a", "template": "{{ .Prompt }}"}, id="template"),
    ],
)
async def test_what_only_ollama_can_goes_to_no_other(path: str, body: dict[str, Any]) -> None:
    async with scene() as stage:
        stage.ollama.script = scripts.status(503)
        answer = await stage.ask(path, "both", **body)
        assert answer.status in (502, 503)
        assert len(stage.ollama.requests) >= 1
        assert stage.llama.requests == []
        assert await stage.misrouted() == 0


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        pytest.param("/api/generate", {}, "load", id="generate"),
        pytest.param("/api/chat", {"messages": []}, "load", id="chat"),
        pytest.param("/api/chat", {"keep_alive": 0}, "unload", id="unload"),
    ],
)
async def test_loading_succeeds_where_a_fallback_has_it_loaded(
    path: str, body: dict[str, Any], reason: str
) -> None:
    async with scene() as stage:
        stage.ollama.script = scripts.status(503)
        answer = await stage.ask(path, "both", **body)
        assert (answer.status, answer.json()["done_reason"]) == (200, reason)
        assert stage.llama.requests == []
        assert await stage.misrouted() == 0
        stage.ollama.script = recorded("generate_unknown_model")
        assert (await stage.ask(path, "native", **body)).status == 404, "nobody else has it"


async def test_a_text_without_tokens_is_the_callers_fault() -> None:
    async with scene() as stage:
        stage.ollama.script = recorded("embed_no_input")
        for _ in range(3):
            answer = await stage.ask("/api/embed", "native", input=["a", ""])
            assert answer.status == 400
            assert "no input provided" in answer.json()["error"]
        assert len(stage.ollama.requests) == 3, "the breaker stays closed"


async def test_a_tool_call_that_is_cut_short_is_no_fault_of_the_backend() -> None:
    call = {"function": {"name": "weather", "arguments": '{"city": "Par'}, "type": "function"}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "length"}]}
    async with scene() as stage:
        stage.llama.script = scripts.status(200, body=json.dumps(body).encode())
        for _ in range(3):
            answer = await stage.ask("/api/chat", "translated", messages=HI, stream=False)
            assert answer.status == 200
            told = answer.json()
            assert told["message"]["content"] == '{"name": "weather", "arguments": {"city": "Par'
            assert told["done_reason"] == "length"


async def test_the_command_line_of_ollama_finds_it() -> None:
    async with scene() as stage:
        recorded_root = load("ollama", "root")
        for method in ("GET", "HEAD"):
            answer = await wire.exchange(stage.running.url, method, "/")
            assert answer.status == recorded_root.status
            assert answer.body == (recorded_root.body if method == "GET" else b"")


async def test_the_lists_tell_what_ollama_tells() -> None:
    said = {model["name"]: model for model in load("ollama", "tags").json()["models"]}
    [running] = load("ollama", "ps_loaded").json()["models"]
    async with scene() as stage:
        listed = {model["name"]: model for model in (await stage.get("/api/tags"))["models"]}
        assert "smollm2:latest" not in listed, "it is the target of `both`"
        for name in ("both", "smollm2-tools:latest"):
            original = said["smollm2:latest" if name == "both" else name]
            assert listed[name] == {**original, "name": name, "model": name}
        [loaded] = [m for m in (await stage.get("/api/ps"))["models"] if m["name"] == "both"]
        assert loaded == {**running, "name": "both", "model": "both"}


@pytest.mark.parametrize("name", ["smollm2-tools", "smollm2-tools:latest"])
async def test_a_discovered_model_needs_no_tag(name: str) -> None:
    async with scene() as stage:
        stage.ollama.script = recorded("chat")
        answer = await stage.ask("/api/chat", name, messages=HI, stream=False)
        assert answer.status == 200
        assert stage.ollama.requests[-1].model == "smollm2-tools:latest"


async def test_a_description_of_too_much_is_asked_for() -> None:
    async with scene() as stage:
        answer = await stage.ask("/api/show", "x" * 70_000)
        assert answer.status == 413
