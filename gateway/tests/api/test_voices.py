"""/voices and /tts/languages, over sockets."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_gateway.config.settings import AuthMode, BackendType, Key, Spool
from synapse_gateway.proxy.spool import Spool as Spooled
from synapse_gateway.testing import wire
from tests.api.audio_support import studio
from tests.voices.support import tone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.api.audio_support import Studio

ONE, TWO = tone(0.5, seed=1), tone(1.0, seed=2)


@asynccontextmanager
async def library(tmp_path: Path, **more: Any) -> AsyncIterator[tuple[Studio, httpx.AsyncClient]]:
    spool = tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    async with (
        studio(spool, voices=tmp_path / "voices", piper=BackendType.PIPER, **more) as scene,
        httpx.AsyncClient(base_url=scene.url, timeout=20) as client,
    ):
        yield scene, client
        await scene.until_idle()


def files(*contents: bytes, field: str = "files") -> list[Any]:
    return [(field, (f"{n}.wav", data, "audio/wav")) for n, data in enumerate(contents)]


async def create(client: httpx.AsyncClient, *contents: bytes, name: str = "Anna") -> Any:
    answer = await client.post("/voices", data={"name": name}, files=files(*contents))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def test_a_voice_is_kept_listed_extended_and_removed(tmp_path: Path) -> None:
    async with library(tmp_path) as (_, client):
        assert (await client.get("/voices")).json() == []
        made = await create(client, ONE)
        assert made["name"] == "Anna"
        assert made["references_count"] == len(made["references"]) == 1
        [reference] = made["references"]
        assert reference == {
            "id": "01",
            "filename": "0.wav",
            "sha256": hashlib.sha256(ONE).hexdigest(),
            "bytes": len(ONE),
            "seconds": 0.5,
            "sample_rate": 16000,
            "channels": 1,
            "loudness_dbfs": pytest.approx(-9.0, abs=0.1),
        }
        assert (await client.get("/voices")).json() == [made]

        path = f"/voices/{made['voice_id']}"
        more = await client.post(f"{path}/references", files=files(TWO))
        assert (more.status_code, more.json()["references_count"]) == (201, 2)
        assert (await client.get(path)).json() == more.json()

        gone = await client.delete(path)
        assert gone.json() == {"voice_id": made["voice_id"], "deleted": True}
        assert (await client.get("/voices")).json() == []
        assert list((tmp_path / "voices").iterdir()) == []


async def test_a_voice_goes_from_one_gateway_to_another(tmp_path: Path) -> None:
    async with library(tmp_path) as (_, client):
        made = await create(client, ONE, TWO)
        exported = await client.get(f"/voices/{made['voice_id']}/export")
        assert exported.headers["content-type"] == "application/zip"
        assert exported.headers["transfer-encoding"] == "chunked"
    other = tmp_path / "other"
    other.mkdir()
    async with library(other) as (_, client):
        parts = [("file", ("voice.zip", exported.content, "application/zip"))]
        answer = await client.post("/voices/import", files=parts)
        assert answer.status_code == 201
        again = answer.json()
        assert again["voice_id"] != made["voice_id"]
        assert again["references"] == made["references"]


async def test_replicas_share_a_volume(tmp_path: Path) -> None:
    async with library(tmp_path) as (_, one), library(tmp_path) as (_, other):
        made = await create(one, ONE)
        assert (await other.get("/voices")).json() == [made]
        await other.delete(f"/voices/{made['voice_id']}")
        assert (await one.get("/voices")).json() == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/voices/{}"),
        ("DELETE", "/voices/{}"),
        ("GET", "/voices/{}/export"),
        ("POST", "/voices/{}/references"),
    ],
)
@pytest.mark.parametrize("voice_id", ["0" * 32, "nobody", "..%2fetc", "%00"])
async def test_a_voice_that_is_not_there_is_a_404(
    tmp_path: Path, method: str, path: str, voice_id: str
) -> None:
    async with library(tmp_path) as (_, client):
        more: dict[str, Any] = {"files": files(ONE)} if method == "POST" else {}
        answer = await client.request(method, path.format(voice_id), **more)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in {"voice_not_found", "not_found"}


BIG = ONE[:44] + bytes(50 * 1024 * 1024)
WRONG: dict[str, tuple[dict[str, str], list[Any], int, str]] = {
    "no-name": ({}, files(ONE), 422, "name"),
    "blank-name": ({"name": " "}, files(ONE), 422, "name"),
    "no-files": ({"name": "a"}, files(field="files") or files(ONE, field="other"), 422, "files"),
    "eleven": ({"name": "a"}, files(*[ONE] * 11), 422, "files"),
    "empty": ({"name": "a"}, files(b""), 400, "files"),
    "mp3": ({"name": "a"}, files(b"ID3\x04" + bytes(60)), 415, "files"),
    "video": ({"name": "a"}, files(b"\0\0\0\x20ftypisom" + bytes(60)), 415, "files"),
    "text": ({"name": "a"}, files(b"hello there"), 415, "files"),
    "cut": ({"name": "a"}, files(ONE[:-100]), 422, "files"),
    "no-samples": ({"name": "a"}, files(ONE[:44]), 422, "files"),
    "too-large": ({"name": "a"}, files(BIG), 413, "files"),
}


@pytest.mark.parametrize(("data", "parts", "status", "param"), WRONG.values(), ids=WRONG)
async def test_what_cannot_be_a_voice_is_refused_and_leaves_nothing(
    tmp_path: Path, data: dict[str, str], parts: list[Any], status: int, param: str
) -> None:
    async with library(tmp_path) as (_, client):
        answer = await client.post("/voices", data=data, files=parts)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        assert (await client.get("/voices")).json() == []


@pytest.mark.parametrize(
    ("content", "status"), [(b"", 400), (ONE, 415), (b"PK\x03\x04" + bytes(60), 422)]
)
async def test_what_is_no_exported_voice_is_refused(
    tmp_path: Path, content: bytes, status: int
) -> None:
    async with library(tmp_path) as (_, client):
        answer = await client.post("/voices/import", files=files(content, field="file"))
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, "file")
        other = await client.post("/voices/import", files={"x": (None, "1")})
        assert (other.status_code, other.json()["error"]["param"]) == (422, "file")


async def test_a_body_that_is_no_form_is_refused(tmp_path: Path) -> None:
    async with library(tmp_path) as (_, client):
        assert (await client.post("/voices", json={"name": "a"})).status_code == 415
        kind = {"content-type": "multipart/form-data; boundary=B"}
        assert (await client.post("/voices", content=b"--B", headers=kind)).status_code == 400


async def test_an_upload_without_room_or_over_the_limit_is_refused(tmp_path: Path) -> None:
    limits = {"spool": Spool(max_bytes=200_000, stall=0.2), "max_upload_bytes": 100_000}
    async with library(tmp_path, limits=limits) as (scene, client):
        answer = await client.post("/voices", data={"name": "a"}, files=files(ONE * 8))
        assert answer.status_code == 413

        async def parts() -> AsyncIterator[bytes]:
            head = b'--B\r\ncontent-disposition: form-data; name="files"; filename="a"\r\n\r\n'
            yield head + ONE
            for _ in range(20):
                yield bytes(10_000)

        kind = {"content-type": "multipart/form-data; boundary=B"}
        answer = await client.post("/voices", content=parts(), headers=kind)
        assert answer.status_code == 413
        scene.running.runtime.gateway.spool.reserved += 150_000
        answer = await client.post("/voices", data={"name": "a"}, files=files(ONE * 5))
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upload_room_full")
        assert answer.headers["retry-after"]
        scene.running.runtime.gateway.spool.reserved -= 150_000


async def test_a_caller_who_stops_or_leaves_is_not_waited_for(tmp_path: Path) -> None:
    limits = {"spool": Spool(stall=0.2)}
    async with library(tmp_path, limits=limits) as (scene, _):
        head = (
            b"POST /voices HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n"
            b"content-type: multipart/form-data; boundary=B\r\n\r\n--B\r\n"
        )
        line = await scene.connect()
        line.send(head)
        answer = await line.answer()
        assert answer.status == 408
        other = await scene.connect()
        other.send(head)
        room = scene.running.runtime.gateway.spool
        while not room.uploads:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        other.writer.transport.abort()
        await scene.until_idle()


async def test_a_slow_disk_slows_the_caller_down_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("synapse_gateway.proxy.spool.PENDING_BYTES", 1000)
    limits = {"spool": Spool(memory_bytes=0)}
    async with library(tmp_path, limits=limits) as (_, client):
        large = tone(20.0)
        made = await create(client, large)
        assert made["references"][0]["sha256"] == hashlib.sha256(large).hexdigest()

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Spooled, "_write_in_thread", full)
        answer = await client.post("/voices", data={"name": "a"}, files=files(large))
        assert answer.status_code == 503


# -- keys, limits, records


def keyed(**keys: Any) -> dict[str, Any]:
    made = {
        name: Key(sha256=hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **more)
        for name, more in keys.items()
    }
    return {"auth": AuthMode.KEYS, "keys": made}


async def test_keys_and_their_limits_hold_here_too(tmp_path: Path) -> None:
    settings = keyed(
        all={},
        models={"models": ("m",)},
        voices={"models": ("m", "/voices*")},
        few={"requests_per_minute": 1},
    )
    async with library(tmp_path, settings=settings) as (_, client):

        async def status(key: str, path: str = "/voices") -> int:
            answer = await client.get(path, headers={"authorization": f"Bearer {key}"})
            assert answer.headers["x-request-id"]
            return answer.status_code

        assert await status("sk-all") == 200
        assert await status("wrong") == 401
        assert await status("sk-models") == 403
        assert await status("sk-models", "/tts/languages") == 403
        assert await status("sk-voices") == 200
        assert [await status("sk-few") for _ in range(2)] == [200, 429]


async def test_a_request_is_counted_by_its_route(tmp_path: Path) -> None:
    async with library(tmp_path) as (scene, client):
        await client.get(f"/voices/{'0' * 32}")
        headers = {"x-request-id": "order-42"}
        answer = await client.get("/voices", headers=headers)
        assert answer.headers["x-request-id"] == "order-42"
        metrics = await wire.metrics(scene.url)
        count = "synapse_other_requests_total"
        assert metrics.value(count, route="/voices/{voice_id}", code="404") == 1
        assert metrics.value(count, route="/voices", code="200") == 1


async def test_what_fails_here_is_a_500_in_our_shape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with library(tmp_path) as (scene, client):

        def broken() -> None:
            raise RuntimeError("a fault of ours")

        monkeypatch.setattr(scene.running.runtime.gateway.voices.library, "voices", broken)
        answer = await client.get("/voices")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")


# -- languages


async def test_the_languages_of_all_that_speak_are_listed(tmp_path: Path) -> None:
    async with library(tmp_path, openvoice=BackendType.OPENVOICE) as (scene, client):
        fleet = scene.running.runtime.fleet.backends
        fleet["openvoice"].languages = (("es", "Spanish"), ("en", "English"))
        fleet["piper"].languages = (("en", "English"),)
        answer = await client.get("/tts/languages")
        assert answer.json() == [
            {"code": "en", "name": "English"},
            {"code": "es", "name": "Spanish"},
        ]


async def test_without_speech_there_are_no_languages(tmp_path: Path) -> None:
    async with studio(tmp_path, whisper=BackendType.FASTER_WHISPER) as scene:
        answer = await wire.get(scene.url, "/tts/languages")
        assert answer.status == 501
        assert json.loads(answer.body)["error"]["code"] == "not_supported"
