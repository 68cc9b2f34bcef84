from __future__ import annotations

import io
import wave

import numpy as np
import pytest

pytest.importorskip("av", reason="PyAV is not installed: make up")

from synapse_quality.recordings import RATE, tone
from synapse_serving.audio_output import FORMATS, encode, stretched, wav_header

pytestmark = pytest.mark.real


@pytest.mark.parametrize("speed", [0.25, 0.5, 1.5, 2.0, 4.0])
def test_stretching_changes_the_duration_and_not_the_pitch(speed: float) -> None:
    samples = stretched(tone(2.0), RATE, speed)
    assert len(samples) / RATE == pytest.approx(2.0 / speed, rel=0.05)
    spectrum = np.abs(np.fft.rfft(samples))
    loudest = float(np.argmax(spectrum)) * RATE / len(samples)
    assert loudest == pytest.approx(440, abs=10)


def test_a_wav_of_known_length_says_it() -> None:
    data = wav_header(RATE, 8000) + bytes(16_000)
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnframes(), file.getframerate()) == (8000, RATE)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "wav"])
def test_every_format_of_one_chunk_is_the_same_sound_as_of_many(name: str) -> None:
    samples = tone(2.0)
    whole = b"".join(encode([samples], RATE, name))
    parts = b"".join(encode(np.array_split(samples, 7), RATE, name))
    assert len(parts) == pytest.approx(len(whole), rel=0.02)


def test_bytes_of_a_chunk_leave_before_the_next_chunk_is_asked_for() -> None:
    asked = []

    def chunks() -> object:
        for number in range(3):
            asked.append(number)
            yield tone(1.0)

    first = next(encode(chunks(), RATE, "wav"))  # type: ignore[arg-type]
    assert asked == [0]
    assert first.startswith(b"RIFF")
