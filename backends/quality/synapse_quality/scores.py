"""The measures of speech processing, each by its usual definition."""

import itertools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]
Span = tuple[float, float, str]
"""Start and end in seconds, and a speaker."""

_FRAME = 0.01
_COLLAR = 0.25


def words(text: str) -> list[str]:
    """Words in lower case without punctuation.

    >>> words("It's five o'clock, isn't it?")
    ["it's", 'five', "o'clock", "isn't", 'it']
    """
    return re.findall(r"[a-z0-9']+", text.lower())


def word_errors(said: str, heard: str) -> tuple[int, int]:
    """Words substituted, left out or added, and words said: the word error rate's two parts.

    >>> word_errors("a b c", "a x c d")
    (2, 3)
    """
    right, found = words(said), words(heard)
    row = list(range(len(found) + 1))
    for number, word in enumerate(right, 1):
        last, row[0] = row[0], number
        for place, other in enumerate(found, 1):
            last, row[place] = (
                row[place],
                min(row[place] + 1, row[place - 1] + 1, last + (word != other)),
            )
    return row[-1], len(right)


def equal_error_rate(same: Sequence[float], different: Sequence[float]) -> tuple[float, float]:
    """Rate at which as many are falsely refused as falsely accepted, and the threshold there.

    >>> equal_error_rate([0.9, 0.8], [0.1, 0.2])
    (0.0, 0.8)
    """
    best = (2.0, 1.0, 0.0)
    for threshold in sorted({*same, *different}):
        refused = sum(score < threshold for score in same) / len(same)
        accepted = sum(score >= threshold for score in different) / len(different)
        best = min(best, (abs(refused - accepted), (refused + accepted) / 2, threshold))
    return best[1], best[2]


def diarization_error(truth: Sequence[Span], found: Sequence[Span], seconds: float) -> float:
    """Speech missed, invented or given to the wrong speaker, as a share of the speech there is.

    Quarter of a second around each border of the truth does not count, as in NIST's md-eval. The
    found speakers are named in the way that makes the error least.
    """
    frames = round(seconds / _FRAME)
    names = sorted({span[2] for span in truth})
    right = _frames(truth, names, frames)
    others = sorted({span[2] for span in found})
    given = _frames(found, others, frames)
    counted = np.ones(frames, bool)
    for border in itertools.chain.from_iterable((start, end) for start, end, _ in truth):
        counted[max(0, round((border - _COLLAR) / _FRAME)) : round((border + _COLLAR) / _FRAME)] = 0
    right, given = right[counted], given[counted]
    speech = int((right >= 0).sum())
    places = max(len(names), len(others))
    least = len(right)
    for naming in itertools.permutations(range(places)):
        renamed = np.array([*naming, -1])[given]
        least = min(least, int((renamed != right).sum()))
    return least / max(1, speech)


def _frames(spans: Sequence[Span], names: list[str], count: int) -> npt.NDArray[np.int64]:
    """The number of who speaks in each frame, -1 for nobody."""
    frames = np.full(count, -1)
    for start, end, name in spans:
        frames[round(start / _FRAME) : round(end / _FRAME)] = names.index(name)
    return frames


def signal_to_noise(clean: Samples, other: Samples) -> float:
    """Decibels of ``clean`` over what ``other`` differs by; nothing is shifted or scaled."""
    size = min(len(clean), len(other))
    clean, other = clean[:size].astype(np.float64), other[:size].astype(np.float64)
    return float(10 * np.log10(np.sum(clean**2) / np.sum((other - clean) ** 2)))


def delay(clean: Samples, other: Samples, rate: int) -> float:
    """Seconds by which ``other`` is late, by the peak of the cross-correlation."""
    size = 1 << (len(clean) + len(other)).bit_length()
    product = np.fft.rfft(other, size) * np.conj(np.fft.rfft(clean, size))
    peak = int(np.argmax(np.fft.irfft(product, size)))
    return (peak if peak < size // 2 else peak - size) / rate
