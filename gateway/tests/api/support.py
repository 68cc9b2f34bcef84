"""A real gateway on loopback, spoken to byte by byte."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    Limits,
    Model,
    Settings,
    Target,
    Timeouts,
)
from synapse_gateway.testing import FaultyUpstream, scripts
from synapse_gateway.testing.wire import TIMEOUT, Answer, Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from synapse_gateway.api.protocol import SynapseProtocol
    from synapse_gateway.app import Running

CHAT = "/v1/chat/completions"
LONG = Timeouts(connect=5.0, first_token=60.0, first_byte=60.0, between_tokens=60.0, overall=120.0)


def chat(**more: Any) -> bytes:
    return json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}
    ).encode()


def request(
    path: str = CHAT,
    body: bytes | None = None,
    *headers: str,
    method: str = "POST",
    version: str = "1.1",
    **more: Any,
) -> bytes:
    """Return a request's bytes; `more` are fields of a chat."""
    content = chat(**more) if body is None else body
    lines = [f"{method} {path} HTTP/{version}", "host: gateway", *headers]
    if method == "POST":
        lines += ["content-type: application/json", f"content-length: {len(content)}"]
    head = ("\r\n".join(lines) + "\r\n\r\n").encode()
    return head + content if method == "POST" else head


class Line:
    """A connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> Stream:
        """Read a response's head."""
        stream = Stream(self.reader, self.writer)
        async with asyncio.timeout(TIMEOUT):
            await stream.read_head()
        return stream

    async def answer(self) -> Answer:
        """Read a response to its end."""
        return await (await self.head()).read_rest()

    async def closed(self) -> bytes:
        """Read until the gateway closes; return what came before."""
        async with asyncio.timeout(TIMEOUT):
            try:
                return await self.reader.read(-1)
            except ConnectionError:
                return b""


class Scene:
    """A gateway with one backend."""

    def __init__(self, running: Running, upstream: FaultyUpstream) -> None:
        self.running = running
        self.upstream = upstream
        self.lines: list[Line] = []

    @property
    def url(self) -> str:
        return self.running.url

    async def connect(self) -> Line:
        parts = urlsplit(self.url)
        line = Line(*await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22))
        self.lines.append(line)
        return line

    @property
    def connections(self) -> list[SynapseProtocol]:
        """The gateway's side of its connections."""
        found: Any = self.running.server.server_state.connections
        return list(found)

    @property
    def tasks(self) -> int:
        """Requests that the gateway is serving."""
        return len(self.running.server.server_state.tasks)


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition of the gateway holds."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.005)


def settings_for(url: str, **limits: Any) -> Settings:
    target = limits.pop("target", Target(backend="b"))
    model = limits.pop("model", {})
    keys = limits.pop("keys", {})
    return Settings(
        auth=AuthMode.KEYS if keys else AuthMode.ANONYMOUS,
        keys=keys,
        backends={"b": Backend(url=url, probe_interval=3600.0)},
        models={"m": Model(**{"targets": (target,), "timeouts": LONG, **model})},
        limits=Limits(**limits),
    )


@asynccontextmanager
async def staged(
    settings: Callable[[str], Settings], environ: Mapping[str, str] | None = None
) -> AsyncIterator[Scene]:
    """Run a gateway with the settings for a backend at this URL."""
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        upstream.probes["/v1/models"] = scripts.models("m")
        serving = app.running(settings(upstream.url), environ=environ)
        made = Scene(await stack.enter_async_context(serving), upstream)
        try:
            yield made
        finally:
            for line in made.lines:
                line.writer.transport.abort()


@asynccontextmanager
async def scene(**limits: Any) -> AsyncIterator[Scene]:
    async with staged(lambda url: settings_for(url, **limits)) as made:
        yield made


def certificate(directory: Path, name: str) -> Path:
    """Make a certificate for this machine that nobody has signed; its key lies beside it."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is not installed")
    pem = directory / f"{name}.pem"
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    subject = ("-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(pem.with_suffix(".key")), "-out", str(pem))
    subprocess.run(  # noqa: S603 - a program that was looked up
        [program, "req", "-x509", *curve, *subject, *files], check=True, capture_output=True
    )
    return pem
