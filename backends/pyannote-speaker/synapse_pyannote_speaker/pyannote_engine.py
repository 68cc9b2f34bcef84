"""pyannote.audio, where its package is installed and its weights are in the local cache.

Written against the documented interface of pyannote.audio 3 and 4: ``Pipeline.from_pretrained``, a
call with ``{"waveform", "sample_rate"}`` and numbers of speakers, ``Annotation.itertracks``, and
``PretrainedSpeakerEmbedding``. The weights are gated; nothing is downloaded here.
"""

import importlib.util
from typing import Any

import numpy as np
import numpy.typing as npt

from .diarization import Speakers, Turn
from .encoder import RATE
from .engine import voiced

Samples = npt.NDArray[np.float32]

EMBEDDING = "pyannote/wespeaker-voxceleb-resnet34-LM"


class NotThere(Exception):
    """pyannote cannot be used here; the message says what is missing."""


class PyannoteEngine:
    """The loaded pipeline, and the model that compares voices."""

    name = "pyannote"
    threshold = 0.5

    def __init__(self, pipeline: str, device: str, threads: int) -> None:
        if importlib.util.find_spec("pyannote") is None or (
            importlib.util.find_spec("pyannote.audio") is None
        ):
            raise NotThere("the package pyannote.audio is not installed")
        import torch  # noqa: PLC0415 - only where it is there
        from pyannote.audio import Pipeline  # noqa: PLC0415 - see above
        from pyannote.audio.pipelines.speaker_verification import (  # noqa: PLC0415 - see above
            PretrainedSpeakerEmbedding,
        )

        self._torch = torch
        torch.set_num_threads(threads)
        try:
            loaded = Pipeline.from_pretrained(pipeline)
            self._embed = PretrainedSpeakerEmbedding(EMBEDDING, device=torch.device(device))
        except Exception as error:  # whatever the hub's client raises offline
            raise NotThere(
                f"its weights cannot be loaded from the local cache ({type(error).__name__}: "
                f"{error}); download {pipeline} with your Hugging Face token first"
            ) from error
        if loaded is None:  # how version 3 says that the weights are gated and not there
            raise NotThere(f"the weights of {pipeline} are not in the local cache")
        self._pipeline = loaded.to(torch.device(device))

    def diarize(self, samples: Samples, wanted: Speakers) -> list[Turn]:
        """Turns in order of time."""
        if not len(samples):
            return []
        answer = self._pipeline(
            {"waveform": self._tensor(samples), "sample_rate": RATE},
            num_speakers=wanted.exactly,
            min_speakers=wanted.least,
            max_speakers=wanted.most,
        )
        # Version 4 answers with an object that holds the annotation.
        annotation: Any = getattr(answer, "speaker_diarization", answer)
        spans = sorted(
            (float(span.start), float(span.end), str(label))
            for span, _, label in annotation.itertracks(yield_label=True)
        )
        order = {label: number for number, label in enumerate(dict.fromkeys(s[2] for s in spans))}
        return [Turn(order[label], start, end) for start, end, label in spans]

    def likeness(self, one: Samples, other: Samples) -> float:
        """Cosine of two voices, -1..1.

        Raises:
            NoSpeech: One of them has too little speech.
        """
        vectors = [
            np.asarray(self._embed(self._tensor(voiced(samples, number))[None]))[0]
            for number, samples in enumerate((one, other))
        ]
        lengths = [float(np.linalg.norm(vector)) for vector in vectors]
        return float(vectors[0] @ vectors[1]) / (lengths[0] * lengths[1])

    def _tensor(self, samples: Samples) -> Any:
        """Shape (1, n)."""
        return self._torch.from_numpy(np.array(samples)[None])
