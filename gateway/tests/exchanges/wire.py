"""Sends one HTTP/1.1 request over a plain socket and keeps the answer as it came, chunk by chunk.

The scripts beside this file use it to record real servers; the tests read the recordings back with
`load`.
"""

from __future__ import annotations

import json
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


@dataclass
class Exchange:
    """One request and the answer of a real server.

    `chunks` holds the payload of each HTTP chunk in order (one item when the answer had a content
    length), `ending` how the body ended: "complete" (last chunk or full length) or "cut"
    (connection closed before).
    """

    server: str
    about: str
    method: str
    path: str
    request: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[str] = field(default_factory=list)
    ending: str = "complete"

    @property
    def body(self) -> bytes:
        return "".join(self.chunks).encode()

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        """The objects of an NDJSON body."""
        return [json.loads(line) for line in self.body.splitlines() if line]

    def events(self) -> list[bytes]:
        """The `data:` payloads of a server-sent event body."""
        return [
            line.removeprefix(b"data:").strip()
            for line in self.body.splitlines()
            if line.startswith(b"data:")
        ]


def load(server: str, name: str) -> Exchange:
    """Read the recording `name` of `server` ("ollama" or "llamacpp")."""
    return Exchange(**json.loads((HERE / server / f"{name}.json").read_text(encoding="utf-8")))


def save(exchange: Exchange, server: str, name: str) -> None:
    text = json.dumps(asdict(exchange), ensure_ascii=False, indent=1)
    (HERE / server / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{exchange.status} {exchange.method:5}{exchange.path:28} {name} ({len(text)} bytes)")  # noqa: T201


class Reader:
    """Reads one answer from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.file = sock.makefile("rb")

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()) != b"":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def chunk(self) -> bytes | None:
        """The next chunk; empty is the last one, None a closed connection."""
        size = self.file.readline().strip()
        if not size:
            return None
        payload = self.file.read(int(size, 16))
        self.file.readline()
        return payload


def exchange(
    server: str,
    port: int,
    about: str,
    method: str,
    path: str,
    body: Any = None,
    on_chunk: Callable[[int], None] | None = None,
    headers: str = "",
) -> Exchange:
    """Send the request and read the whole answer.

    `on_chunk` is called with the number of chunks read so far.
    """
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    done = Exchange(server=server, about=about, method=method, path=path, request=text)
    head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n{headers}"
    if body is not None:
        head += f"content-type: application/json\r\ncontent-length: {len(text.encode())}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=120) as sock:
        sock.sendall(f"{head}\r\n{text}".encode())
        reader = Reader(sock)
        done.status, done.headers = reader.head()
        done.headers.pop("date", None)
        if done.headers.get("transfer-encoding") != "chunked":
            done.chunks = [reader.file.read().decode()]
            return done
        while payload := reader.chunk():
            done.chunks.append(payload.decode())
            if on_chunk:
                on_chunk(len(done.chunks))
        if payload is None:
            done.ending = "cut"
    return done


def wait_for(port: int, path: str, seconds: float = 60) -> None:
    """Poll until the server answers 200."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if exchange("", port, "", "GET", path).status == 200:
                return
        except (OSError, IndexError):
            pass
        time.sleep(0.1)
    raise TimeoutError(f"nothing answers on port {port} after {seconds} s")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
