"""What is being downloaded reaches `/health`, whatever the one who tells it says."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway import app
from synapse_gateway.backends.base import Reply
from synapse_gateway.backends.downloads import Download, Downloads
from synapse_gateway.config.settings import Backend, Settings
from synapse_gateway.testing import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.app import Running

OLLAMA = {
    "backend": "ollama",
    "downloads": {
        "llama3.1:8b": {"state": "downloading", "completed": 5, "total": 20},
        "absent": {"state": "failed", "detail": "file does not exist"},
    },
}


def asking(answer: bytes | Exception, status: int = 200) -> Downloads:
    async def get(url: str) -> Reply:
        assert url == "http://127.0.0.1:8099/"
        if isinstance(answer, Exception):
            raise answer
        return Reply(status, {}, answer)

    return Downloads(get, lambda _: None)


async def look(answer: bytes | Exception, status: int = 200) -> Any:
    return await asking(answer, status).look("http://127.0.0.1:8099")


async def test_downloads_are_read_by_backend_and_model() -> None:
    assert await look(json.dumps(OLLAMA).encode()) == {
        "ollama": {
            "llama3.1:8b": Download("downloading", 5, 20),
            "absent": Download("failed", detail="file does not exist"),
        }
    }


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ConnectionRefusedError(), id="nobody-there"),
        pytest.param(TimeoutError(), id="no-answer"),
        pytest.param(b"no json", id="no-json"),
        pytest.param(b"[]", id="no-object"),
        pytest.param(b'{"backend": 3, "downloads": {"m": {}}}', id="backend-of-another-type"),
    ],
)
async def test_what_cannot_be_read_is_no_download(answer: bytes | Exception) -> None:
    assert await look(answer) == {}


async def test_an_answer_that_is_an_error_is_no_download() -> None:
    assert await look(json.dumps(OLLAMA).encode(), status=500) == {}


async def test_a_name_that_does_not_resolve_is_no_download() -> None:
    assert await asking(b"").look("http://no-such-host.invalid:8099") == {}


@pytest.mark.parametrize("fields", [{"state": "exploded"}, {"state": 3, "completed": -1}, "text"])
async def test_fields_of_other_types_are_left_out(fields: object) -> None:
    told = json.dumps({"backend": "b", "downloads": {"m": fields}}).encode()
    assert await look(told) == {"b": {"m": Download("waiting")}}


class Teller:
    """Tells of downloads, over HTTP."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = OLLAMA

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(self.told).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()


async def until(running: Running, right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for `/health` until the backend's entry is right; a hang fails by its own time limit."""
    async with asyncio.timeout(wire.TIMEOUT):
        while True:
            answer: dict[str, Any] = (await wire.get(running.url, "/health")).json()
            if right(answer["backends"]["ollama"]):
                return answer
            await asyncio.sleep(0.02)


async def test_health_shows_them_and_a_reload_moves_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse_gateway.backends.downloads.INTERVAL", 0.02)
    teller = Teller()
    server = await asyncio.start_server(teller.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    backend = Backend(url="http://127.0.0.1:9")
    settings = Settings(backends={"ollama": backend}, downloads=url)
    async with server, app.running(settings) as running:
        answer = await until(running, lambda entry: "downloads" in entry)
        assert answer["backends"]["ollama"]["downloads"] == OLLAMA["downloads"]
        teller.told = {"backend": "ollama", "downloads": {}}
        await until(running, lambda entry: "downloads" not in entry)
        teller.told = OLLAMA
        await until(running, lambda entry: "downloads" in entry)
        running.runtime.downloads.watch(None)
        await until(running, lambda entry: "downloads" not in entry)
