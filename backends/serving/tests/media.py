"""Audio files for the tests, made with the codecs that the servers meet, and broken ones."""

from __future__ import annotations

import struct
from random import Random

from synapse_quality.recordings import RATE, tone
from synapse_serving.audio_output import encode


def encoded(name: str, seconds: float = 2.0) -> bytes:
    """A tone in one of the formats that the speech servers write."""
    return b"".join(encode([tone(seconds)], RATE, name))


def wav(
    *,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    frames: int = RATE,
    promised: int | None = None,
) -> bytes:
    """A WAV file of silence whose header may lie; ``promised`` is the size of its data in bytes."""
    width = max(1, channels * bits // 8)
    data = bytes(frames * width)
    size = len(data) if promised is None else promised
    head = struct.pack("<4sI4s4sI", b"RIFF", (size + 36) & 0xFFFFFFFF, b"WAVE", b"fmt ", 16)
    form = struct.pack("<HHIIHH", 1, channels, rate, (rate * width) & 0xFFFFFFFF, width, bits)
    return head + form + struct.pack("<4sI", b"data", size) + data


def noise(count: int) -> bytes:
    """Bytes that mean nothing, the same in every run."""
    return Random(7).randbytes(count)  # noqa: S311 - not for secrets
