"""Fakes of what a prober needs: backends that answer from recordings, from functions, or really."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_gateway.backends.base import Http, Reply
from synapse_gateway.testing import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

EXCHANGES = Path(__file__).parent.parent / "exchanges"
ROOT = Path(__file__).parents[3]


def recorded(kind: str, name: str) -> Reply:
    """Return the answer of a recording."""
    kept = json.loads((EXCHANGES / kind / f"{name}.json").read_text(encoding="utf-8"))
    return Reply(kept["status"], kept["headers"], "".join(kept["chunks"]).encode())


class Recorded(Http):
    """Answers GETs from recordings; what is in none of them is 404, as at most servers.

    Attributes:
        asked: Paths in order.
    """

    def __init__(self, kind: str, answers: Mapping[str, str | BaseException]) -> None:
        self._kind = kind
        self._answers = answers
        self.asked: list[str] = []

    async def request(
        self, method: str, path: str, *, body: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        assert (method, body) == ("GET", b""), "a probe only reads"
        self.asked.append(path)
        answer = self._answers.get(path)
        if isinstance(answer, BaseException):
            raise answer
        if answer is None:
            return Reply(404, {}, b'{"detail":"Not Found"}')
        return recorded(self._kind, answer)


class WireHttp(Http):
    """Asks a real server."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def request(
        self, method: str, path: str, *, body: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        async with asyncio.timeout(timeout):
            answer = await wire.exchange(self._url, method, path, body=body)
        return Reply(answer.status, dict(answer.headers), answer.body)


@asynccontextmanager
async def server(folder: str, module: str, *options: str) -> AsyncIterator[str]:
    """Run a server of `backends/` as a process of its own and give its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = (ROOT / "backends" / folder, ROOT / "backends" / "serving")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", module, "--port", str(port), *options),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
