"""Which process a pid means: the kernel gives pids out again, so a pid alone may be a stranger."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import signal

_PROC = Path("/proc")


class ProcessId(msgspec.Struct, frozen=True):
    """A process, told from every other that had or will have its pid."""

    pid: int
    started: str
    """When it began, in whatever form the system tells; equal for the same process only."""

    def is_alive(self) -> bool:
        """Whether this very process still runs; one that only waits to be reaped does not."""
        return _start_of(self.pid) == self.started

    def send(self, number: signal.Signals) -> bool:
        """Signal the process if it is still the same; whether it was."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def identify(pid: int) -> ProcessId | None:
    """Return the identity of the process that has `pid` now, or None if there is none."""
    started = _start_of(pid)
    return None if started is None else ProcessId(pid, started)


def _start_of(pid: int) -> str | None:
    return _start_from_proc(pid) if _PROC.joinpath("self").exists() else _start_from_ps(pid)


def _start_from_proc(pid: int) -> str | None:
    """Start time in clock ticks since boot and the boot's id (proc(5): stat, random/boot_id)."""
    try:
        stat = _PROC.joinpath(str(pid), "stat").read_text()
        boot = _PROC.joinpath("sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
    # The second field is the command in parentheses and may itself hold spaces and parentheses.
    fields = stat.rpartition(")")[2].split()
    state, ticks = fields[0], fields[19]
    return None if state in {"Z", "X"} else f"{ticks}@{boot}"


def _start_from_ps(pid: int) -> str | None:
    done = subprocess.run(  # noqa: S603 - fixed words and a number
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        env={"LC_ALL": "C"},
    )
    state, _, started = done.stdout.strip().partition(" ")
    if done.returncode != 0 or not started or state.startswith("Z"):
        return None
    return started.strip()
