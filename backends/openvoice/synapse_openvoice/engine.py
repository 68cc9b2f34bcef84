"""What the server needs of a cloning engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from synapse_serving.speech import Language

Samples = npt.NDArray[np.float32]
Tone = npt.NDArray[np.float32]
"""A tone colour, as the engine's own vector; vectors of one engine may be mixed."""


@dataclass(frozen=True, slots=True)
class BaseVoice:
    """A voice that the engine has without any reference."""

    id: str
    language: str
    """Code of the language, without its region."""


class Engine(Protocol):
    """A loaded engine. Blocking."""

    rate: int
    """Samples a second of what it says."""

    reference_rate: int
    """Samples a second of the recordings that it takes."""

    def languages(self) -> Sequence[Language]:
        """What it speaks; the first one is its standard."""

    def voices(self) -> Sequence[BaseVoice]:
        """The voices of its own; the first one of a language is its standard."""

    def tone(self, recordings: Sequence[Samples]) -> Tone:
        """The tone colour of somebody's recordings, mono at ``reference_rate``."""

    def speak(
        self, text: str, voice: BaseVoice, speed: float, tone: Tone | None
    ) -> Iterator[npt.NDArray[np.int16]]:
        """16-bit mono samples at ``rate``, an array a sentence; in a tone colour if given one."""
