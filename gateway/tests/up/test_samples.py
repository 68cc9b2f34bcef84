from __future__ import annotations

from array import array

import pytest

from synapse_gateway.up.samples import _slowed, _with_noise


def test_a_lower_voice_lasts_longer_and_keeps_its_shape() -> None:
    made = _slowed(array("h", range(0, 1000, 10)), 0.5)
    assert len(made) == 198
    assert list(made[:5]) == [0, 5, 10, 15, 20]


def test_noise_is_as_far_below_the_speech_as_asked_for() -> None:
    speech = array("h", [3000, -3000] * 20_000)
    noise = [a - b for a, b in zip(_with_noise(speech, 6.0), speech, strict=True)]
    power = sum(one * one for one in noise) / len(noise)
    assert power == pytest.approx(3000**2 / 10**0.6, rel=0.05)


def test_what_would_be_too_loud_stays_in_range() -> None:
    made = _with_noise(array("h", [32_767, -32_768] * 1000), 0.0)
    assert max(made) == 32_767
    assert min(made) == -32_768
