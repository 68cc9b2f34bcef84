"""Who speaks when, from the vectors of a speaker encoder.

1. A stretch of speech is cut where the 1.6 s before and after are least alike, if they are unlike.
2. Pieces become speakers by joining the two groups that are most alike, again and again, until
   those left are unlike, or as many as was asked for.
3. Pieces too short to tell go to the speaker that they are most like.

Overlapping speech is not told apart: each moment has one speaker.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .activity import speech_in
from .encoder import HOP, RATE, WINDOW, Encoder, centre, raised, window_starts

Samples = npt.NDArray[np.float32]
Array = npt.NDArray[np.float32]

_STEP = 40  # mel frames between windows: 0.4 s
_SAME = 0.72  # cosine of groups above which they are one speaker
_CHANGE = 0.70  # cosine of the speech before and after below which the speaker may have changed
_TELLING = 80  # mel frames of a piece that founds a speaker: 0.8 s
_WINDOWS = 500  # at most, where each may be a speaker by itself
_BRIDGE = 0.3  # seconds of silence that a turn runs on through


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker's speech.

    Attributes:
        speaker: Number, in the order of appearance.
        start: Seconds.
        end: Seconds.
    """

    speaker: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Speakers:
    """How many speakers there may be; None where nothing was said of it."""

    exactly: int | None = None
    least: int | None = None
    most: int | None = None

    def floor(self) -> int:
        """The fewest."""
        return self.exactly or self.least or 1

    def ceiling(self) -> int | None:
        """The most."""
        return self.exactly or self.most


@dataclass(frozen=True, slots=True)
class _Piece:
    """Speech of one speaker, as far as is known: samples from ``start`` to ``end``."""

    start: int
    end: int
    vector: Array

    @property
    def telling(self) -> bool:
        return self.end - self.start >= _TELLING * HOP


def diarize(encoder: Encoder, samples: Samples, wanted: Speakers) -> list[Turn]:
    """Turns in order of time, none of which overlap.

    Args:
        encoder: The network.
        samples: Shape (n,), in -1..1, at 16 kHz.
        wanted: How many speakers there may be. Where there are fewer pieces of speech than
            speakers asked for, there are as many speakers as pieces.
    """
    samples = raised(samples)
    stretches = speech_in(samples)
    pieces = [p for one in stretches for p in _pieces(encoder, samples, one, _STEP, cut=True)]
    if sum(piece.telling for piece in pieces) < wanted.floor():
        # Not enough to choose from: every window by itself.
        speech = sum(last - first for first, last in stretches)
        step = max(_STEP, speech // HOP // _WINDOWS)
        pieces = [p for one in stretches for p in _pieces(encoder, samples, one, step, cut=False)]
    return _turns(pieces, _labels(pieces, wanted))


def _pieces(
    encoder: Encoder, samples: Samples, stretch: tuple[int, int], step: int, *, cut: bool
) -> list[_Piece]:
    """A stretch of speech cut where its speaker seems to change, or else after every step."""
    first, last = stretch
    mel = encoder.mel(samples[first:last])
    starts = window_starts(len(mel), step)
    vectors = encoder.embed_windows(mel, starts)
    middles = [start + WINDOW // 2 for start in starts]
    changes = (
        _changes(starts, vectors)
        if cut
        else [(one + other) // 2 for one, other in itertools.pairwise(middles)]
    )
    made = []
    for begin, end in itertools.pairwise([0, *changes, len(mel)]):
        inside = [
            vector
            for start, vector in zip(starts, vectors, strict=True)
            if begin <= start and start + WINDOW <= end
        ]
        if not inside:  # shorter than a window
            middle = (begin + end) // 2
            inside = [vectors[int(np.argmin([abs(one - middle) for one in middles]))]]
        stop = last if end == len(mel) else first + end * HOP
        made.append(_Piece(first + begin * HOP, stop, centre(np.stack(inside))))
    return made


def _changes(starts: list[int], vectors: Array) -> list[int]:
    """Mel frames at which the speaker seems to change."""
    apart = WINDOW // _STEP
    likeness = np.sum(vectors[:-apart] * vectors[apart:], axis=1)
    found: list[int] = []
    for at, value in enumerate(likeness):
        around = likeness[max(0, at - apart // 2) : at + apart // 2 + 1]
        place = starts[at] + WINDOW
        far_enough = not found or place - found[-1] >= WINDOW // 2
        if value < _CHANGE and value == around.min() and far_enough:
            found.append(place)
    return found


def _labels(pieces: list[_Piece], wanted: Speakers) -> list[int]:
    """The speaker of each piece, numbered by appearance."""
    founding = [number for number, piece in enumerate(pieces) if piece.telling]
    if len(founding) < wanted.floor():
        founding = list(range(len(pieces)))
    if not founding:
        return []
    groups = _join([pieces[number] for number in founding], wanted)
    centres = np.stack(
        [_weighted([pieces[founding[member]] for member in group]) for group in groups]
    )
    label = {founding[member]: number for number, group in enumerate(groups) for member in group}
    for number, piece in enumerate(pieces):
        label.setdefault(number, int(np.argmax(centres @ piece.vector)))
    order = {
        old: new for new, old in enumerate(dict.fromkeys(label[n] for n in range(len(pieces))))
    }
    return [order[label[number]] for number in range(len(pieces))]


def _join(pieces: list[_Piece], wanted: Speakers) -> list[list[int]]:
    """Agglomerative clustering: the most alike first, each group seen as its centre."""
    groups = {number: [number] for number in range(len(pieces))}
    centres = np.stack([piece.vector for piece in pieces])
    likeness = centres @ centres.T
    np.fill_diagonal(likeness, -1)
    ceiling = wanted.ceiling()
    while len(groups) > wanted.floor():
        one, other = divmod(int(np.argmax(likeness)), len(pieces))
        if likeness[one, other] < _SAME and (ceiling is None or len(groups) <= ceiling):
            break
        groups[one] += groups.pop(other)
        centres[one] = _weighted([pieces[member] for member in groups[one]])
        likeness[other, :] = likeness[:, other] = -1
        left = list(groups)
        likeness[one, left] = likeness[left, one] = centres[left] @ centres[one]
        likeness[one, one] = -1
    return list(groups.values())


def _weighted(pieces: list[_Piece]) -> Array:
    """The centre of pieces, each as heavy as it is long."""
    vectors = np.stack([piece.vector * np.float32(piece.end - piece.start) for piece in pieces])
    return centre(vectors)


def _turns(pieces: list[_Piece], labels: list[int]) -> list[Turn]:
    turns: list[Turn] = []
    for piece, speaker in zip(pieces, labels, strict=True):
        start, end = piece.start / RATE, piece.end / RATE
        if turns and turns[-1].speaker == speaker and start - turns[-1].end <= _BRIDGE:
            start = turns.pop().start
        turns.append(Turn(speaker, start, end))
    return turns
