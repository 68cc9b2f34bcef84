"""Audio files for the tests, made with the codecs that the servers meet, and broken ones."""

from __future__ import annotations

import io
import struct
from random import Random
from typing import Any

import av
import numpy as np

from synapse_serving.audio_output import encode

RATE = 16_000


def tone(seconds: float, rate: int = RATE) -> Any:
    """A sine of 440 Hz as 16-bit samples."""
    times = np.arange(int(seconds * rate)) / rate
    return (np.sin(2 * np.pi * 440 * times) * 12_000).astype(np.int16)


def encoded(name: str, seconds: float = 2.0) -> bytes:
    """A tone in one of the formats that the speech servers write."""
    return b"".join(encode([tone(seconds)], RATE, name))


def container(form: str, codec: str, *, seconds: float = 2.0, video: bool = False) -> bytes:
    """A quiet recording in any container, with a moving picture on request."""
    out = io.BytesIO()
    rate = 48_000
    with av.open(out, "w", format=form) as made:
        sound: Any = made.add_stream(codec, rate=rate)
        sound.layout = "mono"
        picture: Any = made.add_stream("mpeg4", rate=10) if video else None
        if picture is not None:
            picture.width = picture.height = 64
            picture.pix_fmt = "yuv420p"
        frame = av.AudioFrame.from_ndarray(tone(seconds, rate)[None, :], "s16", "mono")
        frame.sample_rate = rate
        frame.pts = 0
        made.mux(sound.encode(frame))
        if picture is not None:
            image = np.zeros((64, 64, 3), np.uint8)
            made.mux(picture.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            made.mux(picture.encode(None))
        made.mux(sound.encode(None))
    return out.getvalue()


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
