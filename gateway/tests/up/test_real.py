"""`synapse up` with the real models and the real gateway: every line that it prints is tried."""

from __future__ import annotations

import json
import re
import subprocess
import wave
from array import array
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.up import main_down, main_up, plan
from synapse_gateway.up.ports import choose
from synapse_gateway.up.state import StateDirectory, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

MISSING = plan.missing_packages(plan.EMBEDDED)
pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{MISSING} not installed: make up"),
]
MEMORY_MB = 1500


class Up:
    """What is up, and the text that said so."""

    def __init__(self, directory: StateDirectory, text: str) -> None:
        self.directory = directory
        self.text = text

    def line(self, part: str) -> str:
        """The one printed command with `part` in it."""
        lines = [line.strip() for line in self.text.splitlines() if line.startswith("  ")]
        (found,) = [line for line in lines if line.startswith(("curl", "kill")) and part in line]
        return found

    def run(self, command: str, where: Path) -> str:
        """What a command line prints in a shell."""
        done = subprocess.run(  # noqa: S603 - a line that `synapse up` has printed
            ["/bin/sh", "-c", command],
            capture_output=True,
            text=True,
            check=False,
            cwd=where,
            timeout=120,
        )
        return done.stdout


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    port = choose(1, 24_000)[0]
    arguments = ["--port", str(port), "--ollama-port", "0", "--state-dir", str(folder / "state")]
    arguments += ["--backends-port", "24100"]
    try:
        with pytest.MonkeyPatch.context() as patch:
            printed: list[str] = []
            patch.setattr("synapse_gateway.up.commands._say", printed.append)
            assert main_up(arguments) == 0
        yield Up(StateDirectory(folder / "state"), "\n".join(printed))
    finally:
        main_down(["--state-dir", str(folder / "state")])


def test_the_printed_chat_answers_without_a_key(up: Up, tmp_path: Path) -> None:
    command = next(line for line in up.text.splitlines() if "/chat/completions" in line)
    assert '"content":' in up.run(command, tmp_path)


def test_the_printed_stream_ends_with_done(up: Up, tmp_path: Path) -> None:
    assert up.run(up.line('"stream": true'), tmp_path).rstrip().endswith("data: [DONE]")


def test_the_printed_embedding_has_384_numbers(up: Up, tmp_path: Path) -> None:
    answer = up.run(up.line("/v1/embeddings"), tmp_path)
    assert answer.count(",") > 380


def test_the_printed_speech_comes_back_as_the_same_words(up: Up, tmp_path: Path) -> None:
    up.run(up.line("/v1/audio/speech"), tmp_path)
    assert (tmp_path / "hello.wav").read_bytes().startswith(b"RIFF")
    text = up.run(up.line("/v1/audio/transcriptions"), tmp_path)
    assert "every model answers from one address" in text.lower()


def test_the_printed_conversation_has_two_speakers(up: Up, tmp_path: Path) -> None:
    answer = json.loads(up.run(up.line("/speakers/diarize"), tmp_path))
    assert answer["num_speakers"] == 2
    assert answer["segments"][0]["speaker"] != answer["segments"][-1]["speaker"]


def test_the_printed_noisy_recording_comes_back_with_quieter_pauses(up: Up, tmp_path: Path) -> None:
    up.run(up.line("/audio/denoise"), tmp_path)
    quietest = []
    for path in (up.directory.samples / "noisy.wav", tmp_path / "clean.wav"):
        with wave.open(str(path)) as file:
            samples = array("h", file.readframes(file.getnframes()))
        blocks = [samples[at : at + 1000] for at in range(0, len(samples) - 1000, 1000)]
        quietest.append(min(sum(abs(one) for one in block) for block in blocks))
    assert quietest[1] < quietest[0] / 5


def test_all_of_it_takes_less_than_one_and_a_half_gigabytes(up: Up) -> None:
    state = up.directory.read()
    assert state is not None
    kilobytes = 0
    for process in state.processes.values():
        assert process.id is not None
        status = Path(f"/proc/{process.id.pid}/status").read_text()
        kilobytes += int(re.findall(r"VmRSS:\s+(\d+)", status)[0])
    assert kilobytes / 1000 < MEMORY_MB


def test_the_printed_kill_shows_the_second_server_and_the_first_comes_back(
    up: Up, tmp_path: Path
) -> None:
    answer = up.run(up.line("kill -9"), tmp_path).lower()
    assert "x-synapse-backend: chat-b" in answer
    assert "x-synapse-fallback:" in answer
    state = None
    for _ in range(600):  # polled: the supervisor waits 5 s before it starts it again
        state = up.directory.read()
        assert state is not None
        chat = state.processes["chat-a"]
        if chat.restarts == 1 and chat.status is Status.READY:
            break
        subprocess.run(["/bin/sleep", "0.1"], check=True)
    assert state is not None
    assert state.processes["chat-a"].status is Status.READY


def test_the_printed_metrics_and_health_answer(up: Up, tmp_path: Path) -> None:
    answer = up.run(up.line("/metrics"), tmp_path)
    assert "# TYPE synapse_" in answer
    assert '"id":"smollm2"' in answer.replace(" ", "")
