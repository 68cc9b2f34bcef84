"""Samples into bytes as they are made: WAV and raw PCM by hand, the rest by FFmpeg (PyAV)."""

import importlib.util
import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

# A length that says "until the end", for a stream whose length nobody knows yet.
_UNKNOWN = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Format:
    """An audio format of OpenAI's speech API.

    Attributes:
        media_type: For the Content-Type header.
        container: FFmpeg's container, empty where FFmpeg is not needed.
        codec: FFmpeg's encoder.
        rate: Sample rate that the codec asks for, 0 for the voice's own.
        bit_rate: Bits a second, 0 for lossless.
    """

    media_type: str
    container: str = ""
    codec: str = ""
    rate: int = 0
    bit_rate: int = 0


FORMATS = {
    "wav": Format("audio/wav"),
    "pcm": Format("audio/pcm", rate=24_000),
    "mp3": Format("audio/mpeg", "mp3", "libmp3lame", 0, 64_000),
    "opus": Format("audio/ogg", "ogg", "libopus", 48_000, 32_000),
    "aac": Format("audio/aac", "adts", "aac", 0, 64_000),
    "flac": Format("audio/flac", "flac", "flac"),
}


def available_formats() -> list[str]:
    """Names of the formats that can be made here; all but WAV and PCM need PyAV."""
    if importlib.util.find_spec("av") is not None:
        return list(FORMATS)
    return ["wav"]


def wav_header(rate: int, samples: int | None = None, channels: int = 1) -> bytes:
    """A 44-byte WAV header for 16-bit samples.

    Args:
        rate: Samples a second of each channel.
        samples: Samples of each channel; None for a stream of unknown length.
        channels: How many there are.
    """
    width = 2 * channels
    size = _UNKNOWN if samples is None else samples * width
    riff = _UNKNOWN if samples is None else size + 36
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * width, width, 16)
    head = struct.pack("<4sI4s4sI", b"RIFF", riff, b"WAVE", b"fmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", size)


def encode(chunks: Iterable[Samples], rate: int, name: str) -> Iterator[bytes]:
    """Bytes of the format ``name`` for chunks of 16-bit mono samples at ``rate`` Hz.

    Each chunk's bytes come out before the next chunk is asked for, but for what a codec holds back.
    """
    form = FORMATS[name]
    if name == "wav":
        # The header leaves with the first samples: what fails before them still has a status.
        head = wav_header(rate)
        for chunk in chunks:
            yield head + chunk.astype("<i2", copy=False).tobytes()
            head = b""
    elif name == "pcm":
        yield from _resampled(chunks, rate, form.rate)
    else:
        yield from _encoded(chunks, rate, form)


def stretched(chunk: Samples, rate: int, speed: float) -> Samples:
    """The same speech in ``1 / speed`` of the time, its pitch kept (FFmpeg's filter atempo).

    Args:
        chunk: 16-bit mono samples.
        rate: Samples a second.
        speed: 0.25 to 4.
    """
    import av  # noqa: PLC0415 - a server without PyAV still speaks WAV

    graph = av.filter.Graph()
    # One atempo goes from half to double without artefacts; the square root is asked of two.
    half = f"{speed**0.5:.6f}"
    graph.link_nodes(
        graph.add_abuffer(
            sample_rate=rate, format="s16", layout="mono", time_base=Fraction(1, rate)
        ),
        graph.add("atempo", half),
        graph.add("atempo", half),
        graph.add("aformat", "sample_fmts=s16:channel_layouts=mono"),
        graph.add("abuffersink"),
    ).configure()
    graph.push(_frame(chunk, rate, 0))
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().reshape(-1))
        except (av.EOFError, BlockingIOError):
            break
    return np.concatenate(parts) if parts else chunk[:0]


class _Sink(io.RawIOBase):
    """Collects what FFmpeg writes; it cannot seek, so FFmpeg writes a stream."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken


def _frame(chunk: Samples, rate: int, position: int) -> Any:
    import av  # noqa: PLC0415 - a server without PyAV still speaks WAV

    frame = av.AudioFrame.from_ndarray(chunk.reshape(1, -1), format="s16", layout="mono")
    frame.sample_rate = rate
    frame.pts = position
    return frame


def _resampled(chunks: Iterable[Samples], rate: int, target: int) -> Iterator[bytes]:
    import av  # noqa: PLC0415 - see _frame

    resampler = av.AudioResampler(format="s16", layout="mono", rate=target)
    position = 0
    for chunk in chunks:
        for out in resampler.resample(_frame(chunk, rate, position)):
            yield out.to_ndarray().astype("<i2", copy=False).tobytes()
        position += len(chunk)
    for out in resampler.resample(None):
        yield out.to_ndarray().astype("<i2", copy=False).tobytes()


def _encoded(chunks: Iterable[Samples], rate: int, form: Format) -> Iterator[bytes]:
    import av  # noqa: PLC0415 - see _frame

    sink = _Sink()
    with av.open(sink, "w", format=form.container) as container:
        stream: Any = container.add_stream(form.codec, rate=form.rate or rate)
        stream.layout = "mono"
        if form.bit_rate:
            stream.bit_rate = form.bit_rate
        position = 0
        for chunk in chunks:
            container.mux(stream.encode(_frame(chunk, rate, position)))
            position += len(chunk)
            if data := sink.take():
                yield data
        container.mux(stream.encode(None))
    if data := sink.take():
        yield data
