"""An overloaded target is passed by before it refuses, by what its engine tells of itself."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

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
from tests.backends.support import recorded
from tests.backends.test_real_llamacpp import chat, llamacpp
from tests.faults.support import CHAT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.testing.scripts import Script


def settings(first: Backend, second: str, name: str) -> Settings:
    targets = (
        Target(backend="first", model=name, order=1),
        Target(backend="second", model="m", order=2),
    )
    return Settings(
        auth=AuthMode.ANONYMOUS,
        backends={"first": first, "second": Backend(url=second, probe_interval=3600.0)},
        models={"m": Model(targets=targets)},
    )


async def ask(url: str) -> wire.Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    return await wire.post(url, CHAT, body)


async def until_served_by(backend: str, url: str) -> wire.Answer:
    while (answer := await ask(url)).header("x-synapse-backend") != backend:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return answer


def probed(kind: str, name: str, *changes: tuple[bytes, bytes]) -> Script:
    body = recorded(kind, name).body
    for old, new in changes:
        assert old in body, "the recording is not what this test takes it for"
        body = body.replace(old, new)
    return scripts.probe(body)


VLLM = {
    "/health": scripts.probe(b""),
    "/v1/models": probed("vllm", "v1_models"),
    "/version": probed("vllm", "version"),
}
OLLAMA = {"/api/version": probed("ollama", "version"), "/api/tags": probed("ollama", "tags")}
IDLE = (b'model_name="Qwen/Qwen2.5-0.5B-Instruct"} 5.0', b'model_name="x"} 0.0')
ON_GPU = (b'"size_vram":0', b'"size_vram":190948608')


def cases() -> Iterator[Any]:
    waiting = {**VLLM, "/metrics": probed("vllm", "metrics")}
    idle = {**VLLM, "/metrics": probed("vllm", "metrics", IDLE)}
    asleep = {**VLLM, "/metrics": probed("vllm", "metrics_sleeping")}
    on_cpu = {**OLLAMA, "/api/ps": probed("ollama", "ps_loaded")}
    on_gpu = {**OLLAMA, "/api/ps": probed("ollama", "ps_loaded", ON_GPU)}
    qwen = "Qwen/Qwen2.5-0.5B-Instruct"
    vllm, ollama = BackendType.VLLM, BackendType.OLLAMA
    yield pytest.param(vllm, qwen, waiting, "overloaded", id="vllm-has-requests-waiting")
    yield pytest.param(vllm, qwen, idle, None, id="vllm-has-none-waiting")
    yield pytest.param(vllm, qwen, asleep, "asleep", id="vllm-sleeps")
    yield pytest.param(ollama, "smollm2:latest", on_cpu, "overloaded", id="ollama-fell-to-cpu")
    yield pytest.param(ollama, "smollm2", on_cpu, "overloaded", id="ollama-fell-to-cpu-untagged")
    yield pytest.param(ollama, "smollm2:latest", on_gpu, None, id="ollama-on-gpu")


@pytest.mark.parametrize(("kind", "model", "probes", "reason"), list(cases()))
async def test_the_engines_own_figures_send_the_request_on(
    kind: BackendType, model: str, probes: dict[str, Script], reason: str | None
) -> None:
    async with FaultyUpstream() as first, FaultyUpstream() as second:
        first.probes = probes
        backend = Backend(url=first.url, type=kind, device=Device.GPU, probe_interval=3600.0)
        async with app.running(settings(backend, second.url, model)) as gateway:
            answer = await ask(gateway.url)

            assert answer.status == 200
            assert answer.header("x-synapse-fallback") == reason
            assert answer.header("x-synapse-backend") == ("second" if reason else "first")
            assert len(first.requests) == (0 if reason else 1)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="the package xllamacpp is missing")
async def test_full_slots_of_real_llamacpp_send_the_next_request_to_order_two() -> None:
    async with llamacpp() as url, FaultyUpstream() as second, asyncio.timeout(60):
        backend = Backend(url=url, type=BackendType.LLAMACPP, probe_interval=0.2)
        configured = settings(backend, second.url, "smollm2-135m-instruct")
        async with app.running(configured) as gateway:
            assert (await ask(gateway.url)).header("x-synapse-backend") == "first"

            busy = [wire.open_stream(url, CHAT, chat(800)) for _ in range(2)]
            async with busy[0] as one, busy[1] as other:  # callers that do not come through us
                await one.next_chunk()
                await other.next_chunk()
                answer = await until_served_by("second", gateway.url)
                assert answer.header("x-synapse-fallback") == "overloaded"
                assert answer.status == 200

            await until_served_by("first", gateway.url)
