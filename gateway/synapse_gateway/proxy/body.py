"""What a request to a backend carries, where that is more than a few bytes in memory."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from synapse_gateway.proxy.spool import Spool

PIECE_BYTES = 128 * 1024
"""Bytes that are read at a time."""


class Body(Protocol):
    """A body that is sent piece by piece, as fast as the backend takes it."""

    @property
    def length(self) -> int:
        """Bytes in all."""

    async def read(self, at: int) -> bytes:
        """Return some bytes, at least one.

        Args:
            at: Where they begin; less than `length`.

        Raises:
            OSError: They cannot be read.
        """


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a spool."""

    spool: Spool
    start: int
    size: int

    def __len__(self) -> int:
        return self.size

    async def read(self, at: int) -> bytes:
        """Return some bytes from a place of it on."""
        piece = await self.spool.read(self.start + at, min(PIECE_BYTES, self.size - at))
        if not piece:
            raise OSError("the spool ends before the upload does")
        return piece


@dataclass(frozen=True, slots=True)
class Stored:
    """A part of a file.

    Attributes:
        path: The file, which is opened when it is read.
        start: Where the part begins.
        size: Bytes.
        run: Runs something in a thread.
    """

    path: Path
    start: int
    size: int
    run: Callable[..., Awaitable[bytes]]

    def __len__(self) -> int:
        return self.size

    async def read(self, at: int) -> bytes:
        """Return some bytes from a place of it on."""
        most = min(PIECE_BYTES, self.size - at)
        piece = await self.run(_read_file, self.path, self.start + at, most)
        if not piece:
            raise OSError("the file ends before its part does")
        return piece


def _read_file(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


Part = bytes | Span | Stored


class Joined:
    """Several parts, one after the other.

    Args:
        parts: Bytes, and what is read when its turn comes; none of them empty.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._starts = [0, *accumulate(len(part) for part in parts)]

    @property
    def length(self) -> int:
        """Bytes in all."""
        return self._starts[-1]

    async def read(self, at: int) -> bytes:
        """Return some bytes of the part that holds a place."""
        index = bisect_right(self._starts, at) - 1
        part = self._parts[index]
        within = at - self._starts[index]
        return part[within:] if isinstance(part, bytes) else await part.read(within)
