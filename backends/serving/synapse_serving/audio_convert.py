"""Uploaded audio in another format, made by a process that can do no harm (see ``audio_input``)."""

import asyncio
import contextlib
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from starlette.datastructures import UploadFile

from .audio_input import AudioLimits, descriptor, parse_report, read_tail, refusal, start_child

_CONVERTER = Path(__file__).with_name("convert_child.py")


@dataclass(frozen=True, slots=True)
class Target:
    """What a file becomes.

    Attributes:
        container: FFmpeg's name of the container.
        codec: FFmpeg's name of the encoder.
        sample_format: FFmpeg's name of the samples that it takes.
        rates: Sample rates that may be chosen from; the nearest one above the file's own is.
        bit_rate: Bits a second, 0 for the encoder's own choice.
        max_channels: A file with more of them becomes stereo.
    """

    container: str
    codec: str
    sample_format: str
    rates: tuple[int, ...]
    bit_rate: int = 0
    max_channels: int = 2


async def convert_upload(
    upload: UploadFile,
    target: Target,
    *,
    limits: AudioLimits,
    max_bytes: int,
    field: str = "file",
) -> IO[bytes]:
    """The upload as ``target``, in a file without a name that the caller closes.

    Raises:
        ServiceError: As ``audio_input.decoding``; 413 also where it would be over ``max_bytes``.
    """
    source = descriptor(upload, field)
    flags = [
        f"--container={target.container}",
        f"--codec={target.codec}",
        f"--sample-format={target.sample_format}",
        f"--rates={','.join(map(str, target.rates))}",
        f"--bit-rate={target.bit_rate}",
        f"--max-channels={target.max_channels}",
        f"--max-seconds={limits.seconds}",
        f"--max-bytes={max_bytes}",
    ]
    with contextlib.ExitStack() as undo:
        sink = undo.enter_context(tempfile.TemporaryFile())
        child = await start_child(_CONVERTER, flags, limits, source, sink.fileno())
        status, errors = await _wait(child, limits.cpu_seconds * 2)
        if status != 0:
            raise refusal(status, parse_report(errors), field)
        undo.pop_all()
    return sink


async def _wait(child: asyncio.subprocess.Process, patience: float) -> tuple[int, bytes]:
    """Exit status and end of the standard error of a process, which is ended after ``patience``."""
    try:
        async with asyncio.timeout(patience):
            errors = await read_tail(child)
            return await child.wait(), errors
    except TimeoutError:
        return -signal.SIGKILL, b""
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
