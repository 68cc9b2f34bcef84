"""The servers of `backends/` that speak and listen: how they look at work, and what they refuse."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.backends import adapter
from synapse_gateway.backends.base import Capability, Refusal
from synapse_gateway.config.settings import BackendType
from synapse_gateway.testing import wire
from tests.backends.support import WireHttp, server

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.backends.base import Probe

pytestmark = [pytest.mark.real, pytest.mark.slow]
SPEECH = "/v1/audio/speech"


async def until(kind: BackendType, url: str, condition: Callable[[Probe], bool]) -> Probe:
    """Probe until the condition holds."""
    async with asyncio.timeout(60):
        while not condition(probe := await adapter(kind).probe(WireHttp(url), None)):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return probe


@pytest.mark.skipif(find_spec("piper") is None, reason="the package piper-tts is missing")
async def test_piper_tells_what_it_does_and_what_waits() -> None:
    kind = BackendType.PIPER
    async with server("piper-tts", "synapse_piper_tts", "--concurrency", "1") as url:
        idle = await until(kind, url, lambda probe: probe.up)
        assert (idle.status, idle.busy, idle.waiting) == (200, 0, 0)
        model = next(found.id for found in idle.models or ())
        assert adapter(kind).capabilities == {Capability.SPEECH}

        long = {"model": model, "input": "One sentence more. " * 12, "voice": "joe"}
        speaking = [asyncio.create_task(wire.post(url, SPEECH, long)) for _ in range(2)]
        busy = await until(kind, url, lambda probe: bool(probe.waiting))
        assert (busy.busy, busy.waiting) == (1, 1)
        assert {answer.status for answer in await asyncio.gather(*speaking)} == {200}

        refused = await wire.post(url, SPEECH, {"model": "nope", "input": "x", "voice": "joe"})
        meaning = adapter(kind).refusal(refused.status, refused.body)
        assert (refused.status, meaning) == (404, Refusal.MODEL_NOT_FOUND)


@pytest.mark.skipif(find_spec("faster_whisper") is None, reason="faster-whisper is missing")
async def test_whisper_tells_its_model_and_refuses_others() -> None:
    kind = BackendType.FASTER_WHISPER
    async with server("whisper-stt", "synapse_whisper_stt") as url:
        up = await until(kind, url, lambda probe: probe.up)
        assert (up.status, up.busy, up.waiting) == (200, 0, 0)
        assert up.models

        part = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nnope\r\n'
        file = b'--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        body = part + file + b"RIFF\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
        path = "/v1/audio/transcriptions"
        refused = await wire.exchange(url, "POST", path, body=body, headers=headers)
        meaning = adapter(kind).refusal(refused.status, refused.body)
        assert (refused.status, meaning) == (404, Refusal.MODEL_NOT_FOUND)
