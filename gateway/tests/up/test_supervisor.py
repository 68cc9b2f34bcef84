"""The supervisor over real processes: small HTTP servers that note their own end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.up.plan import Plan, Process
from synapse_gateway.up.ports import choose
from synapse_gateway.up.state import Phase, State, StateDirectory, Status
from synapse_gateway.up.supervisor import Pace, Supervisor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PACE = Pace(first_delay=0.01, longest_delay=0.05, grace=5.0)

SERVER = """
import http.server, signal, sys
name, port, on_term = sys.argv[1], int(sys.argv[2]), sys.argv[3]
def end(*_):
    if on_term == "obey":
        open("ended", "a").write(name + "\\n")
        raise SystemExit
signal.signal(signal.SIGTERM, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
    def log_message(self, *_):
        pass
print("serving", flush=True)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever(poll_interval=0.01)
"""


def server(name: str, port: int, on_term: str = "obey", *, after: bool = False) -> Process:
    return Process(
        name=name,
        title=name,
        command=[sys.executable, "-c", SERVER, name, str(port), on_term],
        port=port,
        after_others=after,
    )


def program(name: str, code: str, **changes: float) -> Process:
    return Process(
        name=name,
        title=name,
        command=[sys.executable, "-c", code],
        port=choose(1, 22_500)[0],
        **changes,  # type: ignore[arg-type]
    )


async def until(directory: StateDirectory, holds: Callable[[State], bool]) -> State:
    """Poll the state file until a condition holds; bounded."""
    async with asyncio.timeout(30):
        while True:
            state = directory.read()
            if state is not None and holds(state):
                return state
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def running(
    directory: StateDirectory, *processes: Process, pace: Pace = PACE
) -> AsyncIterator[asyncio.Task[bool]]:
    plan = Plan(processes=list(processes), gateway_port=0)
    supervisor = Supervisor(plan, directory, pace)
    task = asyncio.create_task(supervisor.run())
    try:
        yield task
    finally:
        supervisor.stop()
        await asyncio.wait_for(task, 30)


def is_up(state: State) -> bool:
    return state.phase is Phase.UP


async def test_all_processes_become_ready_and_nothing_is_left_after_the_stop(
    directory: StateDirectory,
) -> None:
    one, two = choose(2, 22_000)
    async with running(directory, server("a", one), server("b", two)) as task:
        state = await until(directory, is_up)
        assert {p.status for p in state.processes.values()} == {Status.READY}
    assert task.result()
    assert directory.read() is None
    assert not any(p.id is not None and p.id.is_alive() for p in state.processes.values())


async def test_a_killed_process_comes_back_on_the_same_port(directory: StateDirectory) -> None:
    (port,) = choose(1, 22_000)
    async with running(directory, server("a", port)):
        first = (await until(directory, is_up)).processes["a"]
        assert first.id is not None
        first.id.send(signal.SIGKILL)
        again = await until(
            directory,
            lambda s: s.processes["a"].restarts == 1 and s.processes["a"].status is Status.READY,
        )
    assert again.processes["a"].id != first.id


async def test_the_first_start_of_what_comes_last_waits_for_the_others(
    directory: StateDirectory,
) -> None:
    one, two = choose(2, 22_000)
    never = "import signal; signal.pause()"
    slow = program("slow", never)
    async with running(directory, slow, server("gateway", two, after=True)):
        state = await until(directory, lambda s: s.processes["slow"].status is Status.STARTING)
        assert state.processes["gateway"].status is Status.WAITING
    assert one != two


async def test_what_started_last_stops_first(directory: StateDirectory) -> None:
    one, two = choose(2, 22_000)
    async with running(directory, server("backend", one), server("gateway", two, after=True)):
        await until(directory, is_up)
    assert (directory.path / "ended").read_text() == "gateway\nbackend\n"


async def test_a_start_fails_as_a_whole_when_one_process_ends(directory: StateDirectory) -> None:
    (port,) = choose(1, 22_000)
    broken = program("broken", "import sys; print('no such model'); sys.exit(3)")
    async with running(directory, server("a", port), broken) as task:
        state = await until(directory, lambda s: s.phase is Phase.FAILED)
        assert state.problem == "broken ended with exit code 3"
        assert not await task
    assert "no such model" in directory.log("broken").read_text()
    after = directory.read()
    assert after is not None
    left = after.processes["a"].id
    assert left is None or not left.is_alive()


async def test_a_start_fails_when_a_program_is_not_there(directory: StateDirectory) -> None:
    missing = Process(name="gone", title="gone", command=["/nonexistent/program"], port=1)
    async with running(directory, missing) as task:
        assert not await task
    state = directory.read()
    assert state is not None
    assert state.problem.startswith("gone could not be started")


async def test_a_start_fails_when_a_process_is_never_ready(directory: StateDirectory) -> None:
    silent = program("silent", "import signal; signal.pause()", ready_seconds=0.3)
    async with running(directory, silent) as task:
        assert not await task
    state = directory.read()
    assert state is not None
    assert state.problem == "silent was not ready within 0.3 s"


async def test_the_name_of_the_signal_that_ended_a_process_is_told(
    directory: StateDirectory,
) -> None:
    suicidal = program("a", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    async with running(directory, suicidal) as task:
        assert not await task
    state = directory.read()
    assert state is not None
    assert state.problem == "a was ended by SIGKILL"


async def test_a_process_that_ignores_sigterm_is_ended_by_force(directory: StateDirectory) -> None:
    (port,) = choose(1, 22_000)
    pace = Pace(grace=0.1)
    async with running(directory, server("deaf", port, "ignore"), pace=pace):
        state = await until(directory, is_up)
    found = state.processes["deaf"].id
    assert found is not None
    assert not found.is_alive()


async def test_a_stop_during_the_start_leaves_nothing(directory: StateDirectory) -> None:
    never = program("a", "import signal; signal.pause()")
    async with running(directory, never):
        state = await until(directory, lambda s: s.processes["a"].id is not None)
    found = state.processes["a"].id
    assert found is not None
    assert not found.is_alive()


@pytest.mark.parametrize(("failures", "seconds"), [(1, 5), (2, 10), (4, 40), (5, 60), (50, 60)])
def test_the_pause_before_a_new_start_doubles_up_to_a_minute(failures: int, seconds: int) -> None:
    assert Pace().restart_delay(failures) == seconds
