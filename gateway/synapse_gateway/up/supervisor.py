"""Keeps the processes of a plan running until it is told to stop.

A process that ends is started again after 5 s, then 10, 20, 40 and at most 60 s; one that has run
for a minute counts as well again. At the first start an end is final instead: the whole start
fails, with the last lines of that process's log.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.up.identity import identify
from synapse_gateway.up.ports import LOOPBACK
from synapse_gateway.up.state import Phase, ProcessState, State, StateDirectory, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.up.plan import Plan, Process

POLL = 0.2


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How long the supervisor waits for what; seconds."""

    first_delay: float = 5.0
    """Before the first new start of a process that has ended."""
    longest_delay: float = 60.0
    """Before any."""
    well_again: float = 60.0
    """After so long a life an end counts as the first again."""
    grace: float = 30.0
    """Between SIGTERM and SIGKILL."""

    def restart_delay(self, failures: int) -> float:
        """Return the seconds before the next start after so many ends in a row.

        >>> [Pace().restart_delay(n) for n in (1, 2, 3, 9)]
        [5.0, 10.0, 20.0, 60.0]
        """
        return min(self.longest_delay, self.first_delay * 2.0 ** (failures - 1))


def answers(port: int, path: str) -> bool:
    """Whether the server on `port` answers `path` with 200 within a second or two."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


class _Child:
    """One process of the plan, over all its lives."""

    def __init__(
        self,
        process: Process,
        directory: StateDirectory,
        changed: Callable[[], None],
        gave_up: asyncio.Event,
        pace: Pace,
    ) -> None:
        self.process = process
        self.state = ProcessState()
        self.was_ready = asyncio.Event()
        self._gave_up = gave_up
        self._pace = pace
        self._directory = directory
        self._changed = changed
        self._running: asyncio.subprocess.Process | None = None

    def _become(self, status: Status, problem: str = "") -> None:
        self.state.status = status
        self.state.problem = problem
        self._changed()

    async def keep(self, stopping: asyncio.Event) -> None:
        """Start it, and start it again whenever it ends, until `stopping` is set."""
        failures = 0
        while not stopping.is_set():
            begun = time.monotonic()
            problem = await self._live(stopping)
            if stopping.is_set():
                break
            if not self.was_ready.is_set():
                self._become(Status.FAILED, problem)
                self._gave_up.set()
                return
            failures = 1 if time.monotonic() - begun > self._pace.well_again else failures + 1
            self.state.restarts += 1
            self._become(Status.RESTARTING, problem)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._pace.restart_delay(failures))
        self._become(Status.STOPPED)

    async def _live(self, stopping: asyncio.Event) -> str:
        """One life of it; why it ended."""
        begun = time.monotonic()
        try:
            self._running = await self._start()
        except OSError as error:
            return f"could not be started: {error}"
        self.state.id = identify(self._running.pid)
        self._become(Status.STARTING)
        if stopping.is_set():
            await self.stop()
        ended = asyncio.create_task(self._running.wait())
        while not ended.done():
            if await asyncio.to_thread(answers, self.process.port, self.process.ready):
                self.state.seconds = round(time.monotonic() - begun, 2)
                self._become(Status.READY)
                self.was_ready.set()
                await ended
                break
            if time.monotonic() - begun > self.process.ready_seconds and not stopping.is_set():
                await self.stop()
                return f"was not ready within {self.process.ready_seconds:g} s"
            await asyncio.wait({ended}, timeout=POLL)
        return _how_it_ended(await ended)

    async def _start(self) -> asyncio.subprocess.Process:
        with self._directory.log(self.process.name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.process.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.process.environment,
                cwd=self._directory.path,
                # A Ctrl-C in the terminal is the supervisor's to handle, in order.
                start_new_session=True,
            )

    async def stop(self) -> None:
        """End it gracefully, and by force after the grace."""
        running = self._running
        if running is None or running.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            running.terminate()
        try:
            await asyncio.wait_for(asyncio.shield(running.wait()), self._pace.grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                running.kill()
            await running.wait()


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


class Supervisor:
    """Runs a plan; its state file tells how far it is.

    Args:
        plan: What to run.
        directory: Where logs and state go.
        pace: How long to wait for what.
    """

    def __init__(
        self,
        plan: Plan,
        directory: StateDirectory,
        pace: Pace = Pace(),  # noqa: B008 - immutable
    ) -> None:
        own = identify(os.getpid())
        if own is None:
            raise RuntimeError("this process cannot see itself")
        self._directory = directory
        self._stopping = asyncio.Event()
        self._gave_up = asyncio.Event()
        self._children = [
            _Child(process, directory, self._write, self._gave_up, pace)
            for process in plan.processes
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._state = State(
            supervisor=own,
            plan=plan,
            processes={child.process.name: child.state for child in self._children},
        )

    def _write(self) -> None:
        """Tell where everything is; on a disk that filled up meanwhile nobody is told."""
        with contextlib.suppress(OSError):
            self._directory.write(self._state)

    def stop(self) -> None:
        """Begin to stop; `run` returns when all is down."""
        self._stopping.set()

    async def run(self) -> bool:
        """Start everything, keep it running, stop it; False when the start failed."""
        self._directory.write(self._state)
        started = await self._start_all()
        if started and not self._stopping.is_set():
            self._enter(Phase.UP)
            await self._stopping.wait()
        elif not started:
            self._stopping.set()
        if started:
            self._enter(Phase.STOPPING)
        await self._stop_all()
        if started:
            self._directory.clear()
        return started

    def _enter(self, phase: Phase, problem: str = "") -> None:
        self._state.phase = phase
        self._state.problem = problem
        self._write()

    async def _start_all(self) -> bool:
        for last in (False, True):
            group = [child for child in self._children if child.process.after_others == last]
            self._tasks += [asyncio.create_task(child.keep(self._stopping)) for child in group]
            for child in group:
                if not await self._until_ready(child):
                    self._enter(Phase.FAILED, self._first_problem())
                    return False
        return True

    async def _until_ready(self, child: _Child) -> bool:
        """Wait for a child; False when any has given up, True also when told to stop."""
        waits = {
            asyncio.create_task(event.wait())
            for event in (child.was_ready, self._gave_up, self._stopping)
        }
        _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        return not self._gave_up.is_set()

    def _first_problem(self) -> str:
        failed = (c for c in self._children if c.state.status is Status.FAILED)
        return next((f"{c.process.name} {c.state.problem}" for c in failed), "")

    async def _stop_all(self) -> None:
        """Stop the gateway first, so that no request is in flight when the backends go."""
        for last in (True, False):
            group = [child for child in self._children if child.process.after_others == last]
            await asyncio.gather(*(child.stop() for child in group))
        await asyncio.gather(*self._tasks)


async def supervise(directory: StateDirectory) -> int:
    """Run the plan that was left in `directory` until SIGTERM or SIGINT; the exit code."""
    supervisor = Supervisor(directory.read_plan(), directory)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop)
    return 0 if await supervisor.run() else 1
