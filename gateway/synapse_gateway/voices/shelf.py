"""The library for the event loop: its work is done in threads."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, TypeVar

from synapse_gateway.errors import InvalidRequest, VoiceNotFound

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from synapse_gateway.voices.library import Library, Voice

T = TypeVar("T")

FRESH = 1.0
"""Seconds that the names of voices are taken as they were: every request for speech asks whether
the voice it names is one of them. Ids are always looked up."""


class Shelf:
    """Finds voices.

    Args:
        library: Where they are.
        submit: Runs something in a thread.
    """

    def __init__(self, library: Library, submit: Callable[..., Future[T]]) -> None:
        self.library = library
        self._submit = submit
        self._names: dict[str, list[Voice]] = {}
        self._until = 0.0
        self._looking = asyncio.Lock()

    async def run(self, work: Callable[..., T], *args: object) -> T:
        """Run something that blocks."""
        future: Future[T] = self._submit(work, *args)  # type: ignore[assignment]
        return await asyncio.wrap_future(future)

    def forget(self) -> None:
        """Look again: something has changed here."""
        self._until = 0.0

    async def of_id(self, voice_id: str) -> Voice:
        """Return the voice of an id, or of a name.

        Raises:
            VoiceNotFound: There is none.
            InvalidRequest: Several have this name.
        """
        voice = await self.find(voice_id)
        if voice is None:
            raise VoiceNotFound(
                f"There is no voice {voice_id[:100]!r}; GET /voices lists them.", param="voice_id"
            )
        return voice

    async def find(self, name: str) -> Voice | None:
        """Return the voice that has this id or name; None if there is none.

        Raises:
            InvalidRequest: Several have this name.
        """
        found = await self.run(self.library.by_id, name)
        if found is not None:
            return found
        voices = (await self._by_name()).get(name, [])
        if len(voices) > 1:
            ids = ", ".join(voice.id for voice in voices)
            raise InvalidRequest(
                f"voice: {len(voices)} voices are called {name[:100]!r}; name one by its id: {ids}",
                param="voice",
                code="ambiguous_voice",
            )
        return voices[0] if voices else None

    async def _by_name(self) -> dict[str, list[Voice]]:
        async with self._looking:
            now = monotonic()
            if now >= self._until:
                names: dict[str, list[Voice]] = {}
                for voice in await self.run(self.library.voices):
                    names.setdefault(voice.name, []).append(voice)
                self._names = names
                self._until = now + FRESH
            return self._names
