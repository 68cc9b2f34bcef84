"""Recordings for the library's tests."""

from __future__ import annotations

import io
import math
import struct
from typing import TYPE_CHECKING

from synapse_gateway.audio_api.wav import Format
from synapse_gateway.voices.library import Source

if TYPE_CHECKING:
    from collections.abc import Callable

FORMAT = Format(1, 1, 16000, 16)


def tone(seconds: float, *, rate: int = 16000, amplitude: float = 0.5, seed: int = 0) -> bytes:
    """Return a WAV file with a sine of 440 Hz; another seed makes another file."""
    count = int(seconds * rate)
    samples = [
        int(32767 * amplitude * math.sin(2 * math.pi * 440 * n / rate)) for n in range(count)
    ]
    samples[0] = seed
    data = struct.pack(f"<{count}h", *samples)
    return FORMAT._replace(rate=rate).head(len(data)) + data


def sources(*files: bytes) -> list[Source]:
    """Return recordings as an upload gives them."""
    return [Source(f"{number}.wav", opening(data)) for number, data in enumerate(files)]


def opening(data: bytes) -> Callable[[], io.BytesIO]:
    """Return what opens a file anew each time."""
    return lambda: io.BytesIO(data)
