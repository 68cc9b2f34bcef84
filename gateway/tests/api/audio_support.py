"""Forms and recordings for tests, and a gateway in front of audio servers that obey the test."""

from __future__ import annotations

import asyncio
import struct
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from python_multipart.multipart import parse_options_header

from synapse_gateway import app
from synapse_gateway.audio_api.wav import Format
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Breaker,
    Limits,
    Settings,
)
from synapse_gateway.testing import FaultyUpstream, answers, scripts, wire
from tests.api.support import LONG, Line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from synapse_gateway.app import Running
    from synapse_gateway.config.settings import Timeouts
    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.wire import Answer

WAV = answers.wav(3)
"""0.3 s of silence."""
KIND = "multipart/form-data; boundary=B"


def form(**parts: str | bytes | list[bytes]) -> bytes:
    """Return a form with the boundary `B`; bytes are files."""
    written = []
    for name, value in parts.items():
        for each in value if isinstance(value, list) else [value]:
            head = f'--B\r\ncontent-disposition: form-data; name="{name}"'.encode()
            if isinstance(each, bytes):
                written.append(head + b'; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n')
                written.append(each)
            else:
                written.append(head + b"\r\n\r\n" + each.encode())
            written.append(b"\r\n")
    return b"".join(written) + b"--B--\r\n"


class Received:
    """A form as a backend got it."""

    def __init__(self, request: Request) -> None:
        kind, options = parse_options_header(request.header("content-type") or "")
        assert kind == b"multipart/form-data"
        self.fields: list[tuple[str, str]] = []
        self.files: list[tuple[str, bytes]] = []
        delimiter = b"--" + options[b"boundary"]
        first, *parts, last = request.body.split(delimiter)
        assert (first, last) == (b"", b"--\r\n")
        for part in parts:
            head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            _, named = parse_options_header(head.split(b"\r\n")[0].partition(b": ")[2])
            name, data = named[b"name"].decode(), body.removesuffix(b"\r\n")
            if b"filename" in named:
                self.files.append((name, data))
            else:
                self.fields.append((name, data.decode()))


@dataclass
class Studio:
    """A gateway and the servers behind it, by name."""

    running: Running
    upstreams: dict[str, FaultyUpstream]
    spool: Path | None = None
    lines: list[Line] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.running.url

    async def upload(
        self, path: str, headers: Mapping[str, str] | None = None, **parts: Any
    ) -> Answer:
        """Send a form and read the answer to its end."""
        return await wire.exchange(
            self.url,
            "POST",
            path,
            body=form(**parts),
            headers={"content-type": KIND, **(headers or {})},
        )

    async def say(self, path: str, text: str, **fields: Any) -> Answer:
        """Ask for speech."""
        return await wire.post(self.url, path, {"text": text, **fields})

    def seen(self, name: str) -> list[Request]:
        """Return the requests that a server got, probes left out."""
        return [seen for seen in self.upstreams[name].requests if seen.method != "GET"]

    async def connect(self) -> Line:
        """Open a connection to speak on byte by byte."""
        parts = urlsplit(self.url)
        line = Line(*await asyncio.open_connection(parts.hostname, parts.port, limit=1 << 22))
        self.lines.append(line)
        return line

    async def until_idle(self) -> None:
        """Wait until nothing of any upload is left; the directory must never have had a file."""
        room = self.running.runtime.gateway.spool
        async with asyncio.timeout(wire.TIMEOUT):
            while room.uploads or room.reserved or room.in_memory:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert self.spool is None or list(self.spool.iterdir()) == []


@asynccontextmanager
async def studio(
    spool: Path | None = None,
    *,
    voices: Path | None = None,
    devices: Mapping[str, Any] | None = None,
    failures: int = 50,
    timeouts: Timeouts = LONG,
    limits: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **kinds: BackendType,
) -> AsyncIterator[Studio]:
    """Run a gateway in front of servers of these kinds.

    Args:
        spool: Directory of uploads, if not the system's.
        voices: Directory of the library.
        devices: More fields of a backend, by name.
        failures: Until a breaker opens.
        timeouts: Of every server.
        limits: Fields of the limits.
        settings: More sections of the configuration.
        kinds: The servers; an underscore in a name is a hyphen.
    """
    async with AsyncExitStack() as stack:
        upstreams = {}
        for name in kinds:
            upstreams[name] = await stack.enter_async_context(FaultyUpstream())
            for path in (
                "/languages",
                "/metrics",
                "/api/ps",
                "/api/model-info",
                "/v1/audio/voices",
            ):
                upstreams[name].probes[path] = scripts.probe()
        sections: dict[str, Any] = {"auth": AuthMode.ANONYMOUS, **(settings or {})}
        configured = Settings(
            **sections,
            backends={
                name: Backend(
                    url=upstreams[name].url,
                    type=kind,
                    probe_interval=3600.0,
                    timeouts=timeouts,
                    **(devices or {}).get(name, {}),
                )
                for name, kind in kinds.items()
            },
            limits=Limits(breaker=Breaker(failures=failures, cool_down=3600.0), **(limits or {})),
        )
        directories = {"SYNAPSE_SPOOL_DIR": spool, "SYNAPSE_VOICE_LIBRARY_DIR": voices}
        environ = {name: str(path) for name, path in directories.items() if path is not None}
        running = await stack.enter_async_context(app.running(configured, environ=environ))
        made = Studio(running, upstreams, spool)
        try:
            yield made
        finally:
            for line in made.lines:
                line.writer.transport.abort()


def sound(tenths: int, rate: int = 16000) -> bytes:
    """Return a WAV file whose every sample is the number of tenths of a second that it lasts."""
    samples = struct.pack("<h", tenths) * (rate * tenths // 10)
    return Format(1, 1, rate, 16).head(len(samples)) + samples
