from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.config import settings
from synapse_gateway.proxy import body as module
from synapse_gateway.proxy.body import Joined, Span, Stored
from synapse_gateway.proxy.spool import SpoolRoom

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.proxy.body import Body


async def whole(body: Body) -> bytes:
    read = b""
    while len(read) < body.length:
        piece = await body.read(len(read))
        assert piece
        read += piece
    return read


@given(parts=st.lists(st.binary(min_size=1, max_size=5), min_size=1, max_size=6))
async def test_parts_follow_each_other(parts: list[bytes]) -> None:
    joined = Joined(parts)
    assert joined.length == sum(map(len, parts))
    assert await whole(joined) == b"".join(parts)


@pytest.mark.parametrize("memory", [100, 0], ids=["memory", "disk"])
async def test_spans_are_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 4)
    room = SpoolRoom(tmp_path)
    spool = room.open(0, settings.Spool(memory_bytes=memory))
    spool.append(b"0123456789")
    await spool.flush()
    body = Joined([b"<", Span(spool, 2, 7), b">", Span(spool, 0, 1)])
    assert (body.length, await whole(body)) == (10, b"<2345678>0")
    assert await body.read(3) == b"4567"
    with pytest.raises(OSError, match="ends before"):
        await Span(spool, 8, 5).read(3)
    spool.close()
    room.close()


async def test_a_part_of_a_file_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_BYTES", 4)
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    body = Joined([b"<", Stored(path, 2, 7, asyncio.to_thread), b">"])
    assert (body.length, await whole(body)) == (9, b"<2345678>")
    with pytest.raises(OSError, match="ends before"):
        await Stored(path, 8, 5, asyncio.to_thread).read(2)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        await body.read(1)
