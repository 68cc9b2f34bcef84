"""Recordings of a tone in any container, as tests send them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import av
import numpy as np

RATE = 16_000
"""Hertz, where no other is asked for."""


def tone(seconds: float, rate: int = RATE) -> Any:
    """A sine of 440 Hz as 16-bit samples."""
    times = np.arange(int(seconds * rate)) / rate
    return (np.sin(2 * np.pi * 440 * times) * 12_000).astype(np.int16)


@cache
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
