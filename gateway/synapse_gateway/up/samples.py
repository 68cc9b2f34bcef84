"""Recordings for the lines that `synapse up` prints to try, made of what the speech server says."""

from __future__ import annotations

import io
import json
import random
import urllib.request
import wave
from array import array
from typing import TYPE_CHECKING

from synapse_gateway.up.ports import LOOPBACK

if TYPE_CHECKING:
    from pathlib import Path

CONVERSATION = "two-speakers.wav"
NOISY = "noisy.wav"

# Long enough to be told apart each time: of two short sentences one in seven had a third speaker.
_FIRST = (
    "Good morning. I would like to book a table for four people tonight."
    " We would like to sit by the window, if that is possible."
)
_SECOND = (
    "Of course. At what time would you like to come, and may I have your name?"
    " We have a table by the window at seven, and one at nine."
)
_LOWER = 0.78  # of the pitch of the one voice there is
_NOISE_BELOW = 5.0  # decibels


def make(folder: Path, port: int) -> None:
    """Write both recordings into `folder`.

    Args:
        folder: Made if it is not there.
        port: Where the speech server answers.

    Raises:
        OSError: The speech server does not answer, or the folder cannot be written.
        wave.Error: It answers something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first, rate = _spoken(_FIRST, port)
    second, _ = _spoken(_SECOND, port)
    pause = array("h", bytes(rate))  # half a second
    _write(folder / CONVERSATION, first + pause + _slowed(second, _LOWER), rate)
    _write(folder / NOISY, _with_noise(first, _NOISE_BELOW), rate)


def _spoken(text: str, port: int) -> tuple[array[int], int]:
    """16-bit samples and their rate."""
    body = {"model": "piper", "voice": "default", "input": text, "response_format": "wav"}
    request = urllib.request.Request(
        f"http://{LOOPBACK}:{port}/v1/audio/speech",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - see above
        data = answer.read()
    with wave.open(io.BytesIO(data)) as file:
        # It is streamed, so its head promises more than there is.
        return array("h", file.readframes(len(data))), file.getframerate()


def _slowed(samples: array[int], factor: float) -> array[int]:
    """The same voice lower and slower, by linear interpolation."""
    made = array("h")
    for number in range(int((len(samples) - 1) / factor)):
        place = number * factor
        before = int(place)
        step = samples[before + 1] - samples[before]
        made.append(round(samples[before] + step * (place - before)))
    return made


def _with_noise(samples: array[int], decibels: float) -> array[int]:
    """White noise that many decibels below the speech."""
    noise = random.Random(0)  # noqa: S311 - not for secrets
    power = sum(sample * sample for sample in samples) / len(samples)
    loudness = (power / 10 ** (decibels / 10)) ** 0.5
    return array(
        "h",
        (max(-32_768, min(32_767, round(one + noise.gauss(0, loudness)))) for one in samples),
    )


def _write(path: Path, samples: array[int], rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
