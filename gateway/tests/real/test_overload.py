"""An engine that is busy with others' work is passed over before it refuses or makes anybody wait.

Real llama.cpp, whose slots a second client fills; what vLLM and Ollama tell of their load is served
from recorded exchanges.
"""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Device,
    Model,
    Settings,
    Target,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from tests.exchanges.wire import load
from tests.real.stack import scrape, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.testing.scripts import Script
    from tests.real.stack import Stack

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Write a long story about a river."}]


@pytest.mark.real
@pytest.mark.slow
def test_llama_cpp_with_all_slots_taken_by_others_is_passed_over(
    stack: Stack, http: httpx.Client
) -> None:
    first = stack.backends["chat-a"]
    body = {"messages": MESSAGES, "max_tokens": 900, "ignore_eos": True, "stream": True}
    with ExitStack() as others, httpx.Client(timeout=120) as second_client:
        streams = [
            others.enter_context(second_client.stream("POST", first.url + CHAT, json=body))
            for _ in range(4)
        ]
        until(lambda: busy(first.url), "the slots do not fill")

        answer = until(lambda: served_elsewhere(http), "the first order still serves")

        assert answer.headers["x-synapse-backend"] == "chat-b"
        assert answer.headers["x-synapse-fallback"] == "overloaded"
        assert answer.headers["x-synapse-attempts"] == "1"
        # the first one has refused nobody: all of its own callers are still being served
        assert [stream.status_code for stream in streams] == [200] * 4
        assert busy(first.url)
    until(lambda: None if busy(first.url) else True, "the slots do not empty")
    until(lambda: None if served_elsewhere(http) else True, "the first order does not come back")


def busy(url: str) -> bool | None:
    return True if scrape(url).value("llamacpp:requests_processing") == 4 else None


def served_elsewhere(http: httpx.Client) -> httpx.Response | None:
    """Send a request; None while the first order still takes it (it then waits for a slot)."""
    body = {"model": "smollm2", "messages": MESSAGES, "max_tokens": 1}
    try:
        answer = http.post(CHAT, json=body, timeout=5)
    except httpx.ReadTimeout:
        return None
    assert answer.status_code == 200
    return answer if answer.headers["x-synapse-backend"] != "chat-a" else None


@asynccontextmanager
async def engine_first(
    kind: BackendType, model: str, probes: dict[str, Script]
) -> AsyncIterator[tuple[FaultyUpstream, str]]:
    """A gateway with an engine in order 1 that answers probes with `probes`."""
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(FaultyUpstream())
        engine.probes.update(probes)
        other = await stack.enter_async_context(FaultyUpstream())
        settings = Settings(
            auth=AuthMode.ANONYMOUS,
            backends={
                "engine": Backend(url=engine.url, type=kind, device=Device.GPU, probe_interval=0.1),
                "cpu": Backend(url=other.url, device=Device.CPU),
            },
            models={
                "m": Model(
                    targets=(
                        Target(backend="engine", model=model),
                        Target(backend="cpu", order=2),
                    )
                )
            },
        )
        gateway = await stack.enter_async_context(app.running(settings))
        yield engine, gateway.url


async def ask(url: str) -> wire.Answer:
    return await wire.post(url, CHAT, {"model": "m", "messages": MESSAGES})


async def ask_until_from(url: str, backend: str) -> wire.Answer:
    """Ask until a probe has been read; bounded by the number of requests."""
    for _ in range(500):
        answer = await ask(url)
        if answer.header("x-synapse-backend") == backend:
            return answer
    raise AssertionError(f"{backend} never answers")


def recorded(server: str, name: str, *changes: tuple[str, str]) -> Script:
    """Serve a recorded answer, with some of its figures changed."""
    exchange = load(server, name)
    text = exchange.body.decode()
    for old, new in changes:
        assert old in text, f"the recording has no {old!r}"
        text = text.replace(old, new)
    kind = exchange.headers.get("content-type", "text/plain")
    return scripts.raw(scripts.sized(200, text.encode(), {"content-type": kind}))


QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
WAITING = 'vllm:num_requests_waiting{engine="0",model_name="' + QWEN + '"} '


async def test_vllm_whose_requests_wait_is_passed_over_until_none_does() -> None:
    probes = {
        "/health": scripts.status(200, body=b""),
        "/v1/models": recorded("vllm", "v1_models"),
        "/metrics": recorded("vllm", "metrics"),
        "/is_sleeping": scripts.status(404),
        "/version": recorded("vllm", "version"),
    }
    async with engine_first(BackendType.VLLM, QWEN, probes) as (engine, url):
        passed_over = await ask(url)
        assert passed_over.header("x-synapse-backend") == "cpu"
        assert passed_over.header("x-synapse-fallback") == "overloaded"
        assert engine.requests == []

        engine.probes["/metrics"] = recorded("vllm", "metrics", (WAITING + "5.0", WAITING + "0.0"))
        served = await ask_until_from(url, "engine")
        assert served.header("x-synapse-fallback") is None


async def test_an_ollama_model_that_fell_to_the_cpu_is_passed_over_until_it_is_back() -> None:
    probes = {
        "/api/version": recorded("ollama", "version"),
        "/api/tags": recorded("ollama", "tags"),
        "/api/ps": recorded("ollama", "ps_loaded"),
        "/v1/models": recorded("ollama", "v1_models"),
    }
    async with engine_first(BackendType.OLLAMA, "smollm2:latest", probes) as (engine, url):
        passed_over = await ask(url)
        assert passed_over.header("x-synapse-backend") == "cpu"
        assert passed_over.header("x-synapse-fallback") == "overloaded"
        assert engine.requests == []

        size = json.loads(load("ollama", "ps_loaded").body)["models"][0]["size"]
        on_gpu = ('"size_vram":0', f'"size_vram":{size}')
        engine.probes["/api/ps"] = recorded("ollama", "ps_loaded", on_gpu)
        served = await ask_until_from(url, "engine")
        assert served.header("x-synapse-fallback") is None
