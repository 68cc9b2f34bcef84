"""Requests for speech in the words of each kind of server.

OpenAI's API reference for `/v1/audio/speech`; our own servers (`backends/piper-tts`,
`backends/openvoice`) take a `language` beside it; Chatterbox has an API of its own, `/tts`
(https://github.com/devnen/Chatterbox-TTS-Server, `models.py`, class `CustomTTSRequest`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

OPENAI_PATH = "/v1/audio/speech"
CHATTERBOX_PATH = "/tts"
STANDARD_VOICE = "default"
"""How our own servers call the voice that they take by themselves."""
OPENAI_VOICE = "alloy"
"""The voice that every server with OpenAI's API knows."""
CHATTERBOX_VOICE = "Emily.wav"
"""The voice that Chatterbox comes with and takes by itself, where it does not tell of others."""

_encode = msgspec.json.encode


class Ask(msgspec.Struct, frozen=True):
    """What is to be spoken."""

    text: str
    language: str
    """As the backend calls it."""
    speed: float = 1.0
    response_format: str = "wav"


def openai(ask: Ask, model: str) -> bytes:
    """Return a request of OpenAI's API, which knows no language."""
    body: dict[str, Any] = {
        "model": model,
        "input": ask.text,
        "voice": OPENAI_VOICE,
        "response_format": ask.response_format,
    }
    if ask.speed != 1:
        body["speed"] = ask.speed
    return _encode(body)


def synapse(ask: Ask, model: str, voice: str = STANDARD_VOICE) -> bytes:
    """Return a request to a server of our own."""
    body: dict[str, Any] = {
        "input": ask.text,
        "voice": voice,
        "response_format": ask.response_format,
        "speed": ask.speed,
        "language": ask.language,
    }
    if model:
        body["model"] = model
    return _encode(body)


def interpolation(ask: Ask, weights: Iterable[tuple[str, float]]) -> bytes:
    """Return a request to `backends/openvoice` to speak between voices.

    Args:
        ask: What is to be spoken.
        weights: Of each voice, by the name that the backend knows it under.
    """
    return _encode(
        {
            "text": ask.text,
            "voices": [{"voice": voice, "weight": weight} for voice, weight in weights],
            "language": ask.language,
            "speed": ask.speed,
        }
    )


def chatterbox(ask: Ask, *, voice: str, cloned: bool, split: bool) -> bytes:
    """Return a request to Chatterbox.

    Args:
        ask: What is to be spoken.
        voice: Name of a file there: of the voices that it comes with, or of an uploaded recording.
        cloned: Whether it is the latter.
        split: Whether it shall cut the text itself.
    """
    body: dict[str, Any] = {
        "text": ask.text,
        "voice_mode": "clone" if cloned else "predefined",
        "reference_audio_filename" if cloned else "predefined_voice_id": voice,
        "output_format": ask.response_format,
        "split_text": split,
        "speed_factor": ask.speed,
        "language": ask.language,
    }
    return _encode(body)


def matching(asked: str, known: Iterable[tuple[str, str]]) -> str | None:
    """Return how a backend calls a language; None if it does not speak it.

    Args:
        asked: Code of the language; a region (`en-GB`) may be left out on either side.
        known: Code and name of each language that it speaks.
    """
    wanted = asked.lower().replace("_", "-")
    codes = [code for code, _ in known]
    for code in codes:
        if code.lower().replace("_", "-") == wanted:
            return code
    return next((code for code in codes if _primary(code) == _primary(wanted)), None)


def _primary(code: str) -> str:
    return code.lower().replace("_", "-").partition("-")[0]
