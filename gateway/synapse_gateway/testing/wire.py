"""A small HTTP/1.1 client that hides nothing: chunk boundaries, how a body ended, trailers.

::

    answer = await wire.post(url, "/v1/chat/completions", {"model": "m", "stream": True, ...})
    assert answer.ending is Ending.COMPLETE and answer.events()[-1] == "[DONE]"

    async with wire.open_stream(url, "/v1/chat/completions", body) as stream:
        first = await stream.next_chunk()
        stream.leave()                                  # RST, as a caller that crashed does
"""

from __future__ import annotations

import asyncio
import enum
import json
import socket
import struct
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping

TIMEOUT = 20.0
"""Seconds after which a test is given up; nothing is asserted by it."""


class Ending(enum.Enum):
    """How a response ended."""

    COMPLETE = "complete"
    """With its last chunk, or all bytes that were promised."""
    CLOSED = "closed"
    """By closing, where nothing else was promised."""
    CUT = "cut"
    """Before that; or with RST."""


@dataclass
class Answer:
    """A response, read to its end.

    Attributes:
        headers: In order, names in lower case.
        chunks: Payload of each chunk; of a body that is not chunked, what each read gave.
    """

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    trailers: list[tuple[str, str]] = field(default_factory=list)
    ending: Ending = Ending.COMPLETE

    @property
    def body(self) -> bytes:
        """All of it."""
        return b"".join(self.chunks)

    def header(self, name: str) -> str | None:
        """Return the first header of a name (in lower case)."""
        return next((value for key, value in self.headers if key == name), None)

    def json(self) -> Any:
        """Return the body's JSON."""
        return json.loads(self.body)

    def events(self) -> list[str]:
        """Return the data of every server-sent event."""
        found = []
        for block in self.body.decode().replace("\r\n", "\n").split("\n\n"):
            lines = [
                line[5:].removeprefix(" ") for line in block.split("\n") if line[:5] == "data:"
            ]
            if lines:
                found.append("\n".join(lines))
        return found

    def error(self) -> dict[str, Any] | None:
        """Return the error object of a JSON body, or of a stream's last event; None if none.

        A stream of `/v1/responses` has an event of the type `error` that is the object itself.
        """
        try:
            last = json.loads(self.events()[-1] if self.events() else self.body)
        except ValueError:
            return None
        if not isinstance(last, dict):
            return None
        found = last if last.get("type") == "error" and "error" not in last else last.get("error")
        return found if isinstance(found, dict) else None

    def text(self) -> str:
        """Return what a chat completion says, streamed or not."""
        if not self.events():
            return str(self.json()["choices"][0]["message"]["content"])
        deltas = (json.loads(data) for data in self.events() if data != "[DONE]")
        return "".join(
            choice["delta"].get("content") or ""
            for delta in deltas
            for choice in delta.get("choices", [])
        )


class Stream:
    """A response that is being read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._left = -1
        self.answer = Answer()

    async def read_head(self, method: str = "GET") -> None:
        """Read the final response's head; informational ones are passed over."""
        status = 100
        while status < 200:
            raw = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = raw.rstrip("\r\n").split("\r\n")
            status = int(first.split(" ", 2)[1])
            self.answer.headers = [_field(line) for line in lines]
        self.answer.status = status
        length = self.answer.header("content-length")
        if method == "HEAD" or status in (204, 304):
            self._left = 0
        elif length is not None:
            self._left = int(length)

    async def next_chunk(self) -> bytes | None:
        """Return the next chunk; None at the end, which `answer.ending` then tells."""
        try:
            async with asyncio.timeout(TIMEOUT):
                data = await (self._chunked() if self._is_chunked else self._plain())
        except (asyncio.IncompleteReadError, ConnectionError):
            self.answer.ending = Ending.CUT
            return None
        if data is not None:
            self.answer.chunks.append(data)
        return data

    async def read_rest(self) -> Answer:
        """Read to the end."""
        while await self.next_chunk() is not None:
            pass
        return self.answer

    def leave(self) -> None:
        """Close with RST, without reading what is left."""
        raw = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    @property
    def _is_chunked(self) -> bool:
        return (self.answer.header("transfer-encoding") or "").lower() == "chunked"

    async def _chunked(self) -> bytes | None:
        size = int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16)
        if size:
            data = await self._reader.readexactly(size)
            await self._reader.readexactly(2)
            return data
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            self.answer.trailers.append(_field(line.decode("latin-1").rstrip("\r\n")))
        return None

    async def _plain(self) -> bytes | None:
        if self._left == 0:
            return None
        data = await self._reader.read(self._left if self._left > 0 else 65536)
        if not data:
            self.answer.ending = Ending.CUT if self._left > 0 else Ending.CLOSED
            return None
        if self._left > 0:
            self._left -= len(data)
        return data


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


@asynccontextmanager
async def send(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Stream]:
    """Send a request on a connection of its own and give its response, head read.

    Args:
        url: Base URL.
        method: HTTP method.
        path: Request target.
        body: Sent with its content length.
        headers: Added to Host, Content-Type and Content-Length.
        tls: For https.
    """
    parts = urlsplit(url)
    fields = {"host": parts.netloc, **(headers or {})}
    if body or method == "POST":
        fields = {"content-type": "application/json", "content-length": str(len(body)), **fields}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    reader, writer = await asyncio.open_connection(
        parts.hostname, parts.port, ssl=tls, limit=1 << 22
    )
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)
        stream = Stream(reader, writer)
        async with asyncio.timeout(TIMEOUT):
            await stream.read_head(method)
        yield stream
    finally:
        writer.transport.abort()


async def exchange(
    url: str,
    method: str,
    path: str,
    *,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send a request and read the response to its end."""
    async with send(url, method, path, body=body, headers=headers) as stream:
        return await stream.read_rest()


async def get(url: str, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
    """Send a GET and read the response to its end."""
    return await exchange(url, "GET", path, headers=headers)


async def post(
    url: str, path: str, body: Any, *, headers: Mapping[str, str] | None = None
) -> Answer:
    """Send JSON and read the response to its end."""
    return await exchange(url, "POST", path, body=json.dumps(body).encode(), headers=headers)


@asynccontextmanager
async def open_stream(
    url: str, path: str, body: Any, *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Stream]:
    """Send JSON and give the response, head read."""
    encoded = json.dumps(body).encode()
    async with send(url, "POST", path, body=encoded, headers=headers) as stream:
        yield stream


async def metrics(url: str) -> Metrics:
    """Read a server's `/metrics`."""
    return Metrics((await get(url, "/metrics")).body.decode())


class Metrics:
    """A Prometheus text exposition."""

    def __init__(self, text: str) -> None:
        self._samples = [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels; 0.0 if there is none."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def by_label(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """Return the sums of a metric's samples that have these labels, by another label."""
        found: dict[str, float] = {}
        for sample in self._samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                key = sample.labels.get(label, "")
                found[key] = found.get(key, 0.0) + sample.value
        return found
