"""For the tests of servers: one of them running as the process that it is in production."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server's process and where it answers."""

    url: str
    process: "subprocess.Popen[str]"

    def resident_bytes(self) -> int:
        """Memory that it has now (Linux)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def running_server(module: str, *arguments: str, healthy: bool = True) -> Iterator[RunningServer]:
    """Run ``python -m module --port 0 arguments`` until the end of the ``with``.

    Args:
        module: Of a server.
        arguments: Its flags.
        healthy: Whether to wait until it is; else until it listens.

    Raises:
        RuntimeError: It ended, or did not become healthy in time; the message has its output.
    """
    process = subprocess.Popen(  # noqa: S603 - a module of this repository
        [sys.executable, "-P", "-m", module, "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path), "PYTHONUNBUFFERED": "1"},
    )
    output = _Output(process)
    try:
        url = output.address()
        if healthy:
            _wait_until_healthy(url, output)
        yield RunningServer(url, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        output.close()


class _Output:
    """Reads a process's output all the time, so that it never blocks on a full pipe."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: list[str] = []
        self._addresses: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was opened with a pipe
        for line in self._process.stdout:
            self._lines.append(line)
            if line.startswith("listening on "):
                self._addresses.put(line.split()[-1])
        self._addresses.put(None)

    def address(self) -> str:
        found = self._addresses.get(timeout=READY_SECONDS)
        if found is None:
            raise RuntimeError(f"the server ended:\n{self.text()}")
        return found

    def goes_on(self) -> bool:
        """Whether the process may still write something."""
        return self._thread.is_alive()

    def text(self) -> str:
        return "".join(self._lines[-40:])

    def close(self) -> None:
        self._thread.join()
        if self._process.stdout is not None:
            self._process.stdout.close()


def _wait_until_healthy(url: str, output: _Output) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and output.goes_on():
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
                if answer.status == 200:
                    return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the server was not healthy in time:\n{output.text()}")
