from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.up.identity import ProcessId
from synapse_gateway.up.plan import EMBEDDED, Plan, embedded_process, gateway_process
from synapse_gateway.up.report import stop_command, summary
from synapse_gateway.up.samples import CONVERSATION, NOISY
from synapse_gateway.up.state import Phase, ProcessState, State, StateDirectory, Status

if TYPE_CHECKING:
    from pathlib import Path


def state(tmp_path: Path, **changes: Any) -> State:
    processes = [embedded_process(server, 18081, tmp_path) for server in EMBEDDED]
    processes.append(gateway_process(8000, 0, tmp_path / "gateway.yaml", tmp_path))
    seen = {
        p.name: ProcessState(status=Status.READY, id=ProcessId(100 + number, "now"))
        for number, p in enumerate(processes)
    }
    plan = Plan(processes=processes, gateway_port=8000, **changes)
    return State(supervisor=ProcessId(1, "now"), plan=plan, phase=Phase.UP, processes=seen)


@pytest.fixture
def text(tmp_path: Path, directory: StateDirectory) -> str:
    return summary(state(tmp_path), directory, "make down")


def commands(text: str) -> list[list[str]]:
    """Every curl of the text as a shell would split it."""
    lines = [line for line in text.splitlines() if line.startswith(("  curl", "  kill"))]
    parts = [part for line in lines for part in line.split("; ")]
    return [shlex.split(part) for part in parts if part.strip().startswith("curl")]


def test_every_line_to_try_is_a_command_with_a_json_body(text: str) -> None:
    bodies = [words[words.index("-d") + 1] for words in commands(text) if "-d" in words]
    assert len(bodies) == 5
    for body in bodies:
        assert json.loads(body)["model"]


def test_the_lines_to_try_cover_chat_stream_embedding_speech_and_transcription(text: str) -> None:
    paths = {word.partition("/v1")[2] for words in commands(text) for word in words[:4]}
    assert {"/chat/completions", "/embeddings", "/audio/speech", "/audio/transcriptions"} <= paths
    assert '"stream": true' in text


def test_recordings_to_try_are_named_once_they_are_there(
    text: str, tmp_path: Path, directory: StateDirectory
) -> None:
    assert "/speakers/diarize" not in text
    directory.samples.mkdir(parents=True)
    (directory.samples / CONVERSATION).touch()
    (directory.samples / NOISY).touch()
    lines = commands(summary(state(tmp_path), directory, "make down"))
    assert ["-F", f"file=@{directory.samples / CONVERSATION}"] in [words[2:4] for words in lines]
    assert ["-F", f"file=@{directory.samples / NOISY}"] in [words[2:4] for words in lines]


def test_the_process_to_kill_is_the_first_chat_server(text: str) -> None:
    assert "kill -9 100; " in text


def test_every_process_is_named_with_its_address(text: str) -> None:
    for server in EMBEDDED:
        assert f"  {server.name} " in text
    assert "http://127.0.0.1:8000/metrics" in text


def test_where_the_logs_are_and_how_to_stop_is_said(text: str, directory: StateDirectory) -> None:
    assert f"Logs: {directory.logs}/" in text
    assert "Stop: make down" in text


def test_a_process_that_is_being_restarted_is_shown_as_such(
    tmp_path: Path, directory: StateDirectory
) -> None:
    shown = state(tmp_path)
    shown.processes["piper"].status = Status.RESTARTING
    shown.processes["piper"].restarts = 2
    assert "(restarting, restarted 2 times)" in summary(shown, directory, "make down")


def test_a_users_own_server_is_named_with_its_models(
    tmp_path: Path, directory: StateDirectory
) -> None:
    shown = state(tmp_path, foreign=["http://127.0.0.1:11434"], models=["qwen3:8b"])
    text = summary(shown, directory, "make down")
    assert "your server: http://127.0.0.1:11434" in text
    assert "its models: qwen3:8b" in text


def test_ollamas_port_is_mentioned_only_where_it_is_served(
    tmp_path: Path, directory: StateDirectory
) -> None:
    assert "11434" not in summary(state(tmp_path), directory, "make down")
    assert "http://127.0.0.1:11434" in summary(
        state(tmp_path, ollama_port=11434), directory, "make down"
    )


def test_the_way_to_stop_names_the_state_directory_unless_it_is_the_usual_one(
    tmp_path: Path, directory: StateDirectory
) -> None:
    assert stop_command(directory, directory) == "make down"
    spaced = StateDirectory(tmp_path / "my state")
    assert stop_command(spaced, directory).endswith(f"--state-dir '{spaced.path}'")
