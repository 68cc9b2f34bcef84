"""A speaker encoder: speech in, a vector out that is near those of the same speaker.

The network of Wan et al., "Generalized End-to-End Loss for Speaker Verification" (2018), with the
weights that the package Resemblyzer carries: three LSTM layers of 256 over 40 mel bands, a linear
layer, a rectifier, length one. It looks at 1.6 s at a time. NumPy alone computes it; the windows of
a batch go through the recurrence together.
"""

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from synapse_serving import StartError

from .weights import read_weights

Samples = npt.NDArray[np.float32]
Array = npt.NDArray[np.float32]

RATE = 16_000
HOP = 160  # samples from one mel frame to the next
WINDOW = 160  # mel frames that the network looks at: 1.6 s
_FFT = 400
_BANDS = 40
_HIDDEN = 256
_LAYERS = 3
_BATCH = 128
_LOUDNESS = -30.0  # dB below full scale; quieter speech is raised to it


def packaged_weights() -> Path:
    """The weights that come inside a package.

    Raises:
        StartError: It is not installed.
    """
    spec = importlib.util.find_spec("resemblyzer")
    if spec is None or not spec.submodule_search_locations:
        raise StartError("the package Resemblyzer is not installed; install locks/embedded.txt")
    return Path(spec.submodule_search_locations[0]) / "pretrained.pt"


def _mel_bands() -> Array:
    """Triangles of equal area over the power spectrum, shape (FFT / 2 + 1, bands).

    The mel scale of Slaney's Auditory Toolbox: linear up to 1 kHz, logarithmic above.
    """
    step = np.log(6.4) / 27

    def to_hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp(step * (mel - 15)))

    highest = 15 + np.log(RATE / 2 / 1000) / step
    edges = to_hertz(np.linspace(0, highest, _BANDS + 2))
    bins = np.linspace(0, RATE / 2, _FFT // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    bands = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    return bands.astype(np.float32)


def _sigmoid(values: Array) -> Array:
    half = np.float32(0.5)
    result: Array = half + half * np.tanh(half * values)
    return result


class Encoder:
    """The loaded network.

    Args:
        path: Checkpoint of Resemblyzer's encoder.
    """

    def __init__(self, path: Path) -> None:
        weights = read_weights(path, "model_state")
        self._layers = [
            (
                np.ascontiguousarray(weights[f"lstm.weight_ih_l{number}"].T),
                np.ascontiguousarray(weights[f"lstm.weight_hh_l{number}"].T),
                weights[f"lstm.bias_ih_l{number}"] + weights[f"lstm.bias_hh_l{number}"],
            )
            for number in range(_LAYERS)
        ]
        self._linear = np.ascontiguousarray(weights["linear.weight"].T), weights["linear.bias"]
        self._bands = _mel_bands()
        # A periodic Hann window.
        self._hann = np.hanning(_FFT + 1)[:_FFT].astype(np.float32)

    def mel(self, samples: Samples) -> Array:
        """Power in mel bands, shape (frames, 40); frame ``t`` is centred on sample ``t * HOP``."""
        padded = np.pad(samples, _FFT // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::HOP]
        parts = []
        for start in range(0, len(frames), 4096):  # a spectrum is larger than its sound
            spectrum = np.fft.rfft(frames[start : start + 4096] * self._hann, axis=1)
            power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
            parts.append(power @ self._bands)
        return np.concatenate(parts)

    def embed_windows(self, mel: Array, starts: list[int]) -> Array:
        """Vectors of length one for the windows that begin at frames ``starts``, shape (n, 256)."""
        if not starts:
            return np.zeros((0, _HIDDEN), np.float32)
        missing = max(starts) + WINDOW - len(mel)
        if missing > 0:
            mel = np.pad(mel, ((0, missing), (0, 0)))
        found = []
        for begin in range(0, len(starts), _BATCH):
            batch = np.stack([mel[at : at + WINDOW] for at in starts[begin : begin + _BATCH]])
            found.append(self._forward(batch))
        return np.concatenate(found)

    def embed(self, samples: Samples) -> Array:
        """The vector of one speaker's speech, of length one, shape (256,)."""
        mel = self.mel(raised(samples))
        return centre(self.embed_windows(mel, window_starts(len(mel), WINDOW // 2)))

    def _forward(self, batch: Array) -> Array:
        """Shape (n, frames, bands) to (n, 256)."""
        values = batch
        for inward, recurrent, bias in self._layers:
            gates = values @ inward + bias
            hidden = np.zeros((len(batch), _HIDDEN), np.float32)
            cell = np.zeros_like(hidden)
            values = np.empty((*batch.shape[:2], _HIDDEN), np.float32)
            for step in range(batch.shape[1]):
                now = gates[:, step] + hidden @ recurrent
                let_in, forget, _, let_out = (_sigmoid(part) for part in np.split(now, 4, axis=1))
                cell = forget * cell + let_in * np.tanh(now[:, 2 * _HIDDEN : 3 * _HIDDEN])
                hidden = let_out * np.tanh(cell)
                values[:, step] = hidden
        matrix, bias = self._linear
        raw = np.maximum(values[:, -1] @ matrix + bias, 0)
        return normal(raw)


def normal(vectors: Array) -> Array:
    """The same directions with length one; nothing stays nothing."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Array = vectors / np.maximum(lengths, 1e-9)
    return result


def centre(vectors: Array) -> Array:
    """The direction in the middle of ``vectors``, of length one."""
    return normal(vectors.mean(axis=0))


def raised(samples: Samples) -> Samples:
    """Quiet speech as loud as what the network was trained on; loud speech as it is."""
    power = float(np.mean(samples**2, dtype=np.float64)) if len(samples) else 0.0
    if power <= 0:
        return samples
    decibels = 10 * np.log10(power)
    if decibels >= _LOUDNESS:
        return samples
    return samples * np.float32(10 ** ((_LOUDNESS - decibels) / 20))


def window_starts(frames: int, step: int) -> list[int]:
    """Where windows of WINDOW frames begin so that they cover ``frames``, ``step`` apart."""
    last = max(0, frames - WINDOW)
    return sorted({*range(0, last + 1, step), last})
