from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from synapse_gateway.up.identity import ProcessId, identify

if TYPE_CHECKING:
    import subprocess


def test_a_running_process_is_alive() -> None:
    own = identify(os.getpid())
    assert own is not None
    assert own.is_alive()


def test_a_process_is_the_same_however_often_it_is_looked_at(
    sleeper: subprocess.Popen[bytes],
) -> None:
    assert identify(sleeper.pid) == identify(sleeper.pid)


def test_two_processes_differ_in_more_than_their_pid(sleeper: subprocess.Popen[bytes]) -> None:
    one, other = identify(sleeper.pid), identify(1)
    assert one is not None
    assert other is not None
    assert one.started != other.started


def test_a_stranger_with_a_recycled_pid_is_neither_alive_nor_signalled(
    sleeper: subprocess.Popen[bytes],
) -> None:
    before = ProcessId(sleeper.pid, "started long ago")
    assert not before.is_alive()
    assert not before.send(signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_signal_reaches_the_process_it_is_meant_for(sleeper: subprocess.Popen[bytes]) -> None:
    found = identify(sleeper.pid)
    assert found is not None
    assert found.send(signal.SIGTERM)
    assert sleeper.wait(timeout=10) == -signal.SIGTERM


def test_a_process_that_only_waits_to_be_reaped_is_not_alive(
    sleeper: subprocess.Popen[bytes],
) -> None:
    found = identify(sleeper.pid)
    assert found is not None
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not found.is_alive()


def test_a_pid_that_nobody_has_is_no_process(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    assert identify(sleeper.pid) is None
