"""A real process that is told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import synapse_gateway
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.wire import TIMEOUT, Ending
from tests.api.support import CHAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACKAGE = Path(synapse_gateway.__file__).parent.parent
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
CONFIG = """
auth: anonymous
backends: {{b: {{url: "{url}", probe_interval: 3600}}}}
models: {{m: {{targets: [{{backend: b}}]}}}}
limits: {{shutdown_grace: {grace}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def process(
    tmp_path: Path, upstream: FaultyUpstream, grace: int = 60
) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """Run `synapse serve` and wait until it is ready."""
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.format(url=upstream.url, grace=grace), encoding="utf-8")
    port = free_port()
    flags = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "synapse_gateway", "serve", *flags],
            env={**os.environ, "PYTHONPATH": str(PACKAGE)},
            stdout=log,
            stderr=log,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(60):
            while await readiness(url) != 200:
                assert running.returncode is None, (tmp_path / "log").read_text(encoding="utf-8")
                await asyncio.sleep(0.05)
        yield url, running
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def readiness(url: str) -> int:
    """Return the status of /readyz; 0 if nobody listens."""
    try:
        return (await wire.get(url, "/readyz")).status
    except (OSError, asyncio.IncompleteReadError):
        return 0


async def ended(running: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(TIMEOUT):
        return await running.wait()


@pytest.mark.slow
async def test_sigterm_unreadies_lets_streams_finish_and_then_closes(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, process(tmp_path, upstream) as (url, running):
        upstream.queue(scripts.held())
        async with wire.open_stream(url, CHAT, BODY) as stream:
            await stream.next_chunk()
            running.send_signal(signal.SIGTERM)
            async with asyncio.timeout(TIMEOUT):
                while (await readiness(url)) == 200:
                    pass
            assert await readiness(url) == 503
            late = await wire.post(url, CHAT, {**BODY, "stream": False})
            assert late.text() == "alpha beta gamma", "who had not heard of it yet is served"
            assert running.returncode is None
            upstream.gate("go").set()
            answer = await stream.read_rest()
        assert (answer.ending, answer.events()[-1]) == (Ending.COMPLETE, "[DONE]")
        assert answer.text() == "alpha beta gamma"
        assert await ended(running) in (0, -signal.SIGTERM)
        assert await readiness(url) == 0


@pytest.mark.slow
async def test_sigterm_ends_an_idle_gateway_at_once(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, process(tmp_path, upstream) as (url, running):
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        running.send_signal(signal.SIGTERM)
        assert await ended(running) in (0, -signal.SIGTERM)
        writer.close()


@pytest.mark.slow
async def test_what_outlasts_the_bound_is_cut_and_not_ended_as_if_whole(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, process(tmp_path, upstream, 1) as (url, running):
        upstream.queue(scripts.broken(1, then=scripts.Stall()))
        async with wire.open_stream(url, CHAT, BODY) as stream:
            await stream.next_chunk()
            running.send_signal(signal.SIGTERM)
            answer = await stream.read_rest()
        assert answer.ending is Ending.CUT
        assert "[DONE]" not in answer.events()
        assert await ended(running) in (0, -signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT):
            await upstream.requests[0].connection.closed.wait()
