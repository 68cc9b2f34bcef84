"""Tells the format of a recording by its first bytes; nothing is decoded here.

The signatures are those of the formats' own specifications: RIFF/WAVE (Microsoft), RF64 (EBU Tech
3306), FLAC (RFC 9639), Ogg (RFC 3533), ISO base media (ISO/IEC 14496-12), Matroska and WebM (RFC
9559), MPEG audio and ADTS (ISO/IEC 11172-3, 13818-7), ID3v2, AIFF, CAF, AU, AMR (RFC 4867), ASF.
"""

from __future__ import annotations

WAV = "WAV"

_AT_START = (
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (b"#!AMR", "AMR"),
    (b"caff", "CAF"),
    (b".snd", "AU"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "WMA"),
)


def audio_format(head: bytes) -> str | None:
    """Return the name of the format that a file's first bytes announce; None if it is none that
    holds sound.

    Args:
        head: At least 12 bytes of it, if it has so many.
    """
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return WAV
    for start, name in _AT_START:
        if head.startswith(start):
            return name
    if head[4:8] == b"ftyp":
        return "MP4"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    return _mpeg(head)


def _mpeg(head: bytes) -> str | None:
    """Read a frame header of MPEG audio or ADTS: a sync word, and no value that is reserved."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    if layer == 0:
        # ADTS has layer 0 always, and a sampling frequency index below 13
        return "AAC" if head[1] & 0xF6 == 0xF0 and head[2] >> 2 & 0xF < 13 else None
    bitrate, rate = head[2] >> 4, head[2] >> 2 & 3
    return "MP3" if version != 1 and bitrate != 15 and rate != 3 else None


def describe(head: bytes) -> str:
    """Say what a file that is no recording seems to be, for an error message."""
    for start, name in _OTHERS:
        if head.startswith(start):
            return name
    text = head.lstrip()
    if text[:1] in (b"{", b"["):
        return "JSON"
    if text[:1] == b"<":
        return "HTML or XML"
    return "no audio format that is known here"


_OTHERS = (
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"RIFF", "a RIFF file without sound"),
)
