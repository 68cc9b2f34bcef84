"""Answers of an engine that must read differently to its caller than they came."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Model,
    Settings,
    Target,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from tests.exchanges.wire import load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.testing.scripts import Script


@asynccontextmanager
async def llama_cpp(script: Script) -> AsyncIterator[str]:
    """A gateway in front of what answers like llama.cpp; the gateway's URL."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        upstream.script = script
        settings = Settings(
            auth=AuthMode.ANONYMOUS,
            backends={"llama": Backend(url=upstream.url, type=BackendType.LLAMACPP)},
            models={"m": Model(targets=(Target(backend="llama"),))},
        )
        yield (await stack.enter_async_context(app.running(settings))).url


async def test_a_500_that_is_the_callers_fault_reads_as_a_400_of_the_gateways() -> None:
    recorded = load("llamacpp", "v1_embeddings_too_long")
    assert recorded.status == 500
    script = scripts.raw(scripts.sized(500, recorded.body, {"content-type": "application/json"}))
    async with llama_cpp(script) as url:
        answer = await wire.post(url, "/v1/embeddings", {"model": "m", "input": "word " * 600})
        error = answer.error() or {}
        metrics = await wire.metrics(url)
    assert answer.status == 400
    assert error["code"] == "context_length_exceeded"
    assert error["type"] == "invalid_request_error"
    assert "too large to process" in error["message"]
    assert metrics.value("synapse_breaker_state", backend="llama") == 0


async def test_a_stream_that_a_translation_did_not_ask_for_is_no_answer() -> None:
    async with llama_cpp(scripts.without_done()) as url:
        answer = await wire.post(url, "/api/embeddings", {"model": "m", "prompt": "a"})
    assert answer.status == 502
    assert answer.json()["error"]


async def test_a_stream_where_json_is_due_is_no_answer() -> None:
    async with llama_cpp(scripts.without_done()) as url:
        answer = await wire.post(url, "/v1/embeddings", {"model": "m", "input": "a"})
    assert answer.status == 502
