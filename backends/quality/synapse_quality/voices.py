"""Speech of four speakers: a Piper voice, the same higher and lower, and espeak-ng.

All of them are synthetic, and two are one voice resampled: no recording of people may be had where
this is measured. What is shown with them is that the servers work, not how well they know people.
"""

import ctypes
import functools
import io
import wave
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

RATE = 22_050  # of Piper's voice, and of espeak-ng
PIPER, HIGHER, LOWER, ESPEAK = "piper", "piper x 1.2", "piper x 0.82", "espeak-ng"
SPEAKERS = (PIPER, HIGHER, LOWER, ESPEAK)
_FACTORS = {PIPER: 1.0, HIGHER: 1.2, LOWER: 0.82}

SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Every model answers from one address.",
    "Please leave the keys on the kitchen table before you go.",
    "The train to the city leaves at half past seven in the morning.",
    "She opened the window to let some fresh air into the room.",
    "We have not heard from the office since last Thursday.",
    "A small boat was drifting slowly down the river.",
    "My brother is learning to play the guitar this summer.",
    "The weather will be cold and rainy for the rest of the week.",
    "Could you tell me where the nearest post office is?",
    "They spent the whole afternoon repairing the old fence.",
    "Nobody knew why the lights had suddenly gone out.",
    "The library closes earlier than usual on public holidays.",
    "He poured a cup of coffee and sat down by the fire.",
    "The children were laughing and running across the field.",
    "It takes about twenty minutes to walk to the station.",
    "Remember to send me the report when it is finished.",
    "The doctor said that he should rest for a few days.",
    "There was a long line of people waiting outside the theater.",
    "I would like to book a table for four people tonight.",
    "The bridge was closed because of the strong wind.",
    "Our neighbors have two dogs and a very old cat.",
    "The company moved to a larger building near the harbor.",
    "After dinner we watched a movie about the history of music.",
)


class Voices:
    """Says things; Piper over HTTP, espeak-ng in this process.

    Args:
        piper_url: Where the speech server answers.
    """

    def __init__(self, piper_url: str) -> None:
        self._http = httpx.Client(base_url=piper_url, timeout=120)
        self._espeak = Espeak()
        self._spoken: dict[str, Samples] = {}
        self._said: dict[tuple[str, str], Samples] = {}

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def say(self, text: str, speaker: str = PIPER) -> Samples:
        """Speech at 22.05 kHz, equally loud for every speaker."""
        key = (text, speaker)
        if key not in self._said:
            self._said[key] = self._make(text, speaker)
        return self._said[key]

    def _make(self, text: str, speaker: str) -> Samples:
        if speaker == ESPEAK:
            samples = self._espeak.say(text)
        else:
            samples = resampled(self._piper(text), round(RATE * _FACTORS[speaker]), RATE)
        level: Samples = samples * np.float32(0.08 / np.sqrt(np.mean(samples**2)))
        return level

    def _piper(self, text: str) -> Samples:
        if text not in self._spoken:
            body = {"model": "piper", "voice": "joe", "input": text, "response_format": "wav"}
            answer = self._http.post("/v1/audio/speech", json=body).raise_for_status()
            self._spoken[text] = read_wav(answer.content)
        return self._spoken[text]


@functools.cache
def _espeak() -> Any:
    """espeak-ng's library, which a process may begin to use only once."""
    import espeakng_loader  # noqa: PLC0415 - a test dependency

    library: Any = espeakng_loader.load_library()
    synchronous, no_exit = 2, 0x8000
    folder = espeakng_loader.get_data_path().encode()
    if library.espeak_Initialize(synchronous, 0, folder, no_exit) != RATE:
        raise RuntimeError("espeak-ng cannot read its data")
    return library


class Espeak:
    """espeak-ng's library (speak_lib.h), out of the package espeakng-loader.

    Args:
        voice: A name of espeak-ng's, such as ``de``.
    """

    def __init__(self, voice: str = "en-us") -> None:
        self._library = _espeak()
        self._voice = voice.encode()
        self._parts: list[npt.NDArray[np.int16]] = []
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
        )

        def take(samples: Any, count: int, _: object) -> int:
            if samples and count > 0:
                self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        self._callback = kind(take)

    def say(self, text: str) -> Samples:
        """Speech at 22.05 kHz."""
        self._parts.clear()
        # the library has one voice and one callback, whoever set it last
        self._library.espeak_SetSynthCallback(self._callback)
        self._library.espeak_SetVoiceByName(self._voice)
        data = text.encode()
        unicode_text = 1
        self._library.espeak_Synth(data, len(data) + 1, 0, 0, 0, unicode_text, None, None)
        return np.concatenate(self._parts).astype(np.float32) / np.float32(32_768)


def resampled(samples: Samples, rate: int, target: int) -> Samples:
    """The samples at another rate (FFmpeg's swresample)."""
    resampler: Any = av.AudioResampler(format="fltp", layout="mono", rate=target)
    frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
    frame.sample_rate = rate
    made = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in made])


def wav(samples: Samples, rate: int = RATE) -> bytes:
    """A 16-bit mono WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return out.getvalue()


def read_wav(data: bytes) -> Samples:
    """Samples of a 16-bit mono WAV file at RATE; one of unknown length as well.

    Raises:
        ValueError: It is another kind of file.
    """
    with wave.open(io.BytesIO(data)) as file:
        kind = (file.getframerate(), file.getnchannels(), file.getsampwidth())
        if kind != (RATE, 1, 2):
            raise ValueError(f"not 16-bit mono at {RATE} Hz: {kind}")
        raw = np.frombuffer(file.readframes(len(data)), "<i2")
    return raw.astype(np.float32) / np.float32(32_768)


def babble(voices: Voices, size: int, seed: int) -> Samples:
    """A full room: a hundred voices of any pitch, all at once.

    With few voices it would be speech that a noise filter rightly keeps.
    """
    random = np.random.default_rng(seed)
    crowd = np.zeros(size)
    for _ in range(100):
        speaker = SPEAKERS[random.integers(len(SPEAKERS))]
        chosen = random.permutation(len(SENTENCES))[:6]
        line = np.concatenate([voices.say(SENTENCES[number], speaker) for number in chosen])
        line = resampled(line, int(RATE * random.uniform(0.75, 1.35)), RATE)
        start = int(random.integers(len(line)))
        crowd += np.resize(np.roll(line, -start), size) * random.uniform(0.5, 1)
    return crowd.astype(np.float32)


def mixed(clean: Samples, noise: Samples, decibels: float) -> Samples:
    """``clean`` with ``noise`` that is ``decibels`` below it."""
    wanted = np.sqrt(np.mean(clean**2) / 10 ** (decibels / 10))
    return clean + noise[: len(clean)] * np.float32(wanted / np.sqrt(np.mean(noise**2)))
