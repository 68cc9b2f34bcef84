"""Real programs on loopback, up for the length of a block."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """That of this process, with the project's own packages on the import path."""
    paths = [str(folder) for folder in ROOT.glob("backends/*")] + [str(ROOT / "gateway")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(more or {})}


def output(*command: str | Path) -> str:
    """The last line that a command prints."""
    run = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
    )
    return run.stdout.strip().splitlines()[-1]


def tool(name: str) -> str:
    """The path of a pinned tool."""
    return output("hack/tools/install.sh", name)


def request_bytes(url: str, body: object | None = None, key: str = "") -> bytes:
    """What a loopback server answers with, to a GET or to a POST of JSON.

    Raises:
        urllib.error.HTTPError: the answer is an error.
        OSError: there is no answer.
    """
    data = None if body is None else json.dumps(body).encode()
    head = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    asked = urllib.request.Request(url, data=data, headers=head)  # noqa: S310 - loopback
    with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310
        content: bytes = answer.read()
        return content


def request(url: str, body: object | None = None, key: str = "") -> str:
    """As `request_bytes`, decoded."""
    return request_bytes(url, body, key).decode()


def until(what: str, done: Callable[[], object]) -> None:
    """Ask again and again until the answer is true.

    Raises:
        RuntimeError: it was not, for a minute.
    """
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if done():
                return
        time.sleep(0.1)
    raise RuntimeError(f"{what}: not so after {START_SECONDS} s")


@contextlib.contextmanager
def running(
    command: list[str], ready: Callable[[], object], environ: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A child process from the moment it is ready until the end of the block.

    Raises:
        RuntimeError: it ended early, or was not ready in time.
    """
    process = subprocess.Popen(command, env=environment(environ), stdout=subprocess.DEVNULL)

    def alive_and_ready() -> object:
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}")
        return ready()

    try:
        until(f"{command[0]} is ready", alive_and_ready)
        yield
    finally:
        process.terminate()
        process.wait()


def connects(port: int) -> bool:
    """True; raises OSError while nothing listens."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    return True


@contextlib.contextmanager
def llama_cpp() -> Iterator[str]:
    """The llama.cpp server with a small chat model; gives its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "synapse_llama_cpp", "--model", "smollm2-135m-instruct"]
    with running([*command, "--port", str(port)], lambda: request(f"{url}/health")):
        yield url


@contextlib.contextmanager
def redis() -> Iterator[int]:
    """Redis with a memory limit and without files; gives its port."""
    port = free_port()
    command = [tool("redis-server"), "--port", str(port), "--bind", "127.0.0.1"]
    with running([*command, "--save", "", "--maxmemory", "256mb"], lambda: connects(port)):
        yield port


@contextlib.contextmanager
def ollama(home: Path, model: str) -> Iterator[str]:
    """Ollama with one small model, made from the packaged weights; gives its URL."""
    address = f"127.0.0.1:{free_port()}"
    binary = output("hack/build-ollama.sh")
    environ = {"OLLAMA_HOST": address, "OLLAMA_MODELS": str(home / "models"), "HOME": str(home)}
    with running([binary, "serve"], lambda: request(f"http://{address}/"), environ):
        locate = "from synapse_llama_cpp.models import find_model as f; print(f('%s'))"
        weights = output(sys.executable, "-c", locate % "smollm2-135m-instruct")
        (home / "Modelfile").write_text(f"FROM {weights}\n")
        subprocess.run(
            [binary, "create", model, "-f", home / "Modelfile"],
            check=True, env=environment(environ), capture_output=True,
        )  # fmt: skip
        yield f"http://{address}"
