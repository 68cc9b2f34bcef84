"""WAV files as streams of samples: their heads are read and written, the samples never looked at.

RIFF and WAVE by Microsoft's "Multimedia Programming Interface and Data Specifications 1.0". A
server that does not know the length when it begins writes 0 or 0xFFFFFFFF for it; the end of the
body is then the end of the sound.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

MAX_HEAD_BYTES = 64 * 1024
"""A head without samples that is longer is refused."""
UNKNOWN = 0xFFFFFFFF
"""Length of what is not known yet."""
_FORMAT = struct.Struct("<HHIIHH")
_CHUNK = struct.Struct("<4sI")
_EXTENSIBLE = 0xFFFE
_PCM, _FLOAT = 1, 3


class BadWav(ValueError):
    """It is no WAV file, or not one that can be read; the text says why.

    Attributes:
        other_media: Whether it is something else, rather than broken.
    """

    def __init__(self, text: str, *, other_media: bool = False) -> None:
        super().__init__(text)
        self.other_media = other_media


class Format(NamedTuple):
    """How samples are laid out."""

    coding: int
    """1 for integers, 3 for floating point."""
    channels: int
    rate: int
    """Samples a second of each channel."""
    bits: int
    """Of one sample."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one sample of all channels."""
        return self.channels * self.bits // 8

    def seconds(self, size: int) -> float:
        """Return how long so many bytes of samples last."""
        return size / (self.frame_bytes * self.rate)

    def head(self, size: int | None) -> bytes:
        """Return the head of a file.

        Args:
            size: Bytes of samples; None if they are not counted yet.
        """
        data = UNKNOWN if size is None else size
        whole = UNKNOWN if size is None else 36 + size + size % 2
        frame = self.frame_bytes
        described = _FORMAT.pack(
            self.coding, self.channels, self.rate, self.rate * frame, frame, self.bits
        )
        return b"RIFF%bWAVEfmt %b%bdata%b" % (
            struct.pack("<I", whole),
            struct.pack("<I", len(described)),
            described,
            struct.pack("<I", data),
        )


class WavReader:
    """Takes a file piece by piece and gives its samples.

    Attributes:
        format: Once the head is there.
        promised: Bytes of samples that the head announces; None where it does not know.
        given: Bytes of samples so far.
        start: Where in the file they begin.
    """

    def __init__(self) -> None:
        self.format: Format | None = None
        self.promised: int | None = None
        self.given = 0
        self.start = 0
        self._fed = 0
        self._head = b""
        self._in_data = False

    def feed(self, data: bytes) -> bytes:
        """Return the samples in the next bytes.

        Raises:
            BadWav: They are not those of a WAV file.
        """
        self._fed += len(data)
        if not self._in_data:
            self._head += data
            data = self._read_head()
        if self.promised is not None:
            # what follows the samples are notes about them
            data = data[: self.promised - self.given]
        self.given += len(data)
        return data

    def finish(self) -> None:
        """Note the end of the file.

        Raises:
            BadWav: It ends before its samples do.
        """
        if not self._in_data:
            raise BadWav("it ends within its head")
        if self.promised is not None and self.given < self.promised:
            raise BadWav(f"it promises {self.promised} bytes of samples and has {self.given}")
        frame = self.format.frame_bytes if self.format is not None else 1
        if self.given % frame:
            raise BadWav("it ends within a sample")

    def _read_head(self) -> bytes:
        """Return what follows the head, once it is whole."""
        head = self._head
        if len(head) >= 12 and (head[:4] != b"RIFF" or head[8:12] != b"WAVE"):
            raise BadWav("it does not begin as one", other_media=True)
        at = 12
        while len(head) >= at + _CHUNK.size:
            name, size = _CHUNK.unpack_from(head, at)
            at += _CHUNK.size
            if name == b"data":
                return self._begin_data(size, head[at:])
            if len(head) < at + size:
                break
            if name == b"fmt ":
                self.format = _read_format(head[at : at + size])
            at += size + size % 2
        if len(head) > MAX_HEAD_BYTES:
            raise BadWav("its head is too long")
        return b""

    def _begin_data(self, size: int, rest: bytes) -> bytes:
        if self.format is None:
            raise BadWav("its samples come before their format")
        self._in_data = True
        self._head = b""
        self.start = self._fed - len(rest)
        # who does not know the length writes 0 or the largest number that he thinks of
        self.promised = size if 0 < size < 0x7FFF0000 else None
        return rest


def _read_format(chunk: bytes) -> Format:
    if len(chunk) < _FORMAT.size:
        raise BadWav("its format is cut off")
    coding, channels, rate, _, _, bits = _FORMAT.unpack_from(chunk)
    if coding == _EXTENSIBLE and len(chunk) >= 26:
        (coding,) = struct.unpack_from("<H", chunk, 24)
    if coding not in (_PCM, _FLOAT):
        raise BadWav(f"its coding ({coding}) is not plain samples", other_media=True)
    if bits not in ((32, 64) if coding == _FLOAT else (8, 16, 24, 32)):
        raise BadWav(f"it has samples of {bits} bits")
    if not 1 <= channels <= 32 or not 1000 <= rate <= 768_000:
        raise BadWav(f"it has {channels} channels at {rate} Hz")
    return Format(coding, channels, rate, bits)
