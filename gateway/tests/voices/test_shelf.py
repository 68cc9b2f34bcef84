from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.errors import InvalidRequest, VoiceNotFound
from synapse_gateway.voices import shelf as module
from synapse_gateway.voices.library import Library
from synapse_gateway.voices.shelf import Shelf
from tests.voices.support import sources, tone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[Shelf]:
    with ThreadPoolExecutor(2) as threads:
        yield Shelf(Library(tmp_path), threads.submit)


async def test_a_voice_is_found_by_its_id_or_its_name(shelf: Shelf) -> None:
    voice = shelf.library.create("anna", sources(tone(0.1)))
    assert await shelf.find(voice.id) == voice
    assert await shelf.of_id("anna") == voice
    assert await shelf.find("alloy") is None
    with pytest.raises(VoiceNotFound):
        await shelf.of_id("alloy")


async def test_who_asks_while_others_look_waits_for_what_they_see(shelf: Shelf) -> None:
    voice = shelf.library.create("anna", sources(tone(0.1)))
    assert await asyncio.gather(*(shelf.find("anna") for _ in range(9))) == [voice] * 9


async def test_a_name_that_several_have_is_none(shelf: Shelf) -> None:
    voices = [shelf.library.create("anna", sources(tone(0.1))) for _ in range(2)]
    with pytest.raises(InvalidRequest, match=f"{voices[0].id}, {voices[1].id}"):
        await shelf.find("anna")


async def test_names_are_looked_up_anew_after_a_while(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(module, "monotonic", lambda: now)
    assert await shelf.find("anna") is None
    voice = shelf.library.create("anna", sources(tone(0.1)))
    assert await shelf.find("anna") is None
    assert await shelf.find(voice.id) == voice
    now += module.FRESH
    assert await shelf.find("anna") == voice
    shelf.library.delete(voice.id)
    assert await shelf.find("anna") == voice
    shelf.forget()
    assert await shelf.find("anna") is None
