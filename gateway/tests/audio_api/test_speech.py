from __future__ import annotations

import json

import pytest

from synapse_gateway.audio_api import speech
from synapse_gateway.audio_api.speech import Ask, matching

ASK = Ask("Hello.", "en", 1.5)


def test_openais_api_knows_no_language() -> None:
    assert json.loads(speech.openai(ASK, "kokoro")) == {
        "model": "kokoro",
        "input": "Hello.",
        "voice": "alloy",
        "response_format": "wav",
        "speed": 1.5,
    }
    assert "speed" not in json.loads(speech.openai(Ask("Hello.", "en"), "kokoro"))


def test_our_own_servers_know_one() -> None:
    assert json.loads(speech.synapse(ASK, "")) == {
        "input": "Hello.",
        "voice": "default",
        "response_format": "wav",
        "speed": 1.5,
        "language": "en",
    }
    assert json.loads(speech.synapse(ASK, "piper", "anna"))["model"] == "piper"


def test_chatterbox_has_names_of_its_own() -> None:
    assert json.loads(speech.chatterbox(ASK, voice="Emily.wav", cloned=False, split=True)) == {
        "text": "Hello.",
        "voice_mode": "predefined",
        "predefined_voice_id": "Emily.wav",
        "output_format": "wav",
        "split_text": True,
        "speed_factor": 1.5,
        "language": "en",
    }
    cloned = json.loads(speech.chatterbox(ASK, voice="a.wav", cloned=True, split=False))
    assert (cloned["voice_mode"], cloned["reference_audio_filename"]) == ("clone", "a.wav")
    assert "predefined_voice_id" not in cloned


@pytest.mark.parametrize(
    ("asked", "known", "found"),
    [
        ("en", ["en"], "en"),
        ("EN", ["en"], "en"),
        ("en-GB", ["en-US", "en-GB"], "en-GB"),
        ("en_gb", ["en-US", "en-GB"], "en-GB"),
        ("en", ["de", "en-US"], "en-US"),
        ("en-AU", ["en"], "en"),
        ("de", ["en"], None),
        ("e", ["en"], None),
        ("en", [], None),
    ],
)
def test_a_region_may_be_left_out(asked: str, known: list[str], found: str | None) -> None:
    assert matching(asked, [(code, code) for code in known]) == found
