#!/usr/bin/env python3
"""Writes monitoring/tests/scrapes/*.prom from the real programs, started here on loopback.

    hack/capture_scrapes.py llama-cpp redis-exporter

Each program gets some traffic first, so that metrics which are born with their first event are
there too. What cannot run without a GPU is kept as a list with its source instead; those files
are written by hand.
"""

from __future__ import annotations

import argparse
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
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
SCRAPES = ROOT / "monitoring" / "tests" / "scrapes"
START_SECONDS = 60


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tool(name: str) -> str:
    """The path of a pinned tool."""
    run = subprocess.run(
        [ROOT / "hack/tools/install.sh", name], check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout.strip()


def request(url: str, body: object | None = None) -> str:
    """The text that a loopback server answers with, to a GET or to a POST of JSON."""
    data = None if body is None else json.dumps(body).encode()
    head = {"content-type": "application/json"}
    asked = urllib.request.Request(url, data=data, headers=head)  # noqa: S310 - loopback
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        text: str = answer.read().decode()
        return text


@contextlib.contextmanager
def running(command: list[str], ready: Callable[[], object]) -> Iterator[None]:
    """A child process from the moment it is ready until the end of the block.

    Raises:
        RuntimeError: it ended early, or was not ready in time.
    """
    paths = [str(folder) for folder in ROOT.glob("backends/*")] + [str(ROOT / "gateway")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(command, env=environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended with {process.returncode}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                ready()
                break
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command[0]} was not ready after {START_SECONDS} s")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait()


def connect(port: int) -> None:
    """Raises OSError while nothing listens."""
    socket.create_connection(("127.0.0.1", port), timeout=1).close()


def llama_cpp() -> tuple[str, str]:
    """The llama.cpp server with a small chat model, after one chat."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "synapse_llama_cpp", "--model", "smollm2-135m-instruct"]
    with running([*command, "--port", str(port)], lambda: request(f"{url}/health")):
        messages = [{"role": "user", "content": "Hello"}]
        request(f"{url}/v1/chat/completions", {"messages": messages, "max_tokens": 8})
        return "llama.cpp server (xllamacpp 2026.10.11549), after one chat", request(
            f"{url}/metrics"
        )


def redis_exporter() -> tuple[str, str]:
    """The Redis exporter beside a Redis with a memory limit."""
    redis, port = free_port(), free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    server = [tool("redis-server"), "--port", str(redis), "--bind", "127.0.0.1"]
    server += ["--save", "", "--maxmemory", "256mb"]
    exporter = [tool("redis-exporter"), "-redis.addr", f"redis://127.0.0.1:{redis}"]
    exporter += ["-web.listen-address", f"127.0.0.1:{port}"]
    with running(server, lambda: connect(redis)), running(exporter, lambda: request(url)):
        return "Redis exporter 1.45 beside Redis 7.0 (Debian), idle", request(url)


CAPTURES = {"llama-cpp": llama_cpp, "redis-exporter": redis_exporter}


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="all by default", metavar="NAME")
    names = parser.parse_args().names or sorted(CAPTURES)
    unknown = sorted(set(names) - set(CAPTURES))
    if unknown:
        parser.error(f"no such program: {unknown[0]}; known: {', '.join(sorted(CAPTURES))}")
    for name in names:
        origin, text = CAPTURES[name]()
        head = f"# real: {origin}\n# made by: hack/capture_scrapes.py {name}\n"
        (SCRAPES / f"{name}.prom").write_text(head + text)
        sys.stdout.write(f"{name}: {len(text.splitlines())} lines\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
