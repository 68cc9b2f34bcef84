"""Uploaded audio, decoded where it can do no harm.

A decoder is the part of a server that a stranger's bytes reach first. It runs in a child process
with limits on memory, CPU time and output; whatever the file does to it, the server answers a 4xx
that names the reason, and nothing is left on disk: the upload lives in a file without a name.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
from starlette.datastructures import UploadFile

from .errors import BadRequest, MediaTooLarge, ServiceError, UnsupportedMedia

_CHILD = Path(__file__).with_name("decode_child.py")
_BLOCK = 1 << 20
_ERRORS: dict[int, type[ServiceError]] = {
    400: BadRequest,
    413: MediaTooLarge,
    415: UnsupportedMedia,
}


@dataclass(frozen=True, slots=True)
class AudioLimits:
    """What decoding one file may take.

    Attributes:
        seconds: Longest audio.
        memory: Bytes of address space of the decoding process.
        cpu_seconds: CPU time of the decoding process, and half the time on the clock that it has.
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


async def decode_upload(
    upload: UploadFile, *, rate: int, limits: AudioLimits, field: str = "file"
) -> Audio:
    """Decode an uploaded file to mono float samples at ``rate`` Hz.

    Raises:
        BadRequest: 400, the file is empty, damaged or cut off.
        MediaTooLarge: 413, it is longer than allowed or takes too much to decode.
        UnsupportedMedia: 415, it is not audio, or holds video.
    """
    if not upload.size:
        raise BadRequest(f"{field}: the file is empty", param=field, code="invalid_audio")
    with _as_real_file(upload.file) as source:
        status, samples, report = await _run_child(source, rate, limits)
    if status == 0:
        return Audio(np.frombuffer(samples, dtype="<f4"), rate, str(report["codec"]))
    message, code = _reason(status, report)
    raise _ERRORS[code](f"{field}: {message}", param=field, code="invalid_audio")


def _as_real_file(spooled: IO[bytes]) -> IO[bytes]:
    """A file with a descriptor, positioned at its start; a small upload is only in memory."""
    spooled.seek(0)
    real = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        while block := spooled.read(_BLOCK):
            real.write(block)
        real.flush()
        os.lseek(real.fileno(), 0, os.SEEK_SET)
    except BaseException:
        real.close()
        raise
    return real


def _reason(status: int, report: dict[str, object]) -> tuple[str, int]:
    """Why a child failed, and the HTTP status for it."""
    if "error" in report:
        return str(report["error"]), int(str(report["status"]))
    if status in {-signal.SIGXCPU, -signal.SIGKILL}:
        return "decoding the file takes too long", 413
    return "the file makes the decoder fail", 400


async def _run_child(
    source: IO[bytes], rate: int, limits: AudioLimits
) -> tuple[int, bytearray, dict[str, object]]:
    """Exit status, samples and report of a decoding process."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_CHILD),
        f"--rate={rate}",
        f"--max-seconds={limits.seconds}",
        f"--memory={limits.memory}",
        f"--cpu-seconds={limits.cpu_seconds}",
        stdin=source,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Nothing of the server's environment, but where the libraries are.
        env={name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},
        cwd="/",
        limit=_BLOCK,
    )
    try:
        async with asyncio.timeout(limits.cpu_seconds * 2):
            samples, errors = await asyncio.gather(
                _read_bounded(child, int(limits.seconds * rate + rate) * 4), _read_tail(child)
            )
            await child.wait()
    except TimeoutError:
        samples, errors = bytearray(), b""
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    return child.returncode or 0, samples, _parse(errors)


async def _read_bounded(child: asyncio.subprocess.Process, most: int) -> bytearray:
    """The child's standard output; the child is killed when it writes more than ``most`` bytes."""
    data = bytearray()
    assert child.stdout is not None  # noqa: S101 - it was opened with a pipe
    while block := await child.stdout.read(_BLOCK):
        data += block
        if len(data) > most:
            child.kill()
            break
    return data


async def _read_tail(child: asyncio.subprocess.Process) -> bytes:
    """The end of the child's standard error."""
    tail = b""
    assert child.stderr is not None  # noqa: S101 - it was opened with a pipe
    while block := await child.stderr.read(4096):
        tail = (tail + block)[-4096:]
    return tail


def _parse(errors: bytes) -> dict[str, object]:
    lines = errors.strip().splitlines()
    if not lines:
        return {}
    try:
        report = json.loads(lines[-1])
    except ValueError:
        return {}
    return report if isinstance(report, dict) else {}
