from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_gateway.up.identity import ProcessId
from synapse_gateway.up.plan import Plan, Process
from synapse_gateway.up.state import (
    AlreadyLocked,
    Phase,
    ProcessState,
    State,
    StateDirectory,
    Status,
    last_lines,
)

if TYPE_CHECKING:
    from pathlib import Path

PLAN = Plan(
    processes=[Process(name="chat-a", title="chat", command=["true"], port=1)], gateway_port=8000
)


def test_a_state_comes_back_as_it_was_written(directory: StateDirectory) -> None:
    state = State(
        supervisor=ProcessId(1, "now"),
        plan=PLAN,
        phase=Phase.UP,
        processes={"chat-a": ProcessState(status=Status.READY, id=ProcessId(2, "now"), seconds=1)},
    )
    directory.write(state)
    assert directory.read() == state


def test_a_plan_comes_back_as_it_was_written(directory: StateDirectory) -> None:
    directory.write_plan(PLAN)
    assert directory.read_plan() == PLAN


@pytest.mark.parametrize("content", [b"", b'{"supervisor": ', b"[]", b'{"version": 0}'])
def test_a_state_that_cannot_be_read_counts_as_none(
    directory: StateDirectory, content: bytes
) -> None:
    (directory.path / "state.json").write_bytes(content)
    assert directory.read() is None


def test_no_part_of_a_write_stays_behind(directory: StateDirectory) -> None:
    directory.write_plan(PLAN)
    assert {entry.name for entry in directory.path.iterdir()} == {"logs", "plan.json"}


def test_only_one_supervisor_holds_a_directory(directory: StateDirectory) -> None:
    with directory.locked(), pytest.raises(AlreadyLocked), directory.locked():
        pass


def test_a_directory_can_be_held_again_once_it_was_let_go(directory: StateDirectory) -> None:
    with directory.locked():
        pass
    with directory.locked():
        pass


def test_what_is_written_is_the_owners_alone(directory: StateDirectory) -> None:
    directory.write_config("auth: anonymous\n")
    for path in (directory.path, directory.logs, directory.config):
        assert path.stat().st_mode & 0o077 == 0, path


def test_the_end_of_a_log_is_its_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"line {n}\n\n" for n in range(10_000)))
    assert last_lines(log, 2) == ["line 9998", "line 9999"]


def test_a_log_that_is_missing_has_no_lines(tmp_path: Path) -> None:
    assert last_lines(tmp_path / "none.log") == []
