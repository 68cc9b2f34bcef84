"""How uploads come in: spooled within bounds, given back whatever happens."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_gateway.config.settings import AuthMode, BackendType, Key, Spool
from synapse_gateway.proxy.spool import Spool as Spooled
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Stall
from tests.api.audio_support import KIND, WAV, Received, form, studio
from tests.api.support import until

if TYPE_CHECKING:
    from pathlib import Path

WHISPER: dict[str, Any] = {"whisper": BackendType.FASTER_WHISPER}
PATH = "/stt/transcribe"
BIG = WAV + bytes(3_000_000)


def head(length: int, *more: str, path: str = PATH) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "host: gateway",
        f"content-type: {KIND}",
        f"content-length: {length}",
        *more,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def test_a_large_upload_goes_through_a_file_and_leaves_none(tmp_path: Path) -> None:
    async with studio(tmp_path, **WHISPER) as scene:
        assert (await scene.upload(PATH, file=BIG)).status == 200
        [seen] = scene.seen("whisper")
        assert Received(seen).files == [("file", BIG)]
        await scene.until_idle()


async def test_a_chunked_upload_is_taken_too() -> None:
    async with studio(**WHISPER) as scene:
        body = form(file=BIG)
        line = await scene.connect()
        line.writer.write(
            b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ncontent-type: %b\r\n\r\n"
            % (PATH.encode(), KIND.encode())
        )
        for start in range(0, len(body), 100_000):
            part = body[start : start + 100_000]
            line.writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        line.writer.write(b"0\r\n\r\n")
        assert (await line.answer()).status == 200
        assert Received(scene.seen("whisper")[0]).files == [("file", BIG)]


async def test_uploads_follow_each_other_on_one_connection() -> None:
    async with studio(**WHISPER) as scene:
        body = form(file=BIG)
        line = await scene.connect()
        line.writer.write((head(len(body)) + body) * 3)
        assert [(await line.answer()).status for _ in range(3)] == [200] * 3
        assert [Received(seen).files for seen in scene.seen("whisper")] == [[("file", BIG)]] * 3


async def test_an_upload_may_wait_behind_another_request() -> None:
    async with studio(**WHISPER) as scene:
        body = form(file=WAV)
        line = await scene.connect()
        line.writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" + head(len(body)) + body)
        assert [(await line.answer()).status for _ in range(2)] == [200] * 2


async def test_who_asks_first_is_told_to_go_on() -> None:
    async with studio(**WHISPER) as scene:
        body = form(file=WAV)
        line = await scene.connect()
        line.writer.write(head(len(body), "expect: 100-continue"))
        assert await line.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.writer.write(body)
        assert (await line.answer()).status == 200


async def test_a_field_given_twice_is_refused() -> None:
    async with studio(**WHISPER) as scene:
        twice = form(model="secret", file=WAV)[: -len(b"--B--\r\n")] + form(model="whisper")
        line = await scene.connect()
        line.writer.write(head(len(twice)) + twice)
        answer = await line.answer()
        assert (answer.status, (answer.error() or {})["param"]) == (400, "model")


# -- refused before it is sent


async def test_an_upload_without_room_is_refused_before_it_is_sent() -> None:
    limits = {"spool": Spool(max_bytes=1_000_000)}
    async with studio(limits=limits, **WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(2_000_000, "expect: 100-continue"))
        answer = await line.answer()
        error = answer.error() or {}
        assert (answer.status, error["code"]) == (503, "upload_room_full")
        assert answer.header("retry-after")
        assert answer.header("connection") == "close"
        assert (await scene.upload(PATH, file=WAV)).status == 200
        await scene.until_idle()
        metrics = await wire.metrics(scene.url)
        assert metrics.value("synapse_uploads_refused_total") == 1


async def test_one_who_sends_all_the_same_can_read_the_refusal() -> None:
    limits = {"spool": Spool(max_bytes=1_000_000)}
    async with (
        studio(limits=limits, **WHISPER) as scene,
        httpx.AsyncClient(base_url=scene.url) as client,
    ):
        answer = await client.post(PATH, files={"file": ("a.wav", WAV + bytes(30_000_000))})
        assert answer.status_code == 503


async def test_room_that_others_hold_comes_back() -> None:
    limits = {"spool": Spool(max_bytes=5_000_000)}
    async with studio(limits=limits, **WHISPER) as scene:
        scene.upstreams["whisper"].queue(scripts.held(after=0))
        first = asyncio.create_task(scene.upload(PATH, file=BIG))
        await scene.upstreams["whisper"].seen(1)
        assert (await scene.upload(PATH, file=BIG)).status == 503
        scene.upstreams["whisper"].gate("go").set()
        assert (await first).status == 200
        assert (await scene.upload(PATH, file=BIG)).status == 200


async def test_a_key_is_looked_at_before_the_body(tmp_path: Path) -> None:
    keys = {"keys": {"k": Key(sha256="0" * 64)}, "auth": AuthMode.KEYS}
    async with studio(tmp_path, settings=keys, **WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(2_000_000))
        answer = await line.answer()
        assert answer.status == 401
        assert scene.running.runtime.gateway.spool.reserved == 0


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
async def test_a_body_over_the_limit_is_a_413(*, declared: bool) -> None:
    async with studio(limits={"max_upload_bytes": 1_000_000}, **WHISPER) as scene:
        line = await scene.connect()
        if declared:
            line.writer.write(head(1_000_001))
        else:
            line.writer.write(
                head(0).replace(b"content-length: 0", b"transfer-encoding: chunked")
                + b"%x\r\n" % 1_500_000
                + form(file=BIG)[:1_500_000]
            )
        answer = await line.answer()
        assert (answer.status, answer.header("connection")) == (413, "close")
        await scene.until_idle()


# -- refused within it


async def test_a_file_that_is_no_recording_is_refused_by_its_first_bytes() -> None:
    async with studio(**WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(9_000_000) + form(file=b"%PDF" * 100)[:300])
        answer = await line.answer()
        assert answer.status == 415
        assert "a PDF" in (answer.error() or {})["message"]
        # what is still sent is not looked at, and ends the connection
        line.writer.write(bytes(9_000_000 - 300))
        assert await line.reader.read() == b""
        await scene.until_idle()


async def test_a_caller_who_stops_is_not_waited_for() -> None:
    limits = {"spool": Spool(stall=0.2)}
    async with studio(limits=limits, **WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(9_000_000) + form(file=BIG)[:300])
        answer = await line.answer()
        assert (answer.status, (answer.error() or {})["code"]) == (408, "request_timeout")
        await scene.until_idle()


async def test_a_form_that_ends_too_early_is_refused() -> None:
    async with studio(**WHISPER) as scene:
        body = form(file=WAV)[:-6]
        line = await scene.connect()
        line.writer.write(head(len(body)) + body)
        assert (await line.answer()).status == 400
        await scene.until_idle()


async def test_a_disk_that_takes_no_more_is_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Spooled, "_write_in_thread", full)
    async with studio(**WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(9_000_000) + form(file=BIG)[:2_000_000])
        answer = await line.answer()
        assert answer.status == 503
        assert answer.header("retry-after")
        assert (await scene.upload(PATH, file=WAV)).status == 200
        await scene.until_idle()


# -- left


async def test_a_caller_who_leaves_within_an_upload_leaves_nothing(tmp_path: Path) -> None:
    async with studio(tmp_path, **WHISPER) as scene:
        line = await scene.connect()
        line.writer.write(head(9_000_000) + form(file=BIG)[:2_000_000])
        room = scene.running.runtime.gateway.spool
        await until(lambda: room.reserved)
        raw = line.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        line.writer.transport.abort()
        await scene.until_idle()
        metrics = await wire.metrics(scene.url)
        assert metrics.value("synapse_client_disconnects_total", route=PATH) == 1


async def test_a_caller_who_leaves_within_the_work_ends_it() -> None:
    async with studio(**WHISPER) as scene:
        upstream = scene.upstreams["whisper"]
        upstream.queue(lambda _: [Stall()])
        line = await scene.connect()
        body = form(file=BIG)
        line.writer.write(head(len(body)) + body)
        [seen] = await upstream.seen(1)
        line.writer.transport.abort()
        await seen.connection.closed_by_peer.wait()
        await scene.until_idle()


async def test_many_uploads_at_once_are_each_whole(tmp_path: Path) -> None:
    async with studio(tmp_path, **WHISPER) as scene:
        sent = [WAV + bytes([number]) * (400_000 + number) for number in range(40)]
        answers = await asyncio.gather(*(scene.upload(PATH, file=data) for data in sent))
        assert {answer.status for answer in answers} == {200}
        received = [Received(seen).files[0][1] for seen in scene.seen("whisper")]
        assert sorted(received, key=len) == sent
        await scene.until_idle()
