"""OpenVoice V2: MeloTTS speaks, and the tone colour converter gives it another's voice.

Written against the published interface of the packages ``openvoice`` (``api.ToneColorConverter``:
``load_ckpt``, ``extract_se``, ``convert``) and ``melo`` (``api.TTS``), and the layout of the folder
``checkpoints_v2`` that is published with them. Not run: the weights are on no package registry.
"""

import importlib.util
import io
import wave
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from synapse_serving import Unavailable
from synapse_serving.speech import Language

from .engine import BaseVoice, Samples, Tone

PACKAGES = ("torch", "openvoice", "melo")
CONVERTER = ("converter/config.json", "converter/checkpoint.pth")
# MeloTTS's name of a language by its ISO 639 code.
LANGUAGES = {
    "en": ("EN", "English"),
    "es": ("ES", "Spanish"),
    "fr": ("FR", "French"),
    "zh": ("ZH", "Chinese"),
    "ja": ("JP", "Japanese"),
    "ko": ("KR", "Korean"),
}


def missing(checkpoints: Path) -> list[str]:
    """What is not there, each as a phrase."""
    packages = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    files = [name for name in CONVERTER if not (checkpoints / name).is_file()]
    phrases = []
    if packages:
        phrases.append(f"not installed: the packages {', '.join(packages)}")
    if files:
        phrases.append(f"not in {checkpoints}: the files {', '.join(files)}")
    return phrases


class OpenVoiceEngine:
    """The loaded models.

    Args:
        checkpoints: The published folder ``checkpoints_v2``.
        codes: Languages to load, by their codes.
        device: ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        Unavailable: Something of it is not there.
    """

    def __init__(self, checkpoints: Path, codes: Sequence[str], device: str) -> None:
        if phrases := missing(checkpoints):
            raise Unavailable(f"OpenVoice cannot be run: {'; '.join(phrases)}")
        import torch  # noqa: PLC0415 - only where it is there
        from melo.api import TTS  # noqa: PLC0415 - see above
        from openvoice.api import ToneColorConverter  # noqa: PLC0415 - see above

        self._torch = torch
        config, weights = (str(checkpoints / name) for name in CONVERTER)
        try:
            self._converter: Any = ToneColorConverter(config, device=device)
            self._converter.load_ckpt(weights)
            self._speech = {code: TTS(language=LANGUAGES[code][0], device=device) for code in codes}
        except Exception as error:  # whatever the hub's client and torch raise
            raise Unavailable(
                f"OpenVoice cannot be loaded ({type(error).__name__}: {error}); MeloTTS's weights "
                "must be in the local Hugging Face cache"
            ) from error
        self.rate = self.reference_rate = int(self._converter.hps.data.sampling_rate)
        self._codes = list(codes)
        self._speakers: dict[str, tuple[str, int]] = {}
        self._sources: dict[str, Any] = {}
        for code, speech in self._speech.items():
            for key, number in dict(speech.hps.data.spk2id).items():
                name = key.lower().replace("_", "-")
                file = checkpoints / "base_speakers" / "ses" / f"{name}.pth"
                if file.is_file():
                    self._speakers[name] = (code, number)
                    self._sources[name] = torch.load(str(file), map_location=device)
        if not self._speakers:
            raise Unavailable(f"OpenVoice cannot be run: no base_speakers/ses in {checkpoints}")

    def languages(self) -> list[Language]:
        """What is loaded."""
        return [Language(code, LANGUAGES[code][1]) for code in self._codes]

    def voices(self) -> list[BaseVoice]:
        """MeloTTS's speakers whose tone colour was published."""
        return [BaseVoice(name, code) for name, (code, _) in self._speakers.items()]

    def tone(self, recordings: Sequence[Samples]) -> Tone:
        """The mean of the recordings' tone colours, as ``extract_se`` makes it."""
        files = [_wav(samples, self.reference_rate) for samples in recordings]
        vector = self._converter.extract_se(files)
        return np.asarray(vector.detach().cpu().numpy(), np.float32)

    def speak(
        self, text: str, voice: BaseVoice, speed: float, tone: Tone | None
    ) -> Iterator[npt.NDArray[np.int16]]:
        """Sentence by sentence."""
        code, number = self._speakers[voice.id]
        speech = self._speech[code]
        spoken_rate = int(speech.hps.data.sampling_rate)
        source = self._sources[voice.id]
        # Without a tone colour of somebody else the voice is turned into itself, so that every
        # answer has the converter's rate and sound.
        target = source if tone is None else self._torch.from_numpy(tone).to(source.device)
        for sentence in speech.split_sentences_into_pieces(text, LANGUAGES[code][0], quiet=True):
            said = speech.tts_to_file(sentence, number, None, speed=speed, quiet=True)
            converted = self._converter.convert(
                audio_src_path=_wav(np.asarray(said, np.float32), spoken_rate),
                src_se=source,
                tgt_se=target,
                output_path=None,
            )
            yield (np.clip(converted, -1, 1) * 32_767).astype(np.int16)


def _wav(samples: Samples, rate: int) -> io.BytesIO:
    """A WAV file in memory; the packages read any file object."""
    file = io.BytesIO()
    with wave.open(file, "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(rate)
        made.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    file.seek(0)
    return file
