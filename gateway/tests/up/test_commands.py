"""`synapse up` and `synapse down` as a person types them, over small real servers."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.up import commands, main_down, main_up, plan
from synapse_gateway.up.identity import ProcessId, identify
from synapse_gateway.up.ports import choose, is_free
from synapse_gateway.up.state import Phase, ProcessState, State, StateDirectory

from .conftest import serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

MODULE = """
import http.server, sys
port = int(sys.argv[sys.argv.index("--port") + 1])
if "--broken" in sys.argv:
    sys.exit("the weights are missing")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever(poll_interval=0.01)
"""


def small(*arguments: str) -> plan.Embedded:
    """A server that needs no model."""
    return plan.Embedded(
        name="small",
        title="a small server",
        kind="openai-compatible",
        folder="small",
        module="small_server",
        packages=("msgspec",),
        arguments=arguments,
    )


@pytest.fixture
def backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A backends folder with the small server in it, in place of the real one."""
    folder = tmp_path / "backends"
    (folder / "serving").mkdir(parents=True)
    (folder / "small").mkdir()
    (folder / "small" / "small_server.py").write_text(MODULE)
    monkeypatch.setattr(plan, "find_backends_directory", lambda: folder)
    monkeypatch.setattr(plan, "EMBEDDED", (small(),))
    return folder


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "state"
    yield str(path)
    main_down(["--state-dir", str(path)])


def read(state_dir: str) -> State:
    state = StateDirectory(Path(state_dir)).read()
    assert state is not None
    return state


def up(state_dir: str, *more: str) -> int:
    return main_up(["--backends-only", "--state-dir", state_dir, *more])


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_up_starts_and_down_leaves_nothing(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(state_dir) == 0
    assert "[1/1] a small server: ready in" in capsys.readouterr().out
    state = read(state_dir)
    port = state.plan.processes[0].port
    assert not is_free(port)
    assert main_down(["--state-dir", state_dir]) == 0
    assert capsys.readouterr().out.endswith("stopped\n")
    assert is_free(port)
    assert not state.supervisor.is_alive()


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_up_while_up_starts_nothing_and_says_the_same_again(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(state_dir) == 0
    first = capsys.readouterr().out
    before = read(state_dir)
    assert up(state_dir) == 0
    again = capsys.readouterr().out
    assert again.startswith("already up\n")
    assert again.partition("\n")[2].strip() in first
    assert read(state_dir) == before


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_up_while_up_refuses_what_is_not_up(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(state_dir) == 0
    before = read(state_dir)
    capsys.readouterr()
    for asked, told in (
        (["--port", "18850"], "not on port 18850"),
        (["--backend", "http://127.0.0.1:9"], "not in front of http://127.0.0.1:9"),
    ):
        assert main_up(["--state-dir", state_dir, *asked]) == 1
        said = capsys.readouterr().err
        assert told in said
        assert "stop it first" in said
    assert read(state_dir) == before


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_up_cleans_up_after_a_supervisor_that_was_killed(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(state_dir) == 0
    before = read(state_dir)
    orphan = before.processes["small"].id
    assert orphan is not None
    assert before.supervisor.send(signal.SIGKILL)
    commands._wait_until_gone(before, 10)
    assert orphan.is_alive()
    assert up(state_dir) == 0
    assert not orphan.is_alive()
    assert "[1/1]" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_down_cleans_up_after_a_supervisor_that_was_killed(state_dir: str) -> None:
    assert up(state_dir) == 0
    before = read(state_dir)
    orphan = before.processes["small"].id
    assert orphan is not None
    assert before.supervisor.send(signal.SIGKILL)
    commands._wait_until_gone(before, 10)
    assert main_down(["--state-dir", state_dir]) == 0
    assert not orphan.is_alive()


@pytest.mark.slow
@pytest.mark.usefixtures("backends")
def test_a_server_that_does_not_start_is_shown_with_the_end_of_its_log(
    state_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "EMBEDDED", (small("--broken"),))
    assert up(state_dir) == 1
    error = capsys.readouterr().err
    assert error.startswith("synapse: small ended with exit code 1; the rest was stopped.")
    assert "  | the weights are missing" in error


@pytest.mark.usefixtures("backends")
def test_a_taken_port_is_a_sentence_with_a_way_out(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert main_up(["--port", str(port), "--state-dir", state_dir]) == 1
    error = capsys.readouterr().err
    assert f"port {port} is taken" in error
    assert f"make up PORT={port + 1}" in error
    assert error.count("\n") == 1
    assert not Path(state_dir).exists()


def test_models_that_are_not_installed_are_named_with_a_way_out(
    state_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = plan.Embedded(
        name="x", title="x", kind="piper", folder="x", module="x", packages=("no_such_package",)
    )
    monkeypatch.setattr(plan, "EMBEDDED", (lacking,))
    assert up(state_dir) == 1
    error = capsys.readouterr().err
    assert "no_such_package missing" in error
    assert "run `make up`" in error


def test_a_users_server_that_is_not_there_is_one_sentence(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{choose(1, 23_000)[0]}"
    assert main_up(["--backend", url, "--state-dir", state_dir]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"synapse: {url} does not answer")
    assert error.count("\n") == 1


def test_a_users_server_is_configured_without_the_embedded_ones(
    state_dir: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "EMBEDDED", (small(),))
    entries = [{"id": "qwen3:8b", "object": "model", "owned_by": "vllm"}]
    with serving({"/v1/models": (200, {"object": "list", "data": entries})}) as url:
        options = commands._parse_up(["--backend", f"{url}/v1", "--state-dir", state_dir])
        made = commands._prepare(options, StateDirectory(Path(state_dir)))
    assert f"found vllm at {url}; models: qwen3:8b" in capsys.readouterr().out
    assert [process.name for process in made.processes] == ["gateway"]
    assert made.foreign == [url]
    assert f"url: {url}" in (Path(state_dir) / "gateway.yaml").read_text()


def test_down_without_up_says_so(state_dir: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main_down(["--state-dir", state_dir]) == 0
    assert capsys.readouterr().out == "nothing is up\n"


def test_down_never_ends_a_stranger_that_has_a_recycled_pid(
    state_dir: str, sleeper: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = ProcessId(sleeper.pid, "started long ago")
    directory = StateDirectory(Path(state_dir))
    directory.create()
    directory.write(
        State(
            supervisor=stranger,
            plan=plan.Plan(processes=[], gateway_port=0),
            phase=Phase.UP,
            processes={"small": ProcessState(id=stranger)},
        )
    )
    assert main_down(["--state-dir", state_dir]) == 0
    assert capsys.readouterr().out == "nothing is up\n"
    assert sleeper.poll() is None


def test_a_start_that_is_under_way_is_not_started_again(
    state_dir: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = identify(os.getpid())
    assert own is not None
    directory = StateDirectory(Path(state_dir))
    directory.create()
    directory.write(State(supervisor=own, plan=plan.Plan(processes=[], gateway_port=0)))
    assert up(state_dir) == 1
    assert "another `synapse up` is starting" in capsys.readouterr().err
    directory.clear()


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "the disk is full; free some space and try again"),
        (errno.EACCES, "cannot be written; name another place with --state-dir"),
        (errno.EROFS, "cannot be written; name another place with --state-dir"),
    ],
)
@pytest.mark.usefixtures("backends")
def test_a_state_directory_that_cannot_be_written_is_one_sentence(
    number: int,
    sentence: str,
    state_dir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(self: StateDirectory, _text: str) -> None:
        raise OSError(number, os.strerror(number), str(self.config))

    monkeypatch.setattr(StateDirectory, "write_config", refuse)
    assert up(state_dir) == 1
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_port_that_cannot_be_is_refused_as_wrong_usage(
    port: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main_up(["--port", port])
    assert ended.value.code == 2
    assert "--port" in capsys.readouterr().err


def test_the_working_tree_has_the_servers_that_the_plan_names() -> None:
    folder = plan.find_backends_directory()
    for server in plan.EMBEDDED:
        assert (folder / server.folder / server.module / "__main__.py").is_file()


def test_what_is_run_is_this_python(tmp_path: Path) -> None:
    process = plan.embedded_process(small(), 1, tmp_path)
    assert process.command[0] == sys.executable
