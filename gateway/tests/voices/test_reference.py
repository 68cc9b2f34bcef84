from __future__ import annotations

import io
import math
import struct

import pytest

from synapse_gateway.audio_api.wav import BadWav, Format
from synapse_gateway.voices.reference import SILENCE, look
from tests.voices.support import FORMAT, tone


def test_a_recording_is_measured() -> None:
    looked = look(io.BytesIO(tone(2.0)))
    assert (looked.seconds, looked.sample_rate, looked.channels, looked.bits) == (2.0, 16000, 1, 16)
    assert (looked.bytes, looked.data_start, looked.data_bytes) == (64044, 44, 64000)
    assert looked.format == FORMAT
    # a sine of half the full scale: 20 log10(0.5 / sqrt(2))
    assert looked.loudness == pytest.approx(-9.03, abs=0.1)


@pytest.mark.parametrize(("amplitude", "loudness"), [(1.0, -3.0), (0.1, -23.0), (0.01, -43.0)])
def test_loudness_follows_the_amplitude(amplitude: float, loudness: float) -> None:
    assert look(io.BytesIO(tone(1.0, amplitude=amplitude))).loudness == pytest.approx(
        loudness, abs=0.1
    )


def test_the_loudness_of_a_long_recording_is_that_of_all_of_it() -> None:
    loud, quiet = tone(100.0, rate=8000)[44:], tone(100.0, rate=8000, amplitude=0.005)[44:]
    form = FORMAT._replace(rate=8000)
    looked = look(io.BytesIO(form.head(len(loud) * 2) + loud + quiet))
    # half of the time at -9 dB, half at next to nothing
    assert looked.loudness == pytest.approx(-12.0, abs=0.2)


@pytest.mark.parametrize(
    ("form", "sample"),
    [
        (Format(1, 1, 16000, 8), struct.pack("<B", 128 + 64)),
        (Format(1, 1, 16000, 16), struct.pack("<h", 1 << 14)),
        (Format(1, 1, 16000, 24), struct.pack("<i", 1 << 22)[:3]),
        (Format(1, 1, 16000, 32), struct.pack("<i", 1 << 30)),
        (Format(3, 1, 16000, 32), struct.pack("<f", 0.5)),
        (Format(3, 1, 16000, 64), struct.pack("<d", 0.5)),
    ],
)
def test_samples_of_every_width_are_understood(form: Format, sample: bytes) -> None:
    data = sample * 4000
    looked = look(io.BytesIO(form.head(len(data)) + data))
    assert looked.loudness == pytest.approx(20 * math.log10(0.5), abs=0.05)
    assert looked.seconds == 0.25


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_silence_and_nonsense_have_a_loudness_too(value: float) -> None:
    form = Format(3, 1, 16000, 32)
    data = struct.pack("<f", value) * 100
    assert look(io.BytesIO(form.head(len(data)) + data)).loudness == SILENCE


@pytest.mark.parametrize(
    ("data", "other"),
    [(b"", False), (b"ID3" + bytes(100), True), (tone(1.0)[:-1], False), (tone(1.0)[:44], False),
     (FORMAT.head(0), False)],
    ids=["nothing", "mp3", "cut", "short", "no-samples"],
)  # fmt: skip
def test_what_is_no_recording_is_told_apart(data: bytes, *, other: bool) -> None:
    with pytest.raises(BadWav) as refused:
        look(io.BytesIO(data))
    assert refused.value.other_media is other
