"""The state directory: what is up, as the supervisor writes it and everybody else reads it."""

from __future__ import annotations

import contextlib
import enum
import fcntl
import os
from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.up.identity import ProcessId  # noqa: TC001 - msgspec reads it at run time
from synapse_gateway.up.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Phase(enum.StrEnum):
    """Where a whole `synapse up` is."""

    STARTING = "starting"
    UP = "up"
    FAILED = "failed"
    STOPPING = "stopping"


class Status(enum.StrEnum):
    """Where one process is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"
    STOPPED = "stopped"


class ProcessState(msgspec.Struct, kw_only=True):
    """One process, as last seen."""

    status: Status = Status.WAITING
    id: ProcessId | None = None
    restarts: int = 0
    seconds: float = 0.0
    """From its start until it was ready."""
    problem: str = ""
    """Why it failed, for people."""


class State(msgspec.Struct, kw_only=True):
    """Everything that `synapse up` and `synapse down` need to know."""

    supervisor: ProcessId
    plan: Plan
    phase: Phase = Phase.STARTING
    problem: str = ""
    """Why it failed, for people."""
    processes: dict[str, ProcessState] = {}


class AlreadyLocked(Exception):
    """Another supervisor holds the state directory."""


class StateDirectory:
    """Names and files of a state directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "gateway.yaml"
        self.plan = path / "plan.json"
        self.logs = path / "logs"
        self.samples = path / "samples"
        self._state = path / "state.json"
        self._lock = path / "lock"

    def create(self) -> None:
        """Make the directory and its folder for logs; only their owner may look into them."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs.mkdir(exist_ok=True, mode=0o700)

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.logs / f"{name}.log"

    def read(self) -> State | None:
        """Return what was last written, or None if nothing readable is there."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=State)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def write(self, state: State) -> None:
        """Replace what is there, in one step for every reader."""
        self._replace(self._state, msgspec.json.format(msgspec.json.encode(state)))

    def write_plan(self, plan: Plan) -> None:
        """Leave the plan for the supervisor to read."""
        self._replace(self.plan, msgspec.json.format(msgspec.json.encode(plan)))

    def read_plan(self) -> Plan:
        """Return the plan that was left."""
        return msgspec.json.decode(self.plan.read_bytes(), type=Plan)

    def write_config(self, text: str) -> None:
        """Write the gateway's configuration."""
        self._replace(self.config, text.encode())

    def clear(self) -> None:
        """Forget what was up."""
        self._state.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only supervisor of this directory.

        The kernel drops the lock with its holder, so none is ever left behind.

        Raises:
            AlreadyLocked: There is one.
        """
        handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise AlreadyLocked from error
            yield
        finally:
            os.close(handle)

    def _replace(self, target: Path, content: bytes) -> None:
        part = target.with_name(f".{target.name}.{os.getpid()}")
        part.touch(mode=0o600)
        part.write_bytes(content)
        part.replace(target)


def last_lines(log: Path, count: int = 12) -> list[str]:
    """Return the end of a log file, for a message about what went wrong."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
