"""Tone colours by the content of the recordings they were taken from, as many as are allowed."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from .engine import Tone

_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Cached:
    """A voice of somebody's recordings."""

    tone: Tone
    references: int
    seconds: float
    """Of all recordings."""


class VoiceCache:
    """The voices used last; the one unused for longest goes first.

    Args:
        most: Voices kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._voices: OrderedDict[str, Cached] = OrderedDict()

    def __len__(self) -> int:
        return len(self._voices)

    def get(self, voice: str) -> Cached | None:
        """A voice, which is used now, or None."""
        found = self._voices.get(voice)
        if found is not None:
            self._voices.move_to_end(voice)
        return found

    def put(self, voice: str, cached: Cached) -> None:
        """Keep a voice, and forget the one that is used least if there are too many."""
        self._voices[voice] = cached
        self._voices.move_to_end(voice)
        while len(self._voices) > self._most:
            self._voices.popitem(last=False)

    def remove(self, voice: str) -> bool:
        """Forget a voice; whether it was there."""
        return self._voices.pop(voice, None) is not None

    def items(self) -> list[tuple[str, Cached]]:
        """Every voice, the one used last at the end."""
        return list(self._voices.items())


def is_id(text: str) -> bool:
    """Whether it could be the id of a voice: a SHA-256 in lower-case hex."""
    return _ID.fullmatch(text) is not None


def id_of(digests: Iterable[bytes]) -> str:
    """The id of a voice, by the SHA-256 digests of its recordings in any order.

    It is the SHA-256 over those digests in ascending order.
    """
    whole = hashlib.sha256()
    for digest in sorted(digests):
        whole.update(digest)
    return whole.hexdigest()
