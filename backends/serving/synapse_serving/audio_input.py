"""Uploaded audio, decoded where it can do no harm.

A decoder is the part of a server that a stranger's bytes reach first. It runs in a child process
with limits on memory, CPU time and output; whatever the file does to it, the server answers a 4xx
that names the reason, and nothing is left on disk: the upload lives in a file without a name.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import struct
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from starlette.datastructures import UploadFile

from .errors import BadRequest, MediaTooLarge, ServiceError, UnprocessableField, UnsupportedMedia

log = logging.getLogger(__name__)

_DECODER = Path(__file__).with_name("decode_child.py")
_BLOCK = 1 << 20
_HEAD = struct.Struct("<II")
_ERRORS: dict[int, type[ServiceError]] = {
    400: BadRequest,
    413: MediaTooLarge,
    415: UnsupportedMedia,
    422: UnprocessableField,
}


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What decoding one file may take.

    Attributes:
        seconds: Longest audio; where channels are kept, of all of them together.
        memory: Bytes of address space of the decoding process.
        cpu_seconds: CPU time of the decoding process, and half the time that it is waited for.
    """

    seconds: float = 1800.0
    memory: int = 1 << 30
    cpu_seconds: int = 30


@dataclass(frozen=True, slots=True)
class Audio:
    """Decoded audio.

    Attributes:
        samples: Mono samples in -1..1, shape (n,).
        rate: Samples a second.
        codec: FFmpeg's name of the codec that it came in.
    """

    samples: npt.NDArray[np.float32]
    rate: int
    codec: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.samples) / self.rate


@asynccontextmanager
async def decoding(
    upload: UploadFile, *, rate: int, limits: AudioLimits, field: str = "file", mono: bool = False
) -> AsyncIterator["Decoding"]:
    """Decode an uploaded file to float samples at ``rate`` Hz, piece by piece.

    The decoder is never far ahead of who reads it, and is ended with the ``async with``.

    Raises:
        BadRequest: 400, the file is empty, damaged or cut off.
        MediaTooLarge: 413, it is longer than allowed or takes too much to decode.
        UnsupportedMedia: 415, it is not audio, or holds video.
    """
    flags = [f"--rate={rate}", f"--max-seconds={limits.seconds}", *(["--mono"] if mono else [])]
    source = descriptor(upload, field)
    child = await start_child(_DECODER, flags, limits, source, asyncio.subprocess.PIPE)
    most = int((limits.seconds + 1) * rate) * 4
    running = Decoding(child, limits.cpu_seconds * 2, most, field)
    try:
        await running.begin()
        yield running
    finally:
        await running.end()


async def decode_upload(
    upload: UploadFile, *, rate: int, limits: AudioLimits, field: str = "file"
) -> Audio:
    """Decode an uploaded file to mono float samples at ``rate`` Hz.

    A file that is whole and lasts no time at all, as a WAV header alone can say, has no samples.

    Raises:
        ServiceError: As :func:`decoding`.
    """
    data = bytearray()
    async with decoding(upload, rate=rate, limits=limits, field=field, mono=True) as running:
        async for block in running.blocks():
            data += block.data
        codec = running.codec
    return Audio(np.frombuffer(data, dtype="<f4"), rate, codec)


class Decoding:
    """A decoding process and what it says.

    Attributes:
        rate: Sample rate of the file itself.
        channels: Channels of the samples.
        codec: FFmpeg's name of the codec; known at the end.
    """

    def __init__(
        self, child: asyncio.subprocess.Process, patience: float, most: int, field: str
    ) -> None:
        """Wait ``patience`` seconds for it in all, and take ``most`` bytes."""
        self._child = child
        self._patience = patience
        self._most = most
        self._field = field
        self._errors = asyncio.create_task(read_tail(child))
        self.rate = self.channels = 0
        self.codec = ""

    async def begin(self) -> None:
        """Wait for the file's own rate and its channels."""
        head = await self._read(_HEAD.size)
        if len(head) < _HEAD.size:
            await self._finish()
        self.rate, self.channels = _HEAD.unpack(head)

    async def blocks(self) -> AsyncIterator[npt.NDArray[np.float32]]:
        """Samples in -1..1 of shape (n, channels), about a megabyte at a time."""
        width = 4 * self.channels
        size = _BLOCK - _BLOCK % width
        while data := await self._read(size):
            self._most -= len(data)
            if self._most < 0:
                raise refusal(0, {}, self._field)
            yield np.frombuffer(data[: len(data) - len(data) % width], "<f4").reshape(
                -1, self.channels
            )
        await self._finish()

    async def end(self) -> None:
        """Leave no process behind."""
        if self._child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._child.kill()
            await self._child.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._errors

    async def _read(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end; what it takes is the child's time."""
        assert self._child.stdout is not None  # noqa: S101 - it was opened with a pipe
        begun = time.monotonic()
        try:
            async with asyncio.timeout(self._patience):
                return await self._child.stdout.readexactly(size)
        except asyncio.IncompleteReadError as error:
            return error.partial
        except TimeoutError:
            raise refusal(-signal.SIGKILL, {}, self._field) from None
        finally:
            self._patience -= time.monotonic() - begun

    async def _finish(self) -> None:
        report = parse_report(await self._errors)
        status = await self._child.wait()
        if status != 0:
            raise refusal(status, report, self._field)
        self.codec = str(report["codec"])


def descriptor(upload: UploadFile, field: str) -> int:
    """The upload as a file descriptor at its start; it stays the upload's own.

    Raises:
        BadRequest: It is empty.
    """
    if not upload.size:
        raise BadRequest(f"{field}: the file is empty", param=field, code="invalid_audio")
    number = upload.file.fileno()  # a small one, so far only in memory, becomes a real file
    upload.file.flush()
    os.lseek(number, 0, os.SEEK_SET)
    return number


async def start_child(
    program: Path, flags: list[str], limits: AudioLimits, source: int, sink: int
) -> asyncio.subprocess.Process:
    """A process under ``limits`` that reads the descriptor ``source`` and writes ``sink``."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(program),
        f"--memory={limits.memory}",
        f"--cpu-seconds={limits.cpu_seconds}",
        *flags,
        stdin=source,
        stdout=sink,
        stderr=asyncio.subprocess.PIPE,
        # Nothing of the server's environment, but where the libraries are.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        cwd="/",
        limit=_BLOCK,
    )


def refusal(status: int, report: dict[str, Any], field: str) -> ServiceError:
    """Why a child failed, as an error for the caller."""
    if "error" in report:
        message, code = str(report["error"]), int(report["status"])
        field = str(report.get("param", field))
    elif status in {-signal.SIGXCPU, -signal.SIGKILL}:
        message, code = "decoding the file takes too long", 413
    else:
        log.warning("a decoding process ended with %d and said nothing that is understood", status)
        message, code = "the file makes the decoder fail", 400
    word = None if code == 422 else "invalid_audio"
    return _ERRORS[code](f"{field}: {message}", param=field, code=word)


async def read_tail(child: asyncio.subprocess.Process) -> bytes:
    """The end of the child's standard error."""
    tail = b""
    assert child.stderr is not None  # noqa: S101 - it was opened with a pipe
    while block := await child.stderr.read(4096):
        tail = (tail + block)[-4096:]
    return tail


def parse_report(errors: bytes) -> dict[str, Any]:
    """The JSON object on the last line, or nothing."""
    lines = errors.strip().splitlines()
    if not lines:
        return {}
    try:
        report = json.loads(lines[-1])
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
