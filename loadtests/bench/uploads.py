"""Many large uploads at once over a line that is slow: what the gateway takes, refuses and holds.

Every client sends one recording, all of them share the line, and whoever is told to come back later
does so when he was told to. The server behind only counts what it gets: how fast a model listens
is no figure of the gateway's.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.bench import interpreter
from loadtests.bench.processes import PROXY_CORE, BenchError, cpu_seconds, free_port
from loadtests.bench.ratios import Aim, Row, Sense, Verdict
from loadtests.bench.subjects import HERE

if TYPE_CHECKING:
    from collections.abc import Callable

    from loadtests.bench.processes import Children

PATH = "/stt/transcribe"
PIECE = 64 * 1024
AT_ONCE = 32
"""Uploads that should be under way together at some time."""
MEMORY_MB = 300
"""What the gateway may have in memory."""
LOOK_SECONDS = 0.25
NO_ANSWER = 0
_ANSWER = json.dumps(
    {"text": "", "language": "en", "language_probability": 1.0, "duration": 1.0, "segments": []}
).encode()
_HEAD = b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
_TAIL = b"\r\n--B--\r\n"
_WAV = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data"


@dataclass
class Seen:
    """What happened."""

    statuses: Counter[int] = field(default_factory=Counter)
    """Final answers; 0 counts the connections that ended without one."""
    sent_away: int = 0
    """Times that a client was told to come back later."""
    now: int = 0
    """Uploads under way."""
    most: int = 0
    received: list[int] = field(default_factory=list)
    """Bytes of each body that the server behind got."""
    rss: int = 0
    cpu: float = 0.0
    seconds: float = 0.0


class Line:
    """Bytes a second that all clients share, handed out in the order in which they ask."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._free = time.monotonic()

    async def take(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        self._free = max(self._free, time.monotonic()) + size / self._rate
        await asyncio.sleep(self._free - time.monotonic())


def measure(
    children: Children, say: Callable[[str], None], *, count: int, size: int, rate: float
) -> Seen:
    """Run it.

    Args:
        children: Takes the gateway.
        say: Tells how far it is.
        count: Clients, each with one upload.
        size: Bytes of each.
        rate: Bytes a second that they send together.
    """
    return asyncio.run(_measure(children, say, count, size, rate))


async def _measure(
    children: Children, say: Callable[[str], None], count: int, size: int, rate: float
) -> Seen:
    seen = Seen()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _answer(reader, writer, seen)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as upstream:
        port, pid = await asyncio.to_thread(
            _start_gateway, children, say, upstream.sockets[0].getsockname()[1]
        )
        line = Line(rate)
        began, used = time.monotonic(), cpu_seconds([pid])
        clients = [asyncio.create_task(_upload(port, size, line, seen)) for _ in range(count)]
        while not all(client.done() for client in clients):
            children.check()
            await asyncio.wait(clients, timeout=LOOK_SECONDS)
            say(f"{sum(seen.statuses.values()):>4} answered  {seen.now:>3} under way")
        for client in clients:
            client.result()
        seen.seconds = time.monotonic() - began
        seen.cpu = cpu_seconds([pid]) - used
        seen.rss = _peak_rss(pid)
    return seen


def _peak_rss(pid: int) -> int:
    """Return the most bytes of a process that were resident at any time."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"/proc/{pid}/status: has no VmHWM")


def _start_gateway(
    children: Children, say: Callable[[str], None], upstream: int
) -> tuple[int, int]:
    """Start the gateway with the bounds that it has by itself."""
    config = {
        "auth": "anonymous",
        "backends": {"listener": {"url": f"http://127.0.0.1:{upstream}", "type": "faster-whisper"}},
    }
    file = children.folder / "uploads.yaml"
    file.write_text(json.dumps(config), encoding="utf-8")
    port = free_port()
    python = interpreter.for_gateway(say).path
    command = [python, "-m", "synapse_gateway", "serve", "--config", str(file)]
    environ = {
        "PYTHONPATH": str(HERE.parents[1] / "gateway"),
        "SYNAPSE_SPOOL_DIR": str(children.folder),
        "SYNAPSE_VOICE_LIBRARY_DIR": str(children.folder / "voices"),
    }
    command += ["--host", "127.0.0.1", "--port", str(port)]
    pid = children.start("gateway", PROXY_CORE, command, environ)
    children.await_status(port, "/readyz")
    return port, pid


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
    """Answer probes and uploads of one connection."""
    try:
        while head := await _head(reader):
            size = int(head.get("content-length", "0"))
            left = size
            while left:
                left -= len(await reader.readexactly(min(left, PIECE)))
            if size:
                seen.received.append(size)
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
                % (len(_ANSWER), _ANSWER)
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        # at the end of the run the gateway's connections are still open
        pass
    finally:
        writer.close()


async def _upload(port: int, size: int, line: Line, seen: Seen) -> None:
    """Send a recording, as often as it takes."""
    try:
        while (wait := await _try(port, size, line, seen)) is not None:
            seen.sent_away += 1
            await asyncio.sleep(wait)
    except (asyncio.IncompleteReadError, ConnectionError):
        seen.statuses[NO_ANSWER] += 1


async def _try(port: int, size: int, line: Line, seen: Seen) -> float | None:
    """Try once; return after how many seconds to come back, None with the final answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        length = len(_HEAD) + size + len(_TAIL)
        writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n"
            b"content-type: multipart/form-data; boundary=B\r\n\r\n" % (PATH.encode(), length)
        )
        head = await _answered(reader)
        if head["status"] == "100":
            seen.now += 1
            seen.most = max(seen.most, seen.now)
            try:
                await _send(writer, size, line)
                head = await _answered(reader)
            finally:
                seen.now -= 1
        if head["status"] == "503" and "retry-after" in head:
            return float(head["retry-after"])
        seen.statuses[int(head["status"])] += 1
        return None
    finally:
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, size: int, line: Line) -> None:
    writer.write(_HEAD + _WAV)
    left = size - len(_WAV)
    while left:
        piece = min(left, PIECE)
        await line.take(piece)
        writer.write(bytes(piece))
        await writer.drain()
        left -= piece
    writer.write(_TAIL)
    await writer.drain()


async def _answered(reader: asyncio.StreamReader) -> dict[str, str]:
    """Read the head of an answer.

    Raises:
        ConnectionError: There is none.
    """
    if head := await _head(reader):
        return head
    raise ConnectionError("closed before the answer")


async def _head(reader: asyncio.StreamReader) -> dict[str, str]:
    """Read the head of a message; empty at the end of the connection."""
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return {}
    first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
    fields = (line.partition(":") for line in lines)
    return {"status": first.split(" ")[1], **{n.lower(): v.strip() for n, _, v in fields}}


def rows(seen: Seen, *, count: int, size: int) -> list[Row]:
    """Return the report.

    Raises:
        BenchError: The server behind did not get what was sent.
    """
    wanted = len(_HEAD) + size
    if any(got < wanted for got in seen.received):
        raise BenchError("an upload reached the server behind shortened")

    def row(name: str, unit: str, value: float, aim: Aim | None = None) -> Row:
        verdict = Verdict.NO_AIM
        if aim is not None:
            verdict = Verdict.MET if aim.holds(value) else Verdict.MISSED
        return Row(name=name, unit=unit, gateway=value, aim=aim, verdict=verdict)

    at_least, under = Sense.AT_LEAST, Sense.UNDER
    return [
        row("uploads answered 200", "", seen.statuses[200], Aim(sense=at_least, bound=count)),
        row("under way at once, at most", "", seen.most, Aim(sense=at_least, bound=AT_ONCE)),
        row("told to come back later", "times", seen.sent_away),
        row("RSS of the gateway, at most", "MB", seen.rss / 1e6, Aim(sense=under, bound=MEMORY_MB)),
        row("CPU of the gateway a MB", "ms", seen.cpu * 1e9 / (count * size)),
        row("seconds in all", "s", seen.seconds),
    ]
