from __future__ import annotations

import asyncio
import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import settings
from synapse_gateway.errors import ConfigError, Unavailable
from synapse_gateway.proxy import spool as module
from synapse_gateway.proxy.spool import PENDING_BYTES, SpoolRoom

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = settings.Spool(memory_bytes=10, max_bytes=1 << 20)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[SpoolRoom]:
    room = SpoolRoom(tmp_path)
    yield room
    room.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_small_upload_stays_in_memory(room: SpoolRoom) -> None:
    before = descriptors()
    spool = room.open(0, SMALL)
    spool.append(b"01234")
    spool.append(b"56789")
    await spool.flush()
    assert await spool.read(2, 100) == b"23456789"
    assert descriptors() == before
    assert (room.in_memory, room.reserved, room.uploads) == (10, 10, 1)
    spool.close()
    spool.close()
    assert (room.in_memory, room.reserved, room.uploads) == (0, 0, 0)


async def test_a_larger_one_goes_to_a_file_without_a_name(room: SpoolRoom) -> None:
    before = descriptors()
    spool = room.open(0, SMALL)
    for part in (b"01234", b"56789", b"abcde", b"f"):
        spool.append(part)
    await spool.flush()
    assert room.in_memory == 0
    assert list(room.directory.iterdir()) == []
    assert descriptors() == before + 1
    assert await spool.read(0, 100) == b"0123456789abcdef"
    assert await spool.read(8, 4) == b"89ab"
    assert await spool.read(16, 4) == b""
    spool.close()
    assert descriptors() == before


async def test_parts_are_read_and_searched_as_files(room: SpoolRoom) -> None:
    for text in (b"0123456789", b"0123456789abcdef"):
        spool = room.open(0, SMALL)
        spool.append(text)
        await spool.flush()

        def work(view: io.BufferedReader) -> tuple[bytes, bytes, int, bytes]:
            first = view.read(2)
            view.seek(-3, io.SEEK_END)
            rest = view.read()
            view.seek(1)
            view.seek(1, io.SEEK_CUR)
            return first, rest, view.tell(), view.read(1)

        assert await spool.run(work, spool.view(1, 8)) == (b"12", b"678", 2, b"3")
        spool.close()


async def test_memory_in_all_is_bounded(room: SpoolRoom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 15)
    first, second = room.open(0, SMALL), room.open(0, SMALL)
    first.append(b"0123456789")
    second.append(b"0123456789")
    assert room.in_memory == 10
    await second.flush()
    assert await second.read(0, 10) == b"0123456789"
    first.close()
    second.close()
    assert room.in_memory == 0


async def test_what_is_declared_is_set_aside_at_once(room: SpoolRoom) -> None:
    first = room.open(900_000, SMALL)
    with pytest.raises(Unavailable) as refused:
        room.open(200_000, SMALL)
    assert refused.value.retry_after
    assert (room.uploads, room.refused, room.reserved) == (1, 1, 900_000)
    first.append(b"x" * 900_000)
    assert room.reserved == 900_000
    await first.flush()
    first.close()
    room.open(200_000, SMALL).close()
    assert room.reserved == 0


async def test_what_is_not_declared_is_set_aside_as_it_comes(room: SpoolRoom) -> None:
    spool = room.open(0, SMALL)
    spool.append(b"x" * (1 << 20))
    with pytest.raises(Unavailable):
        spool.append(b"x")
    await spool.flush()
    spool.close()
    assert room.reserved == 0


async def test_a_slow_disk_is_told_of_and_caught_up_with(
    room: SpoolRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_write = threading.Event()
    write = module.Spool._write_in_thread

    def slow(spool: module.Spool, data: bytearray) -> None:
        may_write.wait()
        write(spool, data)

    monkeypatch.setattr(module.Spool, "_write_in_thread", slow)
    spool = room.open(0, SMALL)
    drained = asyncio.Event()
    spool.on_drained = drained.set
    spool.append(b"a" * 20)
    assert not spool.congested
    spool.append(b"b" * (PENDING_BYTES + 1))
    assert spool.congested
    impatient = asyncio.create_task(spool.flush())
    await asyncio.sleep(0)
    impatient.cancel()
    may_write.set()
    while spool._writing:  # noqa: ASYNC110 - nobody is told but who waits, and he has left
        await asyncio.sleep(0.001)
    await drained.wait()
    assert not spool.congested
    assert await spool.read(19, 2) == b"ab"
    spool.append(b"c")
    await spool.flush()
    spool.close()


async def test_a_full_disk_is_no_loss_to_others(
    room: SpoolRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.Spool, "_write_in_thread", full)
    alone = room.open(0, SMALL)
    alone.append(b"x" * 20)
    with pytest.raises(Unavailable):
        await alone.flush()
    alone.close()
    spool = room.open(0, SMALL)
    told: list[Unavailable] = []
    spool.on_failed = told.append
    spool.append(b"x" * 20)
    with pytest.raises(Unavailable, match="disk"):
        await spool.flush()
    assert [error.retry_after for error in told] == [module.RETRY_AFTER]
    with pytest.raises(Unavailable):
        spool.append(b"x")
    spool.close()
    assert room.reserved == 0


async def test_a_file_stays_open_while_a_thread_reads_it(room: SpoolRoom) -> None:
    spool = room.open(0, SMALL)
    spool.append(b"0123456789abcdef")
    await spool.flush()
    before = descriptors()
    begun, go_on = threading.Event(), threading.Event()
    view = spool.view(0, 16)

    def work() -> bytes:
        begun.set()
        go_on.wait()
        return view.read()

    reading = asyncio.create_task(spool.run(work))
    await asyncio.to_thread(begun.wait)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    spool.close()
    assert (descriptors(), room.reserved) == (before, 16)
    go_on.set()
    while room.reserved:  # noqa: ASYNC110 - the thread tells nobody else
        await asyncio.sleep(0.001)
    assert descriptors() == before - 1


def test_a_directory_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    room = SpoolRoom(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="SYNAPSE_SPOOL_DIR"):
        room.check()
    SpoolRoom(tmp_path).check()
