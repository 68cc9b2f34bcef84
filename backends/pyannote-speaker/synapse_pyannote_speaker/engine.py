"""What a speaker engine is, and the one that is always there."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from .activity import speech_in
from .diarization import Speakers, Turn, diarize
from .encoder import RATE, Encoder

Samples = npt.NDArray[np.float32]

_LEAST_SPEECH = 0.4  # seconds that a voice can be told by


class NoSpeech(Exception):
    """A recording has too little speech to tell whose it is."""


class Engine(Protocol):
    """Mono samples in -1..1 at 16 kHz in, speakers out. Blocking."""

    name: str
    """Which engine it is, for the caller."""

    threshold: float
    """Likeness from which two recordings are of one speaker."""

    def diarize(self, samples: Samples, wanted: Speakers) -> list[Turn]:
        """Turns in order of time."""

    def likeness(self, one: Samples, other: Samples) -> float:
        """Cosine of two voices, -1..1.

        Raises:
            NoSpeech: The first argument of the error says which: 0 or 1.
        """


class EncoderEngine:
    """The packaged speaker encoder, voice activity detection and clustering."""

    name = "resemblyzer"
    threshold = 0.75

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def diarize(self, samples: Samples, wanted: Speakers) -> list[Turn]:
        """Turns in order of time."""
        return diarize(self._encoder, samples, wanted)

    def likeness(self, one: Samples, other: Samples) -> float:
        """Cosine of two voices, 0..1."""
        vectors = [self._encoder.embed(voiced(x, at)) for at, x in enumerate((one, other))]
        return float(vectors[0] @ vectors[1])


def voiced(samples: Samples, number: int) -> Samples:
    """The stretches in which somebody speaks, one after the other.

    Raises:
        NoSpeech: There is too little.
    """
    stretches = speech_in(samples)
    if sum(last - first for first, last in stretches) < _LEAST_SPEECH * RATE:
        raise NoSpeech(number)
    return np.concatenate([samples[first:last] for first, last in stretches])
