from __future__ import annotations

import numpy as np
import pytest

from synapse_quality.scores import (
    delay,
    diarization_error,
    equal_error_rate,
    signal_to_noise,
    word_errors,
)


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("one two three", "One, two, three!", 0),
        ("one two three", "one three", 1),
        ("one two three", "one two or three", 1),
        ("one two three", "", 3),
        ("one two three", "two three one", 2),
    ],
)
def test_words_wrong_missing_and_added_count(said: str, heard: str, errors: int) -> None:
    assert word_errors(said, heard) == (errors, 3)


def test_scores_that_overlap_have_the_error_where_both_are_equal() -> None:
    assert equal_error_rate([0.9, 0.8, 0.4, 0.7], [0.1, 0.2, 0.3, 0.75]) == (0.25, 0.7)


TRUTH = [(0.0, 2.0, "anna"), (3.0, 5.0, "bert")]


@pytest.mark.parametrize(
    ("found", "error"),
    [
        ([(0.0, 2.0, "1"), (3.0, 5.0, "0")], 0.0),
        ([(0.1, 2.1, "1"), (3.2, 4.9, "0")], 0.0),
        ([(0.0, 5.0, "0")], 2.0),
        ([(0.0, 2.0, "0")], 1.5),
        ([(0.0, 1.0, "0"), (1.0, 2.0, "2"), (3.0, 5.0, "1")], 0.75),
        ([], 3.0),
    ],
)
def test_the_error_is_what_is_wrong_beyond_the_collar(
    found: list[tuple[float, float, str]], error: float
) -> None:
    # 3 of the 4 s of speech count, and half a second of silence between.
    assert diarization_error(TRUTH, found, 6.0) == pytest.approx(error / 3, abs=0.01)


def test_decibels_are_of_power() -> None:
    clean = np.ones(100, np.float32)
    assert signal_to_noise(clean, clean * np.float32(1.1)) == pytest.approx(20, abs=0.01)


def test_a_delay_is_found_in_both_directions() -> None:
    sound = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    late = np.concatenate([np.zeros(30, np.float32), sound])
    assert delay(sound, late, 1000) == pytest.approx(0.03)
    assert delay(late, sound, 1000) == pytest.approx(-0.03)
