"""The cloning server around an engine that hums: the pitch tells whose tone colour it was given."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from synapse_openvoice.engine import BaseVoice
from synapse_openvoice.server import Bounds, make_app
from synapse_serving import AudioLimits, add_options, read_options, run
from synapse_serving.speech import Language

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Humming:
    """One tone colour is one number: the loudest frequency of the recordings, in hertz."""

    rate = reference_rate = 16_000

    def languages(self) -> list[Language]:
        return [Language("en", "English"), Language("de", "German")]

    def voices(self) -> list[BaseVoice]:
        return [BaseVoice("en-us", "en"), BaseVoice("en-br", "en"), BaseVoice("de", "de")]

    def tone(self, recordings: Sequence[Any]) -> Any:
        loudest = [
            np.argmax(np.abs(np.fft.rfft(samples))) * self.rate / len(samples)
            for samples in recordings
        ]
        return np.array([np.mean(loudest)], np.float32)

    def speak(self, text: str, voice: BaseVoice, speed: float, tone: Any) -> Iterator[Any]:
        standard = {"en-us": 200.0, "en-br": 250.0, "de": 300.0}[voice.id]
        hertz = standard if tone is None else float(tone[0])
        for sentence in filter(str.strip, text.split(".")):
            count = int(len(sentence) * 1600 / speed)
            times = np.arange(count) / self.rate
            yield (np.sin(2 * np.pi * hertz * times) * 12_000).astype(np.int16)


def main() -> int:
    parser = argparse.ArgumentParser()
    add_options(parser, port=0)
    parser.add_argument("--max-voices", type=int, default=4)
    parsed = parser.parse_args()
    options = read_options(parsed)
    bounds = Bounds(200, parsed.max_voices, AudioLimits(seconds=100))
    return run("toned_server", options, lambda: make_app(Humming, options, bounds))


if __name__ == "__main__":
    sys.exit(main())
