"""Decodes one untrusted audio file in a process that can do nothing else.

Run by :mod:`synapse_serving.audio_input`, never imported by it. The file comes as standard input.
Standard output begins with two 32-bit little-endian integers, the file's own sample rate and the
channels that follow; then come the samples (32-bit little-endian float, interleaved). The last line
of standard error is one JSON object: ``{"seconds", "codec"}``, or ``{"error", "status"}``.

The limits are the kernel's (setrlimit(2)), taken before the first byte is read: memory, CPU time,
no file may be written. FFmpeg opens nothing by name, so that a playlist inside a file reaches
neither the network nor other files.
"""

import argparse
import contextlib
import errno
import json
import os
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

# Containers that carry sound. Playlists, image sequences and devices are not among them.
FORMATS = (
    "wav,w64,aiff,au,caf,flac,mp3,aac,ac3,amr,ogg,matroska,webm,"
    "mov,mp4,m4a,3gp,3g2,mj2,asf,ape,wv,tta"
)
MAX_CHANNELS = 8
# By the number of channels. What a file says of its own may be nothing, or unknown to encoders.
LAYOUTS = ("", "mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
MIN_RATE, MAX_RATE = 1_000, 384_000
STREAMED_WAV = 0x7FFFF000


class RefusedError(Exception):
    """The file is refused; ``status`` is the HTTP status that says so."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def limit_process(memory: int, cpu_seconds: int, output: int = 0) -> None:
    """Have the kernel end this process when it takes more than it was given.

    Args:
        memory: Bytes of address space.
        cpu_seconds: Seconds of CPU time.
        output: Bytes of the largest file that it may write.
    """
    # macOS refuses RLIMIT_AS; the limits on output and time still hold there.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def refuse_other_files(*_: object) -> NoReturn:
    """Stands for opening anything that a file names."""
    raise RefusedError("the file refers to other files", 415)


def open_audio(source: Any) -> tuple[Any, Any]:
    """The container in ``source`` and its first audio stream.

    Raises:
        RefusedError: When it is not an audio file, has video, or is out of bounds.
    """
    import av  # noqa: PLC0415 - the limits must hold before FFmpeg is loaded

    try:
        container = av.open(
            source,
            io_open=refuse_other_files,
            options={"format_whitelist": FORMATS},
            metadata_errors="replace",
        )
    except (av.FFmpegError, ValueError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError from error
        raise RefusedError("the file is not a known audio format, or is cut off", 415) from error
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            raise RefusedError("the file holds video; send its sound alone", 415)
    if not container.streams.audio:
        raise RefusedError("the file holds no sound", 415)
    stream = container.streams.audio[0]
    if stream.codec_context is None:
        raise RefusedError("the file's sound is of a codec that is not known", 415)
    if not 1 <= stream.channels <= MAX_CHANNELS:
        raise RefusedError(
            f"the file has {stream.channels} channels; 1 to {MAX_CHANNELS} are read", 400
        )
    if not MIN_RATE <= stream.rate <= MAX_RATE:
        raise RefusedError(
            f"the file has {stream.rate} samples a second; {MIN_RATE} to {MAX_RATE} are read", 400
        )
    return container, stream


def check_wav(source: Any) -> bool:
    """Refuse a WAV file that holds less than its data chunk promises; FFmpeg would not mind.

    Returns:
        Whether it is whole and lasts no time at all.

    Raises:
        RefusedError: It is cut off.
    """
    head = source.read(4096)
    size = source.seek(0, os.SEEK_END)
    source.seek(0)
    place = head.find(b"data", 12)
    if head[:4] != b"RIFF" or head[8:12] != b"WAVE" or not 12 <= place <= len(head) - 8:
        return False
    promised = int.from_bytes(head[place + 4 : place + 8], "little")
    there = size - place - 8
    # Programs that write to a pipe do not know the length, and write about 2 or 4 GiB.
    if promised < STREAMED_WAV and there < promised * 0.98 - 4096:
        raise RefusedError(f"the file ends early: {there} bytes of {promised} of sound", 400)
    return bool(promised == there == 0)


def promised_seconds(container: Any, stream: Any) -> float:
    """Seconds that the file's header says it lasts, 0 where it does not say."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1_000_000 if container.duration else 0.0


class Decoder:
    """The frames of a stream, resampled, until its end or its limit."""

    def __init__(self, resampler: Any, rate: int, max_seconds: float) -> None:
        """Frames come out of ``resampler`` at ``rate`` Hz, at most ``max_seconds`` of them."""
        import av  # noqa: PLC0415 - see open_audio

        self._errors = av.FFmpegError
        self._resampler = resampler
        self._max = int(max_seconds * rate)
        self._rate = rate
        self.samples = 0
        self.packets = 0
        self.broken = 0

    def frames(self, container: Any, stream: Any) -> Iterator[Any]:
        """Decode everything.

        Raises:
            RefusedError: When it lasts longer than allowed.
        """
        try:
            for packet in container.demux(stream):
                yield from self._packet(packet)
        except self._errors as error:
            self._note(error)
        yield from self._counted(self._resampler.resample(None))

    def _packet(self, packet: Any) -> Iterator[Any]:
        self.packets += 1
        try:
            frames = packet.decode()
        except self._errors as error:
            self._note(error)
            return
        for frame in frames:
            yield from self._counted(self._resampler.resample(frame))

    def _note(self, error: Exception) -> None:
        if getattr(error, "errno", None) == errno.ENOMEM:
            raise MemoryError
        self.broken += 1

    def _counted(self, frames: list[Any]) -> Iterator[Any]:
        for frame in frames:
            self.samples += frame.samples
            if self.samples > self._max:
                longest = self._max / self._rate
                raise RefusedError(f"the audio lasts longer than {longest:g} s", 413)
            yield frame

    def check_is_whole(self, promised: float) -> None:
        """Refuse what was damaged or cut off, once everything is decoded.

        Args:
            promised: Seconds that the file's header says, 0 where it does not.

        Raises:
            RefusedError: It was.
        """
        seconds = self.samples / self._rate
        if seconds == 0:
            raise RefusedError("the file holds no sound that can be decoded", 400)
        if self.broken > max(3, self.packets // 10):
            raise RefusedError("the file is damaged", 400)
        # Resampling and codec delay shift the end by some milliseconds.
        if promised and seconds < promised * 0.98 - 0.5:
            raise RefusedError(
                f"the file ends early: {seconds:.1f} s of the {promised:.1f} s that it promises",
                400,
            )


def open_whole(source: Any, max_seconds: float) -> tuple[Any, Any, float, bool]:
    """The container in ``source``, its stream, the seconds promised, and whether it is empty.

    Raises:
        RefusedError: What can be seen before decoding is out of bounds.
    """
    empty = check_wav(source)
    container, stream = open_audio(source)
    promised = promised_seconds(container, stream)
    if promised > max_seconds * 1.5:
        raise RefusedError(f"the audio lasts longer than {max_seconds:g} s", 413)
    return container, stream, promised, empty


def decode(source: Any, sink: Any, rate: int, max_seconds: float, *, mono: bool) -> dict[str, Any]:
    """Decode ``source`` into ``sink``; what it was.

    Raises:
        RefusedError: When the file is not whole, sound audio within the limits.
    """
    import av  # noqa: PLC0415 - see open_audio

    container, stream, promised, empty = open_whole(source, max_seconds)
    channels = 1 if mono else stream.channels
    sink.write(struct.pack("<II", stream.rate, channels))
    resampler = av.AudioResampler(format="flt", layout=LAYOUTS[channels], rate=rate)
    # Every channel counts: they are work alike.
    decoder = Decoder(resampler, rate, max_seconds / channels)
    for frame in decoder.frames(container, stream):
        sink.write(memoryview(frame.planes[0])[: frame.samples * channels * 4])
    sink.flush()
    if not empty:
        decoder.check_is_whole(promised)
    return {"seconds": decoder.samples / rate, "codec": stream.codec_context.name}


def report_of(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``work`` reports, or why it could not be done."""
    try:
        return work()
    except RefusedError as error:
        return {"error": str(error), "status": error.status}
    except (MemoryError, ImportError):  # a library that does not fit is not loaded
        return {"error": "decoding the file takes too much memory", "status": 413}


def main() -> int:
    """Decode standard input to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, required=True)
    parser.add_argument("--mono", action="store_true")
    parser.add_argument("--max-seconds", type=float, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    options = parser.parse_args()
    limit_process(options.memory, options.cpu_seconds)

    def work() -> dict[str, Any]:
        with os.fdopen(0, "rb") as source, os.fdopen(1, "wb", closefd=False) as sink:
            return decode(source, sink, options.rate, options.max_seconds, mono=options.mono)

    report = report_of(work)
    sys.stderr.write(json.dumps(report) + "\n")
    return 1 if "error" in report else 0


if __name__ == "__main__":
    sys.exit(main())
