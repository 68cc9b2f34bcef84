"""Files that are no sound recording, or a harmful one, each with the status that it must get.

All of them are made here. ``limits`` of the servers under test: 60 s of sound, 10 CPU seconds.
"""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Any

import av
import numpy as np

from synapse_quality.recordings import RATE, container, tone

MAX_SECONDS = 60


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file and what it must get.

    Attributes:
        name: What is wrong with it.
        data: Its bytes.
        status: What says so.
        reason: A piece of the message.
    """

    name: str
    data: bytes = field(repr=False)
    status: int
    reason: str = ""


def wav(
    *,
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    kind: int = 1,
    data: bytes | None = None,
    promised: int | None = None,
    width: int | None = None,
    head_size: int = 16,
) -> bytes:
    """A WAV file whose head may say anything; ``promised`` is the size of its data."""
    width = max(1, channels * bits // 8) & 0xFFFF if width is None else width
    data = tone(1.0).tobytes() if data is None else data
    size = len(data) if promised is None else promised
    head = struct.pack("<4sI4s4sI", b"RIFF", (size + 36) & 0xFFFFFFFF, b"WAVE", b"fmt ", head_size)
    form = struct.pack("<HHIIHH", kind, channels, rate, (rate * width) & 0xFFFFFFFF, width, bits)
    return head + form + struct.pack("<4sI", b"data", size & 0xFFFFFFFF) + data


def noise(count: int, seed: int = 7) -> bytes:
    return Random(seed).randbytes(count)  # noqa: S311 - not for secrets


def zip_bomb() -> bytes:
    """A quarter of a megabyte that unpacks to a quarter of a gigabyte."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file,
        file.open("sound.wav", "w", force_zip64=True) as inside,
    ):
        for _ in range(16):
            inside.write(bytes(1 << 24))
    return out.getvalue()


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join([*(compressor.compress(bytes(1 << 24)) for _ in range(16)), compressor.flush()])


@cache
def silence(form: str, codec: str, seconds: int) -> bytes:
    """A long file of few bytes."""
    out = io.BytesIO()
    rate = 8_000
    with av.open(out, "w", format=form) as made:
        sound: Any = made.add_stream(codec, rate=rate)
        sound.layout = "mono"
        for number in range(seconds):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, rate), np.int16), "s16", "mono")
            frame.sample_rate = rate
            frame.pts = number * rate
            made.mux(sound.encode(frame))
        made.mux(sound.encode(None))
    return out.getvalue()


def endless_flac() -> bytes:
    """An hour of silence in FLAC frames, of no length that its head would say."""
    data = bytearray(silence("flac", "flac", 3600))
    assert data[:4] == b"fLaC"
    # STREAMINFO (RFC 9639, 8.2): the last 36 bits before the MD5 are the number of samples.
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)


def flac_head(rate: int, channels: int, bits: int, samples: int) -> bytes:
    """A FLAC file's head with one STREAMINFO block, and noise for frames."""
    packed = (rate << 44) | ((channels - 1) << 41) | ((bits - 1) << 36) | samples
    info = struct.pack(">HH", 4096, 4096) + bytes(6) + packed.to_bytes(8, "big") + bytes(16)
    return b"fLaC" + b"\x80" + len(info).to_bytes(3, "big") + info + noise(4000)


def mp4_box(kind: bytes, body: bytes, size: int | None = None) -> bytes:
    return struct.pack(">I4s", len(body) + 8 if size is None else size, kind) + body


def png() -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9999)))


def cut(form: str, codec: str) -> list[tuple[float, bytes]]:
    """A good file cut off at five places, by how much of it is left."""
    whole = container(form, codec, seconds=3.0)
    places = [0.005, 0.1, 0.35, 0.65, 0.8]
    return [(share, whole[: int(len(whole) * share)]) for share in places]


def _wrong_kinds() -> list[BadFile]:
    no = "not a known audio format"
    return [
        BadFile("text", b"this is not a recording\n" * 50, 415, no),
        BadFile("zip bomb", zip_bomb(), 415, no),
        BadFile("gzip bomb", gzip_bomb(), 415, no),
        BadFile("gzip of a wav", gzip.compress(wav()), 415, no),
        BadFile("picture", png(), 415, no),
        BadFile("jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + noise(900), 415, no),
        BadFile("pdf", b"%PDF-1.7\n" + noise(900), 415, no),
        BadFile("program", b"\x7fELF\2\1\1" + noise(900), 415, no),
        BadFile("html", b"<!doctype html><body>" + b"x" * 900, 415, no),
        BadFile("json", b'{"file": "a.wav"}' * 40, 415, no),
        BadFile("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>" * 20, 415, no),
        BadFile(
            "tar", b"a.wav" + bytes(95) + b"0000644\0" + bytes(149) + b"ustar\0" + bytes(600), 415
        ),
        BadFile("noise", noise(50_000), 415, no),
        BadFile("zeros", bytes(50_000), 415, no),
        BadFile("ones", b"\xff" * 50_000, 415, no),
        BadFile("one byte", b"R", 415, no),
        BadFile("magic of a wav alone", b"RIFF", 415, no),
        BadFile("magic of flac alone", b"fLaC", 415, no),
        BadFile("magic of ogg alone", b"OggS", 415, no),
        BadFile("magic of mp3 alone", b"ID3\4\0\0\0\0\0\0", 415, no),
        BadFile("noise in a wav", b"RIFF\0\0\1\0WAVE" + noise(900), 415, no),
        BadFile("noise after ogg's magic", b"OggS\0\2" + noise(5000), 415),
        BadFile("playlist", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n", 415, no),
        BadFile("list of files", b"ffconcat version 1.0\nfile /etc/hosts\n", 415, no),
        BadFile("session description", b"v=0\r\nm=audio 5004 RTP/AVP 0\r\n", 415, no),
        BadFile("dash manifest", b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash'/>" * 9, 415, no),
        BadFile("midi", b"MThd\0\0\0\6\0\0\0\1\0\x60MTrk\0\0\0\4\0\xff\x2f\0", 415, no),
    ]


def _video() -> list[BadFile]:
    forms = {"mp4": "aac", "matroska": "libopus", "mov": "aac"}
    return [
        BadFile(
            f"video {form}", container(form, codec, seconds=3.0, video=True), 415, "holds video"
        )
        for form, codec in forms.items()
    ]


def _lying_heads() -> list[BadFile]:
    mp4 = mp4_box(b"ftyp", b"M4A \0\0\2\0isom")
    return [
        BadFile("wav that promises 2 GB less", wav(promised=0x7FFFEFFF), 400, "ends early"),
        BadFile("wav that promises 300 kB", wav(promised=320_000), 400, "ends early"),
        BadFile("wav of no channels", wav(channels=0), 400, "0 channels; 1 to 8"),
        BadFile("wav of 9 channels", wav(channels=9), 400, "9 channels; 1 to 8"),
        BadFile("wav of 100 channels", wav(channels=100), 400, "100 channels; 1 to 8"),
        BadFile("wav of 65535 channels", wav(channels=65_535), 400, "1 to 8"),
        BadFile("wav of 0 Hz", wav(rate=0), 415),
        BadFile("wav of 1 Hz", wav(rate=1), 400, "1 samples a second; 1000 to 384000"),
        BadFile("wav of 999 Hz", wav(rate=999), 400, "999 samples a second"),
        BadFile("wav of 4 GHz", wav(rate=0xFFFFFFFF), 415),
        BadFile("wav of 500 kHz", wav(rate=500_000), 400, "500000 samples a second"),
        BadFile("wav of a codec that is none", wav(kind=0x7777), 415),
        BadFile("wav of no bits", wav(bits=0, width=0), 415),
        BadFile("wav of a head of 4 GB", wav(head_size=0xFFFFFFF0), 415),
        BadFile("flac of 1 Hz", flac_head(1, 1, 16, 100), 400),
        BadFile("flac of 2^36 samples", flac_head(48_000, 2, 16, 2**36 - 1), 413, "longer"),
        BadFile("flac of noise", flac_head(48_000, 2, 16, 48_000), 400),
        BadFile(
            "mp4 whose box is 4 GB",
            mp4 + mp4_box(b"moov", noise(500), 0xFFFFFFF0),
            415,
        ),
        BadFile("mp4 without tracks", mp4 + mp4_box(b"moov", b""), 415),
        BadFile(
            "mp4 of boxes in boxes",
            mp4 + struct.pack(">I4s", 0x7FFFFFFF, b"moov") * 5000,
            415,
        ),
        BadFile("aiff of noise", b"FORM\0\0\x10\0AIFFCOMM\0\0\0\x12" + noise(4000), 415),
    ]


def _too_much() -> list[BadFile]:
    return [
        BadFile("endless flac", endless_flac(), 413, "longer than 60 s"),
        BadFile("100 s of opus", silence("ogg", "libopus", 100), 413, "longer than 60 s"),
        BadFile(
            "endless wav",
            wav(data=bytes(70 * RATE * 2), promised=0xFFFFFFFF),
            413,
            "longer than 60 s",
        ),
        BadFile(
            "wav of an hour in its head", wav(rate=1000, data=bytes(3_600_000 * 2)), 413, "longer"
        ),
    ]


def _cut_off() -> list[BadFile]:
    # Where what a format needs to be known by is missing, it is not known: 415. MP4 has it last.
    known_from = {"wav": 0.0, "flac": 0.15, "webm": 0.01, "ipod": 1.0}
    codecs = {"wav": "pcm_s16le", "flac": "flac", "webm": "libopus", "ipod": "aac"}
    return [
        BadFile(f"{form} cut at {share:.1%}", data, 400 if share >= known_from[form] else 415)
        for form, codec in codecs.items()
        for share, data in cut(form, codec)
    ]


@cache
def bad_files() -> list[BadFile]:
    """All of them."""
    empty = BadFile("empty", b"", 400, "empty")
    amr = BadFile("amr of noise", b"#!AMR\n" + noise(300), 400, "damaged")
    return [empty, amr, *_wrong_kinds(), *_video(), *_lying_heads(), *_too_much(), *_cut_off()]
