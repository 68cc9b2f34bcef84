from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from starlette.datastructures import UploadFile

from synapse_serving import Audio, AudioLimits, ServiceError, decode_child, decode_upload
from synapse_serving.audio_output import FORMATS

pytest.importorskip("av", reason="PyAV is not installed: make up")

from synapse_quality.recordings import container

from . import media

pytestmark = pytest.mark.real
CHILD = Path(decode_child.__file__)
LIMITS = AudioLimits(seconds=60)


async def decoded(data: bytes, limits: AudioLimits = LIMITS) -> Audio:
    with tempfile.SpooledTemporaryFile() as file:
        file.write(data)
        upload = UploadFile(file, size=len(data))  # type: ignore[arg-type]
        return await decode_upload(upload, rate=media.RATE, limits=limits)


async def refusal(data: bytes, limits: AudioLimits = LIMITS) -> tuple[int, str]:
    with pytest.raises(ServiceError) as refused:
        await decoded(data, limits)
    assert refused.value.param == "file"
    return refused.value.status_code, str(refused.value.detail)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pcm"])
async def test_what_the_speech_servers_write_can_be_read(name: str) -> None:
    audio = await decoded(media.encoded(name))
    # Lossy codecs add some milliseconds before and after.
    assert audio.seconds == pytest.approx(2.0, abs=0.15)


@pytest.mark.parametrize(
    ("form", "codec"),
    [("ipod", "aac"), ("webm", "libopus"), ("matroska", "flac"), ("aiff", "pcm_s16be")],
)
async def test_what_recorders_write_can_be_read(form: str, codec: str) -> None:
    audio = await decoded(container(form, codec))
    assert audio.seconds == pytest.approx(2.0, abs=0.15)


async def test_samples_are_what_was_recorded_resampled_and_within_one() -> None:
    audio = await decoded(container("wav", "pcm_s16le"))
    spectrum = np.abs(np.fft.rfft(audio.samples))
    loudest = np.argmax(spectrum) * audio.rate / len(audio.samples)
    assert loudest == pytest.approx(440, abs=1)
    assert np.abs(audio.samples).max() == pytest.approx(12_000 / 32_768, rel=0.02)


async def test_a_wav_that_says_it_lasts_no_time_has_no_samples() -> None:
    audio = await decoded(media.wav(frames=0))
    assert audio.seconds == 0


async def test_a_stream_that_ends_after_its_head_is_cut_off_and_not_empty() -> None:
    assert await refusal(media.wav(frames=0, promised=0xFFFFFFFF)) == (
        400,
        "file: the file holds no sound that can be decoded",
    )


async def test_stereo_becomes_mono() -> None:
    audio = await decoded(media.wav(channels=2))
    assert audio.samples.shape == (media.RATE,)


FLAC = media.encoded("flac")
REFUSED = {
    "empty": (b"", 400, "empty"),
    "text": (b"this is not a recording\n" * 50, 415, "not a known audio format"),
    "zip": (b"PK\3\4" + media.noise(4000), 415, "not a known audio format"),
    "gzip": (b"\x1f\x8b\x08" + media.noise(4000), 415, "not a known audio format"),
    "picture": (b"\x89PNG\r\n\x1a\n" + media.noise(900), 415, "not a known audio format"),
    "pdf": (b"%PDF-1.7\n" + media.noise(900), 415, "not a known audio format"),
    "program": (b"\x7fELF" + media.noise(900), 415, "not a known audio format"),
    "html": (b"<!doctype html><body>" + b"x" * 900, 415, "not a known audio format"),
    "noise": (media.noise(50_000), 415, "not a known audio format"),
    "zeros": (bytes(50_000), 415, "not a known audio format"),
    "one byte": (b"R", 415, "not a known audio format"),
    "noise in a wav": (b"RIFF\0\0\1\0WAVE" + media.noise(900), 415, "not a known audio format"),
    "noise after a flac header": (FLAC[:200] + media.noise(9000), 400, "no sound that can be"),
    "wav cut off": (media.wav(promised=320_000), 400, "ends early: 32000 bytes of 320000"),
    "webm cut off": (container("webm", "libopus")[:2500], 400, "ends early"),
    "mp4 cut off": (container("ipod", "aac")[:-1500], 415, "not a known audio format"),
    "video mp4": (container("mp4", "aac", video=True), 415, "holds video"),
    "video mkv": (container("matroska", "libopus", video=True), 415, "holds video"),
    "no channels": (media.wav(channels=0), 400, "0 channels; 1 to 8"),
    "twelve channels": (media.wav(channels=12), 400, "12 channels; 1 to 8"),
    "slow samples": (media.wav(rate=100), 400, "100 samples a second; 1000 to 384000"),
    "fast samples": (media.wav(rate=500_000), 400, "500000 samples a second"),
    "no samples": (media.wav(rate=0), 415, "not a known audio format"),
    "too long": (container("flac", "flac", seconds=90), 413, "lasts longer than 60 s"),
    "playlist": (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hosts\n", 415, "not a known audio format"),
    "list of files": (b"ffconcat version 1.0\nfile /etc/hosts\n", 415, "not a known"),
    "session description": (b"v=0\r\nm=audio 5004 RTP/AVP 0\r\n", 415, "not a known"),
    "amr damaged": (b"#!AMR\n" + media.noise(300), 400, "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_file_that_is_no_sound_recording_is_refused_with_the_reason(name: str) -> None:
    data, status, reason = REFUSED[name]
    code, message = await refusal(data)
    assert code == status
    assert reason in message


async def test_sound_beyond_the_longest_allowed_is_not_decoded_whatever_the_header_says() -> None:
    endless = media.wav(frames=70 * media.RATE, promised=0xFFFFFFFF)
    assert await refusal(endless) == (413, "file: the audio lasts longer than 60 s")


async def test_a_file_that_takes_too_much_memory_is_refused() -> None:
    code, message = await refusal(FLAC, replace(LIMITS, memory=60 << 20))
    assert (code, message) == (413, "file: decoding the file takes too much memory")


async def test_a_file_that_takes_too_long_is_refused() -> None:
    code, message = await refusal(FLAC, replace(LIMITS, cpu_seconds=0))
    assert (code, message) == (413, "file: decoding the file takes too long")


def limited(memory: int, cpu_seconds: int, then: str) -> subprocess.CompletedProcess[bytes]:
    """Run code in a process under the decoder's limits."""
    code = (
        f"import sys; sys.path.insert(0, {str(CHILD.parent)!r}); import decode_child; "
        f"decode_child.limit_process({memory}, {cpu_seconds})\n{then}"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)  # noqa: S603


def test_the_kernel_holds_the_decoder_to_its_memory() -> None:
    done = limited(200 << 20, 5, "bytearray(300 << 20)")
    assert done.stderr.strip().endswith(b"MemoryError")


@pytest.mark.slow
def test_the_kernel_ends_a_decoder_that_computes_for_too_long() -> None:
    assert limited(1 << 30, 1, "while True: pass").returncode == -signal.SIGXCPU


def test_the_decoder_can_write_no_file(tmp_path: Path) -> None:
    target = tmp_path / "x"
    limited(1 << 30, 5, f"open({str(target)!r}, 'w').write('x')")
    assert target.read_bytes() == b""


@pytest.mark.parametrize("name", ["noise", "too long", "video mp4"])
async def test_no_file_and_no_process_is_left(name: str) -> None:
    before = descriptors(), children()
    await refusal(REFUSED[name][0])
    assert (descriptors(), children()) == before


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")


def descriptors() -> set[str]:
    """What this process has open, sockets of the event loop left out."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("/") and not name.startswith("/proc")}


async def test_a_recording_of_unknown_length_is_read_to_its_end() -> None:
    audio = await decoded(media.wav(frames=8000, promised=0xFFFFFFFF))
    assert audio.seconds == pytest.approx(0.5, abs=0.01)
