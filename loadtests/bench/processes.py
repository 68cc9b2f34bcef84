"""Child processes of a run: pinned to a core, watched for the CPU they use, ended with the run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

HARNESS_CORE = 0
"""Core of the client and the upstream."""
PROXY_CORE = 1
"""Core of the proxy under test, alone."""
_TICK = os.sysconf("SC_CLK_TCK")
_MOMENT = 0.3
_PAGE = os.sysconf("SC_PAGE_SIZE")


class BenchError(Exception):
    """The run cannot go on; the message says why and what to do."""


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """Return a command that runs on one core."""
    return ["taskset", "-c", str(core), *command]


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def can_apt_install() -> bool:
    """Say whether packages of a Debian-like system can be installed from here."""
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def apt_install(names: Sequence[str]) -> None:
    """Install packages of the distribution.

    Raises:
        BenchError: apt-get says no.
    """
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names],
    ):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise BenchError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")


class Children:
    """The long-running processes of a run; leaving the block ends them."""

    def __init__(self, folder: Path) -> None:
        """Keep their output in files of a folder."""
        self.folder = folder
        self._running: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        for _, child in reversed(self._running):
            child.terminate()
        for _, child in reversed(self._running):
            try:
                child.wait(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._stack.close()

    def start(
        self, name: str, core: int, command: Sequence[str], env: Mapping[str, str] | None = None
    ) -> int:
        """Start a process on a core and return its id; its output goes to `<name>.log`."""
        log = self._stack.enter_context((self.folder / f"{name}.log").open("ab"))
        child = subprocess.Popen(  # noqa: S603 - the commands are this module's own
            pinned(core, command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **(env or {})},
        )
        self._running.append((name, child))
        return child.pid

    def check(self) -> None:
        """Raise when a process has ended by itself, with the end of what it wrote."""
        for name, child in self._running:
            if child.poll() is not None:
                raise BenchError(f"{name} ended with code {child.returncode}:\n{self.tail(name)}")

    def tail(self, name: str) -> str:
        """Return the last lines that a process wrote."""
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-15:])

    def await_status(self, port: int, path: str, seconds: float = 60.0) -> None:
        """Wait until a server answers a path with 200."""
        end = time.monotonic() + seconds
        last: object = "no connection"
        while time.monotonic() < end:
            self.check()
            try:
                status, _ = get(port, path)
            except OSError as error:
                last = error
            else:
                if status == 200:
                    return
                last = status
            time.sleep(0.1)
        raise BenchError(f"127.0.0.1:{port}{path} did not answer 200 in {seconds:.0f} s ({last})")


def get(port: int, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body of a GET on loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def get_json(port: int, path: str) -> Any:
    """Return the decoded body of a GET on loopback that must answer 200."""
    status, body = get(port, path)
    if status != 200:
        raise BenchError(f"127.0.0.1:{port}{path} answered {status}")
    return json.loads(body)


def _stat(pid: int) -> tuple[int, float]:
    """Return parent and CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / _TICK


def family(pid: int) -> list[int]:
    """Return a process and its descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = _stat(int(entry.name))[0]
    found = [pid]
    for member in found:
        found.extend(child for child, parent in parents.items() if parent == member)
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time that processes have used."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _stat(pid)[1]
    return total


def rss_bytes(pids: Sequence[int]) -> int:
    """Return the resident memory of processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1]) * _PAGE
    return total


def core_busy(core: int) -> float:
    """Return the seconds that a core has been busy since the start, stolen ones included."""
    for line in Path("/proc/stat").read_text(encoding="utf-8").splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, soft, steal = map(int, ticks[:8])
            return (user + nice + system + irq + soft + steal) / _TICK
    raise BenchError(f"/proc/stat: has no core {core}; the benchmark needs two")


def await_quiet(seconds: float, busy: float) -> None:
    """Wait until neither core is busier than a share for a moment, or until the time is over."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        before = core_busy(HARNESS_CORE), core_busy(PROXY_CORE)
        time.sleep(_MOMENT)
        after = core_busy(HARNESS_CORE), core_busy(PROXY_CORE)
        if max(b - a for a, b in zip(before, after, strict=True)) <= busy * _MOMENT:
            return


@dataclass
class Meter:
    """What the cores did during a measurement, and how much of it was not ours."""

    upstream: int
    proxy: Sequence[int]
    wall: float = 0.0
    proxy_cpu: float = 0.0
    harness_cpu: float = 0.0
    foreign: dict[str, float] = field(default_factory=dict)
    _start: tuple[float, ...] = ()

    def __enter__(self) -> Self:
        self._start = self._read()
        return self

    def __exit__(self, *_: object) -> None:
        now = self._read()
        self.wall, harness, proxy, client, upstream, self.proxy_cpu = (
            after - before for after, before in zip(now, self._start, strict=True)
        )
        self.harness_cpu = client + upstream
        self.foreign = {
            "harness_core": max(harness - client - upstream, 0.0) / self.wall,
            "proxy_core": max(proxy - self.proxy_cpu, 0.0) / self.wall,
        }

    @property
    def worst(self) -> float:
        """Largest share of a core that others took."""
        return max(self.foreign.values())

    def _read(self) -> tuple[float, ...]:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return (
            time.monotonic(),
            core_busy(HARNESS_CORE),
            core_busy(PROXY_CORE),
            children.ru_utime + children.ru_stime,
            cpu_seconds([self.upstream]),
            cpu_seconds(self.proxy),
        )
