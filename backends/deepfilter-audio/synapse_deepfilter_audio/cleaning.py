"""A recording through DeepFilterNet: its samples in, a WAV file out, never all of it in memory."""

from typing import IO, Any

import av
import numpy as np
import numpy.typing as npt

from synapse_serving.audio_output import wav_header

from .library import RATE, Channel, Cleaner

Block = npt.NDArray[np.float32]


class Cleaning:
    """One recording; blocking, so its methods run in a thread.

    Args:
        cleaner: Makes the channels.
        channels: How many the recording has.
        rate: Sample rate that the result shall have.
        sink: Where the WAV file goes; it can seek.
    """

    def __init__(self, cleaner: Cleaner, channels: int, rate: int, sink: IO[bytes]) -> None:
        self._channels: list[Channel] = [cleaner.channel() for _ in range(channels)]
        self._rate = rate
        self._sink = sink
        # Planar: a resampler of several channels at once would need to know which they are.
        self._resamplers = [
            av.AudioResampler(format="fltp", layout="mono", rate=rate) for _ in self._channels
        ]
        self.samples = 0
        sink.write(wav_header(rate, 0, channels))

    def add(self, block: Block) -> None:
        """Clean ``block``, of shape (n, channels) at 48 kHz."""
        parts = [
            self._resample(number, channel.process(np.ascontiguousarray(block[:, number])))
            for number, channel in enumerate(self._channels)
        ]
        self._write(parts)

    def finish(self) -> None:
        """Write what is left, and how long it is."""
        parts = [
            self._resample(number, channel.finish(), last=True)
            for number, channel in enumerate(self._channels)
        ]
        self._write(parts)
        self._sink.seek(0)
        self._sink.write(wav_header(self._rate, self.samples, len(self._channels)))
        self._sink.flush()

    def close(self) -> None:
        """Free what the model holds."""
        for channel in self._channels:
            channel.close()

    def _resample(self, number: int, samples: Block, *, last: bool = False) -> Block:
        if self._rate == RATE:
            return samples
        resampler: Any = self._resamplers[number]
        made = []
        if len(samples):
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="fltp", layout="mono")
            frame.sample_rate = RATE
            made += resampler.resample(frame)
        if last:
            made += resampler.resample(None)
        parts = [frame.to_ndarray()[0] for frame in made]
        return np.concatenate(parts) if parts else samples[:0]

    def _write(self, parts: list[Block]) -> None:
        # Channels resample alike, so their parts have one length.
        block = np.stack(parts, axis=1)
        self._sink.write((np.clip(block, -1, 1) * 32_767).astype("<i2").tobytes())
        self.samples += len(block)
