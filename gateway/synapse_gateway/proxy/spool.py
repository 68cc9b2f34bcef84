"""Where uploads lie until they are answered: in memory while small, beyond in a file without name.

An upload is sent to one backend after the other from here, so it is held once however many are
asked. What all uploads together may take is bounded: the size that a request declares is set aside
before its first byte is read, so that uploads that have begun always find room to end.

Files are read and written in threads, never by the event loop: a disk that is busy stalls the
uploads that wait for it and nobody else.
"""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from synapse_gateway.errors import ConfigError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future
    from pathlib import Path

    from synapse_gateway.config.settings import Spool as SpoolSettings

T = TypeVar("T")

THREADS = 8
"""Threads that read and write files."""
MEMORY_BYTES = 64 * 1024 * 1024
"""Bytes of all uploads together that stay in memory; what comes then goes to files at once."""
PENDING_BYTES = 256 * 1024
"""Bytes of one upload that may wait for the disk before its caller is told to pause."""
RETRY_AFTER = 3.0
"""Seconds after which an upload that found no room may find some."""


class SpoolRoom:
    """All uploads of this process.

    Args:
        directory: Where files go; on the same machine, with as much room as `max_bytes` says.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.reserved = 0
        """Bytes set aside for uploads, on disk and in memory."""
        self.uploads = 0
        self.refused = 0
        """Uploads that found no room, since the start."""
        self.in_memory = 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="spool")

    def check(self) -> None:
        """Try whether files can be made.

        Raises:
            ConfigError: They cannot.
        """
        try:
            tempfile.TemporaryFile(dir=self.directory).close()
        except OSError as error:
            raise ConfigError(
                f"uploads cannot be kept in {self.directory}: {error.strerror}; name a directory "
                "that can be written in SYNAPSE_SPOOL_DIR"
            ) from error

    def open(self, expected: int, settings: SpoolSettings) -> Spool:
        """Begin an upload.

        Args:
            expected: Bytes that it declares; 0 if it does not say.
            settings: Bounds.

        Raises:
            Unavailable: There is no room for it now.
        """
        spool = Spool(self, settings)
        spool.reserve(expected)
        self.uploads += 1
        return spool

    def close(self) -> None:
        """Wait for what threads still do."""
        self._threads.shutdown(wait=True)

    def submit(self, work: Callable[..., T], *args: object) -> Future[T]:
        """Run something in a thread."""
        return self._threads.submit(work, *args)


class Spool:
    """The bytes of one upload; written once from the front, read anywhere and any number of times.

    Attributes:
        size: Bytes so far.
        on_drained: Called when what was appended has been written.
        on_failed: Called with the reason, which is fit for the caller, when it takes no more.
    """

    def __init__(self, room: SpoolRoom, settings: SpoolSettings) -> None:
        self.size = 0
        self.on_drained: Callable[[], None] = _nothing
        self.on_failed: Callable[[Unavailable], None] = _ignore
        self._room = room
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._reserved = 0
        self._memory = bytearray()
        self._file: BinaryIO | None = None
        self._on_disk = False
        self._written = 0
        self._pending = bytearray()
        self._writing = False
        self._failed: Unavailable | None = None
        self._flushed: asyncio.Future[None] | None = None
        self._uses = 0
        self._closed = False

    @property
    def congested(self) -> bool:
        """Whether more waits for the disk than should."""
        return len(self._pending) > PENDING_BYTES

    def reserve(self, size: int) -> None:
        """Set room aside for so many bytes in all.

        Raises:
            Unavailable: There is not so much.
        """
        more = size - self._reserved
        if more <= 0:
            return
        room = self._room
        if room.reserved + more > self._settings.max_bytes:
            room.refused += 1
            raise Unavailable(
                "The gateway has no room for this upload now.",
                code="upload_room_full",
                retry_after=RETRY_AFTER,
            )
        room.reserved += more
        self._reserved = size

    def append(self, data: bytes) -> None:
        """Add bytes; `on_drained` tells when a congested one has caught up.

        Raises:
            Unavailable: There is no room for them, or the disk takes no more.
        """
        if self._failed is not None:
            raise self._failed
        self.reserve(self.size + len(data))
        self.size += len(data)
        if not self._on_disk:
            room = self._room
            if (
                self.size <= self._settings.memory_bytes
                and room.in_memory + len(data) <= MEMORY_BYTES
            ):
                self._memory += data
                room.in_memory += len(data)
                return
            self._on_disk = True
            self._pending += self._memory
            self._forget_memory()
        self._pending += data
        self._write()

    async def flush(self) -> None:
        """Wait until everything is written.

        Raises:
            Unavailable: The disk does not take it.
        """
        if self._writing:
            self._flushed = self._loop.create_future()
            await self._flushed
        if self._failed is not None:
            raise self._failed

    async def read(self, start: int, size: int) -> bytes:
        """Return bytes, fewer than asked for at the end only.

        Raises:
            OSError: The disk does not give them.
        """
        if not self._on_disk:
            return bytes(self._memory[start : start + size])
        file = self._file
        assert file is not None  # noqa: S101 - everything is flushed before it is read
        return await self.run(_read_at, file.fileno(), start, size)

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Run something in a thread; the file stays open until it is done, whoever waits for it."""
        self._uses += 1
        future = self._room.submit(work, *args)
        future.add_done_callback(self._done_in_thread)
        return await asyncio.wrap_future(future)

    def view(self, start: int, size: int) -> io.BufferedReader:
        """Return a part of it as a file that can be read and searched, for use within `run`."""
        raw: io.RawIOBase
        if self._file is None:
            raw = _Part(lambda at, most: bytes(self._memory[at : at + most]), start, size)
        else:
            number = self._file.fileno()
            raw = _Part(lambda at, most: os.pread(number, most, at), start, size)
        return io.BufferedReader(raw)

    def close(self) -> None:
        """Give everything back, as soon as no thread uses it."""
        if self._closed:
            return
        self._closed = True
        self._room.uploads -= 1
        self._forget_memory()
        self._pending = bytearray()
        self._release()

    # inside

    def _forget_memory(self) -> None:
        self._room.in_memory -= len(self._memory)
        self._memory = bytearray()

    def _write(self) -> None:
        if self._writing or not self._pending or self._failed is not None:
            return
        self._writing = True
        data, self._pending = self._pending, bytearray()
        self._uses += 1
        future = self._room.submit(self._write_in_thread, data)
        future.add_done_callback(self._written_in_thread)

    def _write_in_thread(self, data: bytearray) -> None:
        if self._file is None:
            made = tempfile.TemporaryFile(buffering=0, dir=self._room.directory)  # noqa: SIM115
            self._file = cast("BinaryIO", made)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def _written_in_thread(self, future: Future[None]) -> None:
        self._loop.call_soon_threadsafe(self._on_written, future.exception())

    def _on_written(self, error: BaseException | None) -> None:
        self._writing = False
        self._used()
        if error is not None:
            self._failed = Unavailable(
                "The gateway cannot keep this upload: its disk takes no more.",
                code="upload_room_full",
                retry_after=RETRY_AFTER,
            )
            self._failed.__cause__ = error
            self._settle_flush()
            self.on_failed(self._failed)
            return
        self._write()
        if not self._writing:
            self._settle_flush()
        self.on_drained()

    def _settle_flush(self) -> None:
        if self._flushed is not None and not self._flushed.done():
            self._flushed.set_result(None)

    def _done_in_thread(self, _: Future[T]) -> None:
        self._loop.call_soon_threadsafe(self._used)

    def _used(self) -> None:
        self._uses -= 1
        if self._closed:
            self._release()

    def _release(self) -> None:
        if self._uses:
            return
        if self._file is not None:
            self._file.close()
            self._file = None
        self._room.reserved -= self._reserved
        self._reserved = 0


def _nothing() -> None:
    pass


def _ignore(_: Unavailable) -> None:
    pass


def _read_at(number: int, start: int, size: int) -> bytes:
    """Read from a file wherever its position is; short reads are completed."""
    parts = []
    while size > 0:
        part = os.pread(number, size, start)
        if not part:
            break
        parts.append(part)
        start += len(part)
        size -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class _Part(io.RawIOBase):
    """A part of a spool as a file."""

    def __init__(self, read_at: Callable[[int, int], bytes], start: int, size: int) -> None:
        self._read_at = read_at
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(cast("bytearray", buffer)).cast("B")
        wanted = min(len(view), max(0, self._size - self._at))
        data = self._read_at(self._start + self._at, wanted)
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
