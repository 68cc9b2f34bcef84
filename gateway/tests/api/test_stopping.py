"""A real process that is told to stop."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import synapse_gateway
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.wire import TIMEOUT, Ending
from tests.api.support import CHAT
from tests.telemetry.collector import Collector

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PACKAGE = Path(synapse_gateway.__file__).parent.parent
BODY = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
CONFIG = """
auth: anonymous
backends: {{b: {{url: "{url}", probe_interval: 3600}}}}
models: {{m: {{targets: [{{backend: b, max_in_flight: {cap}}}]}}}}
limits: {{shutdown_grace: {grace}}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Gateway:
    """`synapse serve` in a process of its own."""

    def __init__(self, directory: Path, running: asyncio.subprocess.Process, url: str) -> None:
        self.config = directory / "gateway.yaml"
        self.log = directory / "log"
        self.running = running
        self.url = url

    def terminate(self) -> None:
        self.running.send_signal(signal.SIGTERM)

    async def kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a connection on which a request has been answered."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"}")
        return reader, writer

    async def ended(self) -> int:
        """Wait for its end, and return its exit code."""
        async with asyncio.timeout(TIMEOUT):
            return await self.running.wait()

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until one of its metrics has a value."""
        async with asyncio.timeout(TIMEOUT):
            while (  # noqa: ASYNC110 - no event tells of it
                await wire.metrics(self.url)
            ).value(name, **labels) != value:
                await asyncio.sleep(0.05)

    def requests(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        lines = map(json.loads, self.log.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line.get("event") == "request"]


@asynccontextmanager
async def serving(
    tmp_path: Path, upstream: FaultyUpstream, grace: int = 60, cap: int = 9, **environ: str
) -> AsyncIterator[Gateway]:
    """Run `synapse serve` and wait until it is ready."""
    config = tmp_path / "gateway.yaml"
    config.write_text(CONFIG.format(url=upstream.url, grace=grace, cap=cap), encoding="utf-8")
    port = free_port()
    flags = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        running = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "synapse_gateway", "serve", *flags],
            env={**os.environ, "PYTHONPATH": str(PACKAGE), **environ},
            stdout=log,
            stderr=log,
        )
    gateway = Gateway(tmp_path, running, f"http://127.0.0.1:{port}")
    try:
        async with asyncio.timeout(60):
            while await readiness(gateway.url) != 200:
                assert running.returncode is None, gateway.log.read_text(encoding="utf-8")
                await asyncio.sleep(0.05)
        yield gateway
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


@pytest.mark.slow
async def test_sigterm_unreadies_lets_streams_finish_and_then_closes(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, serving(tmp_path, upstream) as gateway:
        upstream.queue(scripts.held())
        async with wire.open_stream(gateway.url, CHAT, BODY) as stream:
            await stream.next_chunk()
            gateway.terminate()
            async with asyncio.timeout(TIMEOUT):
                while (await readiness(gateway.url)) == 200:
                    pass
            assert await readiness(gateway.url) == 503
            late = await wire.post(gateway.url, CHAT, {**BODY, "stream": False})
            assert late.text() == "alpha beta gamma", "who had not heard of it yet is served"
            assert gateway.running.returncode is None
            upstream.gate("go").set()
            answer = await stream.read_rest()
        assert (answer.ending, answer.events()[-1]) == (Ending.COMPLETE, "[DONE]")
        assert answer.text() == "alpha beta gamma"
        assert await gateway.ended() == 0
        assert await readiness(gateway.url) == 0


@pytest.mark.slow
async def test_what_was_served_while_stopping_is_logged_and_traced(tmp_path: Path) -> None:
    collector = Collector()
    environ: dict[str, Any] = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
    async with (
        FaultyUpstream() as upstream,
        serving(tmp_path, upstream, **environ) as gateway,
    ):
        upstream.queue(scripts.held())
        async with wire.open_stream(gateway.url, CHAT, BODY) as stream:
            await stream.next_chunk()
            gateway.terminate()
            upstream.gate("go").set()
            await stream.read_rest()
        assert await gateway.ended() == 0
    collector.close()
    [line] = gateway.requests()
    assert (line["status"], line.get("cut")) == (200, None)
    assert collector.named(f"POST {CHAT}")
    assert collector.exports


@pytest.mark.slow
@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
async def test_a_request_on_a_kept_connection_is_answered_and_closes_it(
    tmp_path: Path, path: str
) -> None:
    body = json.dumps({**BODY, "stream": False}).encode() if path == CHAT else b""
    method = "POST" if path == CHAT else "GET"
    request = f"{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    async with FaultyUpstream() as upstream, serving(tmp_path, upstream) as gateway:
        reader, writer = await gateway.kept()
        upstream.queue(scripts.held())
        async with wire.open_stream(gateway.url, CHAT, BODY) as stream:
            await stream.next_chunk()
            gateway.terminate()
            async with asyncio.timeout(TIMEOUT):
                while (await readiness(gateway.url)) == 200:
                    pass
                await asyncio.sleep(0.5)  # by now what closes idle connections would have done so
                writer.write(request + body)
                answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert answer.endswith(b"}"), answer
            upstream.gate("go").set()
            await stream.read_rest()
        writer.close()
        assert await gateway.ended() == 0


@pytest.mark.slow
async def test_sigterm_ends_a_gateway_whose_connections_are_idle(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, serving(tmp_path, upstream) as gateway:
        _, writer = await gateway.kept()
        gateway.terminate()
        assert await gateway.ended() == 0
        writer.close()


@pytest.mark.slow
async def test_what_outlasts_the_bound_is_told_so_and_not_ended_as_if_whole(
    tmp_path: Path,
) -> None:
    async with FaultyUpstream() as upstream, serving(tmp_path, upstream, 1, cap=1) as gateway:
        upstream.queue(scripts.broken(1, then=scripts.Stall()))
        async with wire.open_stream(gateway.url, CHAT, BODY) as stream:
            await stream.next_chunk()
            waiting = asyncio.create_task(wire.post(gateway.url, CHAT, BODY))
            await gateway.until("synapse_queue_length", 1, model="m")
            gateway.terminate()
            answer = await stream.read_rest()
            refused = await waiting
        assert answer.ending is Ending.COMPLETE
        error = json.loads(answer.events()[-1])["error"]
        assert (error["code"], error["type"]) == ("stream_stopped", "service_unavailable_error")
        assert (refused.status, refused.header("retry-after")) == (503, "1")
        assert refused.json()["error"]["message"] == "The gateway is stopping."
        assert await gateway.ended() == 0
        async with asyncio.timeout(TIMEOUT):
            await upstream.requests[0].connection.closed.wait()
    lines = {line["status"]: line for line in gateway.requests()}
    assert lines[200]["cut"] == "stopped"
    assert not lines[503].get("disconnected")


@pytest.mark.slow
async def test_the_bound_is_that_of_the_configuration_that_runs(tmp_path: Path) -> None:
    async with FaultyUpstream() as upstream, serving(tmp_path, upstream, 3600) as gateway:
        upstream.queue(scripts.broken(1, then=scripts.Stall()))
        async with wire.open_stream(gateway.url, CHAT, BODY) as stream:
            await stream.next_chunk()
            changed = CONFIG.format(url=upstream.url, grace=1, cap=9)
            gateway.config.write_text(changed, encoding="utf-8")
            await gateway.until("synapse_config_reloads_total", 2, result="ok")
            gateway.terminate()
            assert await gateway.ended() == 0
