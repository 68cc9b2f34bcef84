"""Running programs and waiting, with errors that say what went wrong."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from hack.cluster.settings import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

POLL_SECONDS = 0.2
LOG_LINES = 15


def last_lines(text: str, count: int = LOG_LINES) -> str:
    """The end of a log, indented."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-count:])


def run(
    command: Sequence[object],
    *,
    text: str | None = None,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Standard output of a command.

    Args:
        command: Program and arguments.
        text: Its standard input.
        environment: Variables besides this process's own.
        cwd: Where it runs.
        timeout: Seconds that it may take.

    Raises:
        ClusterError: When it cannot be started or fails; with the end of what it said.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            env=os.environ | (environment or {}),
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{words[0]} is missing; install it and run this again") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"no end after {timeout:.0f} s: {' '.join(words)}") from error
    if done.returncode != 0:
        said = last_lines(done.stderr or done.stdout)
        raise ClusterError(f"exit code {done.returncode}: {' '.join(words)}\n{said}")
    return done.stdout


def succeeds(command: Sequence[object]) -> bool:
    """Whether a command ends with exit code 0; what it says is dropped."""
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return done.returncode == 0


def eventually(
    what: str,
    holds: Callable[[], bool],
    seconds: float = 60,
    why_not: Callable[[], str] = str,
) -> None:
    """Wait until something holds.

    Args:
        what: What is waited for, as the error names it.
        holds: Asked five times a second.
        seconds: How long it may take.
        why_not: Asked for the evidence when it does not.

    Raises:
        ClusterError: When it does not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            evidence = why_not()
            raise ClusterError(
                f"{what}: not after {seconds:.0f} s" + (f"\n{evidence}" if evidence else "")
            )
        time.sleep(POLL_SECONDS)
