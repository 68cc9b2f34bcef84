"""Looks at a reference recording: is it a WAV file, how long is it, how loud."""

from __future__ import annotations

import math
import operator
import sys
from array import array
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from synapse_gateway.audio_api.wav import BadWav, Format, WavReader

if TYPE_CHECKING:
    from collections.abc import Iterator

READ_BYTES = 256 * 1024
BLOCK_FRAMES = 4096
BLOCKS = 256
"""Blocks, spread evenly, by which the loudness is told: 22 s of 48 kHz, whatever the length."""
SILENCE = -120.0
"""What the loudness of nothing is said to be, in dB."""


class Looked(msgspec.Struct, frozen=True):
    """What a recording is like."""

    bytes: int
    sample_rate: int
    channels: int
    bits: int
    seconds: float
    loudness: float
    """Root mean square of the samples in dB below full scale (dBFS); -120 for silence."""
    coding: int
    """1 for integers, 3 for floating point."""
    data_start: int
    """Where in the file the samples begin."""
    data_bytes: int

    @property
    def format(self) -> Format:
        """How the samples are laid out."""
        return Format(self.coding, self.channels, self.sample_rate, self.bits)


def look(file: BinaryIO) -> Looked:
    """Read a recording through, without decoding it.

    Args:
        file: From its beginning; it can be searched.

    Raises:
        BadWav: It is no WAV file of plain samples, or not whole, or empty.
    """
    reader = WavReader()
    size = 0
    while piece := file.read(READ_BYTES):
        size += len(piece)
        reader.feed(piece)
    reader.finish()
    found = reader.format
    if found is None or not reader.given:
        raise BadWav("it has no samples")
    return Looked(
        bytes=size,
        sample_rate=found.rate,
        channels=found.channels,
        bits=found.bits,
        seconds=round(found.seconds(reader.given), 3),
        loudness=_loudness(file, found, reader.start, reader.given),
        coding=found.coding,
        data_start=reader.start,
        data_bytes=reader.given,
    )


def _loudness(file: BinaryIO, form: Format, start: int, size: int) -> float:
    total, count = 0.0, 0
    for block in _blocks(file, form, start, size):
        total += sum(map(operator.mul, block, block))
        count += len(block)
    full = 1.0 if form.coding == 3 else float(1 << min(form.bits, 16) - 1)
    power = total / count / full**2
    return round(10 * math.log10(power), 1) if 1e-12 < power < math.inf else SILENCE


def _blocks(file: BinaryIO, form: Format, start: int, size: int) -> Iterator[array[Any]]:
    frame = form.frame_bytes
    frames = size // frame
    step = max(1, frames // BLOCKS)
    for first in range(0, frames, max(step, BLOCK_FRAMES)):
        file.seek(start + first * frame)
        yield _samples(file.read(min(BLOCK_FRAMES, frames - first) * frame), form)


def _samples(data: bytes, form: Format) -> array[Any]:
    """Return samples as numbers; of those with more than 16 bits the upper 16."""
    width = form.bits // 8
    numbers: array[Any]
    if form.coding == 3:
        numbers = array("d" if width == 8 else "f", data)
    elif width == 1:
        # 8-bit samples alone are unsigned
        return array("h", [value - 128 for value in data])
    else:
        if width > 2:
            upper = bytearray(len(data) // width * 2)
            upper[::2] = data[width - 2 :: width]
            upper[1::2] = data[width - 1 :: width]
            data = bytes(upper)
        numbers = array("h", data)
    if sys.byteorder == "big":  # pragma: no cover - WAV files are little-endian
        numbers.byteswap()
    return numbers
