"""Each measurement: what is sent to the servers, and the figures that come of it."""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import av
import httpx
import numpy as np
import numpy.typing as npt

from synapse_serving.testing import running_server

from .scores import (
    Span,
    delay,
    diarization_error,
    equal_error_rate,
    signal_to_noise,
    word_errors,
)
from .voices import (
    RATE,
    SENTENCES,
    SPEAKERS,
    Voices,
    babble,
    mixed,
    read_wav,
    resampled,
    wav,
)

Samples = npt.NDArray[np.float32]

FORMATS = ("wav", "mp3", "flac", "ogg")
MIXES = 10
CLIPS = 10
NOISE_DECIBELS = 5.0
# A mix counts as right with the right number of speakers and an error of at most this.
RIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers that are measured, and what speaks."""

    whisper: str
    speaker: str
    audio: str
    voices: Voices

    def post(self, url: str, **parts: Any) -> httpx.Response:
        """An upload; ``files`` and ``data`` as httpx has them.

        Raises:
            httpx.HTTPStatusError: It was refused.
        """
        return httpx.post(url, timeout=300, **parts).raise_for_status()


@contextmanager
def servers() -> Iterator[Servers]:
    """Each server as the process that it is in production."""
    with ExitStack() as stack:
        piper, whisper, speaker, audio = (
            stack.enter_context(running_server(module)).url
            for module in (
                "synapse_piper_tts",
                "synapse_whisper_stt",
                "synapse_pyannote_speaker",
                "synapse_deepfilter_audio",
            )
        )
        voices = Voices(piper)
        stack.callback(voices.close)
        yield Servers(whisper, speaker, audio, voices)


@dataclass(frozen=True, slots=True)
class Heard:
    """How synthesised text was transcribed."""

    sentences: int
    words: int
    errors: int

    @property
    def rate(self) -> float:
        """The word error rate."""
        return self.errors / self.words


def heard_by(servers: Servers, recordings: Sequence[tuple[str, bytes]]) -> Heard:
    """Transcribe recordings of known text."""
    errors = words = 0
    for text, data in recordings:
        answer = servers.post(f"{servers.whisper}/transcribe", files={"file": ("a.wav", data)})
        wrong, said = word_errors(text, answer.json()["text"])
        errors += wrong
        words += said
    return Heard(len(recordings), words, errors)


def transcription(servers: Servers) -> Heard:
    """Every sentence, said by Piper and heard by Whisper."""
    return heard_by(servers, [(text, wav(servers.voices.say(text))) for text in SENTENCES])


@dataclass(frozen=True, slots=True)
class Verified:
    """How pairs of recordings were judged."""

    same: list[float]
    different: list[float]
    threshold: float

    @property
    def equal_error(self) -> tuple[float, float]:
        """The equal error rate, and the threshold there."""
        return equal_error_rate(self.same, self.different)

    @property
    def wrong(self) -> int:
        """Pairs that the server's own threshold judges wrongly."""
        return sum(score < self.threshold for score in self.same) + sum(
            score >= self.threshold for score in self.different
        )


def verification(servers: Servers, pairs: int = 30) -> Verified:
    """As many pairs of one speaker as of two, no sentence twice in a pair."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    threshold = 0.0
    for same in (True, False):
        for number in range(pairs):
            one = SPEAKERS[number % 4]
            other = one if same else SPEAKERS[(number + 1 + number // 4 % 3) % 4]
            first = number % len(SENTENCES)
            second = (first + 7 + number // len(SENTENCES)) % len(SENTENCES)
            answer = servers.post(
                f"{servers.speaker}/verify",
                files={
                    "file1": ("1.wav", wav(servers.voices.say(SENTENCES[first], one))),
                    "file2": ("2.wav", wav(servers.voices.say(SENTENCES[second], other))),
                },
            ).json()
            scores[same].append(answer["similarity_score"])
            threshold = answer["threshold"]
    return Verified(scores[True], scores[False], threshold)


@dataclass(frozen=True, slots=True)
class Diarized:
    """How one mix was taken apart."""

    speakers: int
    given: bool
    found: int
    error: float

    @property
    def right(self) -> bool:
        """Whether nobody would complain."""
        return self.found == self.speakers and self.error <= RIGHT


def conversation(voices: Voices, speakers: int, seed: int) -> tuple[Samples, list[Span]]:
    """Turns of one to three speakers with short pauses, and who spoke when."""
    random = np.random.default_rng(seed)
    cast = [SPEAKERS[number] for number in random.permutation(len(SPEAKERS))[:speakers]]
    order = cast + [cast[random.integers(speakers)] for _ in range(speakers + 2)]
    # Nobody answers himself, unless he is alone.
    order = [name for name, _ in itertools.groupby(order)] if speakers > 1 else order
    parts = [np.zeros(RATE // 4, np.float32)]
    spans = []
    position = len(parts[0])
    for name in order:
        turn = _trimmed(voices.say(SENTENCES[random.integers(len(SENTENCES))], name))
        spans.append((position / RATE, (position + len(turn)) / RATE, name))
        pause = np.zeros(int(random.uniform(0.1, 0.6) * RATE), np.float32)
        parts += [turn, pause]
        position += len(turn) + len(pause)
    samples = np.concatenate(parts)
    hiss = random.standard_normal(len(samples)).astype(np.float32) * np.float32(1e-3)
    return samples + hiss, spans


def _trimmed(samples: Samples) -> Samples:
    loud = np.flatnonzero(np.abs(samples) > 0.01)
    return samples[loud[0] : loud[-1] + 1]


def diarization(servers: Servers) -> list[Diarized]:
    """Every mix twice: with the number of speakers given, and without."""
    results = []
    for number in range(MIXES):
        speakers = 1 + number % 3
        samples, truth = conversation(servers.voices, speakers, seed=number)
        for given in (False, True):
            answer = servers.post(
                f"{servers.speaker}/diarize",
                files={"file": ("mix.wav", wav(samples))},
                data={"num_speakers": speakers} if given else {},
            ).json()
            spans = [(s["start"], s["end"], s["speaker"]) for s in answer["segments"]]
            error = diarization_error(truth, spans, len(samples) / RATE)
            results.append(Diarized(speakers, given, answer["num_speakers"], error))
    return results


@dataclass(frozen=True, slots=True)
class Denoised:
    """What became of one noisy clip."""

    noise: str
    before: float
    after: float
    late: float


def denoising(servers: Servers) -> list[Denoised]:
    """Clips with white noise and with babble, in turns."""
    results = []
    for number in range(CLIPS):
        chosen = [SENTENCES[(4 * number + place) % len(SENTENCES)] for place in range(4)]
        clean = np.concatenate([servers.voices.say(text) for text in chosen])
        kind = ("white", "babble")[number % 2]
        if kind == "white":
            random = np.random.default_rng(number)
            noise = random.standard_normal(len(clean)).astype(np.float32)
        else:
            noise = babble(servers.voices, len(clean), seed=number)
        noisy = mixed(clean, noise, NOISE_DECIBELS)
        cleaned = _denoised(servers, noisy)
        results.append(
            Denoised(
                kind,
                signal_to_noise(clean, noisy),
                signal_to_noise(clean, cleaned),
                delay(clean, cleaned, RATE),
            )
        )
    return results


def _denoised(servers: Servers, samples: Samples) -> Samples:
    """Turned down where the WAV file would not hold every peak."""
    scale = np.float32(min(1.0, 0.9 / np.abs(samples).max()))
    answer = servers.post(
        f"{servers.audio}/denoise", files={"file": ("noisy.wav", wav(samples * scale))}
    )
    return read_wav(answer.content) / scale


def transcription_of_cleaned(servers: Servers) -> Heard:
    """Clean sentences after they went through the noise filter."""
    return heard_by(
        servers,
        [(text, wav(_denoised(servers, servers.voices.say(text)))) for text in SENTENCES],
    )


@dataclass(frozen=True, slots=True)
class Converted:
    """One conversion, by durations in seconds."""

    source: str
    target: str
    before: float
    after: float


def conversion(servers: Servers) -> list[Converted]:
    """From every format to every format, starting from one recording."""
    original = wav(resampled(servers.voices.say(SENTENCES[3]), RATE, 44_100), 44_100)

    def convert(data: bytes, target: str) -> bytes:
        return servers.post(
            f"{servers.audio}/convert",
            files={"file": ("a", data)},
            data={"output_format": target},
        ).content

    seconds = duration(original)
    sources = {name: convert(original, name) for name in FORMATS}
    return [
        Converted(source, target, seconds, duration(convert(data, target)))
        for source, data in sources.items()
        for target in FORMATS
    ]


def duration(data: bytes) -> float:
    """Seconds of sound that a player would play."""
    container: Any
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        return float(sum(frame.samples for frame in container.decode(stream)) / stream.rate)
