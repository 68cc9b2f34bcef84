from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from synapse_gateway.up.state import StateDirectory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> StateDirectory:
    made = StateDirectory(tmp_path / "state")
    made.create()
    return made


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits to be ended."""
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    yield process
    process.kill()
    process.wait()


class Answers(BaseHTTPRequestHandler):
    """Answers GET requests from a table: path -> (status, JSON value)."""

    table: Mapping[str, tuple[int, Any]]
    key: str | None

    def do_GET(self) -> None:
        given = self.headers.get("authorization")
        if self.key is not None and given != f"Bearer {self.key}":
            status, value = 401, {"error": "no key"}
        else:
            status, value = self.table.get(self.path, (404, {"error": "not found"}))
        body = msgspec.json.encode(value)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def serving(table: Mapping[str, tuple[int, Any]], key: str | None = None) -> Iterator[str]:
    """A server on loopback; gives its URL."""
    handler = type("Handler", (Answers,), {"table": table, "key": key})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
