from __future__ import annotations

import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.audio_api.wav import MAX_HEAD_BYTES, UNKNOWN, BadWav, Format, WavReader
from tests.proxy.test_events import CUTS, pieces

MONO = Format(coding=1, channels=1, rate=16000, bits=16)
FORMATS = st.builds(
    Format,
    coding=st.just(1),
    channels=st.integers(1, 2),
    rate=st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000]),
    bits=st.sampled_from([8, 16, 24, 32]),
)
NOTES = b"LIST" + struct.pack("<I", 5) + b"notes\0"


def read(data: bytes, cuts: list[int] | None = None) -> tuple[WavReader, bytes]:
    reader = WavReader()
    samples = b"".join(reader.feed(piece) for piece in pieces(data, cuts or []))
    reader.finish()
    return reader, samples


@given(form=FORMATS, frames=st.integers(0, 40), cuts=CUTS)
def test_what_is_written_reads_the_same_here_and_by_python(
    form: Format, frames: int, cuts: list[int]
) -> None:
    samples = bytes(index % 251 for index in range(frames * form.frame_bytes))
    for size in (len(samples), None):
        reader, found = read(form.head(size) + samples, cuts)
        assert (reader.format, found) == (form, samples)
    with wave.open(io.BytesIO(form.head(len(samples)) + samples)) as file:
        assert file.getparams()[:4] == (form.channels, form.bits // 8, form.rate, frames)
        assert file.readframes(frames) == samples


@given(frames=st.binary(max_size=60).map(lambda half: half * 2), cuts=CUTS)
def test_what_python_writes_is_read(frames: bytes, cuts: list[int]) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 16000, 0, "NONE", ""))
        writer.writeframes(frames)
    reader, samples = read(file.getvalue(), cuts)
    assert (reader.format, samples) == (MONO, frames)


@pytest.mark.parametrize("size", [0, UNKNOWN, 0x7FFFFFFF, UNKNOWN - 36])
def test_a_length_that_nobody_knows_is_no_promise(size: int) -> None:
    head = MONO.head(None)[:-4] + struct.pack("<I", size)
    reader, samples = read(head + b"1234")
    assert (samples, reader.promised) == (b"1234", None)


def test_notes_around_the_samples_are_passed_over() -> None:
    head = MONO.head(4)
    around = head[:12] + NOTES + head[12:36] + NOTES + head[36:]
    _, samples = read(around + b"1234" + NOTES)
    assert samples == b"1234"


def test_a_format_of_many_channels_is_described_in_two_ways() -> None:
    described = MONO.head(4)[20:36].replace(b"\x01\0", b"\xfe\xff", 1)
    extension = struct.pack("<HHI", 22, 16, 0) + struct.pack("<H", 1) + bytes(14)
    chunk = described + extension
    file = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(chunk)) + chunk
    reader, samples = read(file + b"data\x04\0\0\0" + b"1234")
    assert (reader.format, samples) == (MONO, b"1234")


def test_time_is_counted_in_samples() -> None:
    assert MONO.seconds(48000) == 1.5
    assert MONO._replace(channels=2).seconds(64000) == 1.0


def head_with(form: bytes) -> bytes:
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(form)) + form + b"data\0\0\0\0"


def described(coding: int, channels: int, rate: int, bits: int) -> bytes:
    return struct.pack("<HHIIHH", coding, channels, rate, 0, 0, bits)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        pytest.param(b"", "within its head", id="nothing"),
        pytest.param(b"RIFF\0\0\0\0", "within its head", id="half-a-head"),
        pytest.param(b"RIFX\0\0\0\0WAVE", "does not begin", id="big-endian"),
        pytest.param(b"RIFF\0\0\0\0AVI fmt ", "does not begin", id="a-video"),
        pytest.param(b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "before their format", id="no-format"),
        pytest.param(head_with(b"\x01\0"), "cut off", id="short-format"),
        pytest.param(head_with(described(0x55, 1, 16000, 16)), "coding", id="mp3-inside"),
        pytest.param(head_with(described(1, 1, 16000, 12)), "12 bits", id="odd-bits"),
        pytest.param(head_with(described(3, 1, 16000, 16)), "16 bits", id="odd-float"),
        pytest.param(head_with(described(1, 0, 16000, 16)), "0 channels", id="no-channels"),
        pytest.param(head_with(described(1, 1, 0, 16)), "0 Hz", id="no-rate"),
        pytest.param(MONO.head(8) + b"1234", "promises 8 bytes", id="short"),
        pytest.param(MONO.head(None) + b"123", "within a sample", id="half-a-sample"),
        pytest.param(
            b"RIFF\0\0\0\0WAVEjunk\xff\xff\xff\0" + bytes(MAX_HEAD_BYTES),
            "too long",
            id="long-head",
        ),
    ],
)
def test_what_is_no_wav_file_is_told_apart(data: bytes, words: str) -> None:
    with pytest.raises(BadWav, match=words):
        read(data)


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_any_bytes_are_read_or_refused(data: bytes, cuts: list[int]) -> None:
    for start in (b"", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0"):
        try:
            read(start + data, cuts)
        except BadWav:
            continue
