"""How far the downloads of backends' weights are, for `/health`.

Whatever downloads answers a GET with

    {"backend": "ollama", "downloads":
     {"llama3.1:8b": {"state": "downloading", "completed": 1, "total": 9}}}

(`state` is `waiting`, `downloading`, `done` or `failed`; sizes in bytes; `detail` says why one has
failed). The name in the configuration may stand for several of them, as that of a headless Service
does: every address is asked. Nobody there means that nothing is being downloaded.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from synapse_gateway.backends import answers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_gateway.backends.base import Reply

INTERVAL = 5.0
"""Seconds between two looks."""
DEADLINE = 2.0
"""Seconds that one of them has to answer."""
MAX_SOURCES = 64
"""Addresses that are asked."""
STATES = frozenset({"waiting", "downloading", "done", "failed"})


class Download(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model on its way."""

    state: str
    completed: int | None = None
    """Bytes that are there."""
    total: int | None = None
    """Bytes in all, if that is known."""
    detail: str = ""
    """Why it has failed."""


class Downloads:
    """Asks from time to time.

    Args:
        get: Sends a GET to a URL and returns the answer; OSError or TimeoutError if there is none.
        report: Takes the downloads of each backend, by the model's name.
    """

    def __init__(
        self,
        get: Callable[[str], Awaitable[Reply]],
        report: Callable[[dict[str, dict[str, Download]]], None],
    ) -> None:
        self._get = get
        self._report = report
        self._url: str | None = None
        self._task: asyncio.Task[None] | None = None

    def watch(self, url: str | None) -> None:
        """Ask at this URL from now on; None asks nobody."""
        if url == self._url:
            return
        self._url = url
        self._report({})
        if self._task is not None:
            self._task.cancel()
        self._task = None if url is None else asyncio.create_task(self._run(url), name="downloads")

    async def stop(self) -> None:
        """Ask no more."""
        task, self._task, self._url = self._task, None, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def look(self, url: str) -> dict[str, dict[str, Download]]:
        """Ask everybody that a URL stands for."""
        parts = urlsplit(url)
        port = parts.port or 80
        try:
            async with asyncio.timeout(DEADLINE):
                found = await asyncio.get_running_loop().getaddrinfo(
                    parts.hostname, port, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError):
            return {}
        hosts = sorted({str(address[0]) for *_, address in found})[:MAX_SOURCES]
        urls = [f"http://{f'[{host}]' if ':' in host else host}:{port}/" for host in hosts]
        result: dict[str, dict[str, Download]] = {}
        for backend, downloads in await asyncio.gather(*map(self._ask, urls)):
            result.setdefault(backend, {}).update(downloads)
        result.pop("", None)
        return result

    async def _run(self, url: str) -> None:
        while True:
            self._report(await self.look(url))
            await asyncio.sleep(INTERVAL)

    async def _ask(self, url: str) -> tuple[str, dict[str, Download]]:
        try:
            reply = await self._get(url)
        except (OSError, TimeoutError):
            return "", {}
        told = answers.mapping(answers.parse(reply.body)) if reply.status == 200 else {}
        downloads = list(answers.mapping(told.get("downloads")).items())[: answers.MAX_MODELS]
        return answers.text(told.get("backend")), {
            model[: answers.MAX_TEXT]: _download(entry) for model, entry in downloads
        }


def _download(entry: Any) -> Download:
    fields = answers.mapping(entry)
    state = answers.text(fields.get("state"))
    return Download(
        state if state in STATES else "waiting",
        answers.number(fields.get("completed")),
        answers.number(fields.get("total")),
        answers.text(fields.get("detail")),
    )
