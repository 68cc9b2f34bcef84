"""The composition root: settings in, running gateway out.

The only module that knows every room; it makes the objects, starts and stops them in order, and
replaces what a new configuration replaces.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn
from uvicorn.server import HANDLED_SIGNALS

from synapse_gateway.api.gateway import Gateway, State
from synapse_gateway.api.http import make_app
from synapse_gateway.api.protocol import IdleConnections, SynapseProtocol
from synapse_gateway.auth.keys import KeyRing, check_exposure
from synapse_gateway.auth.limits import LocalLimiter
from synapse_gateway.auth.shared_limits import RedisLimiter
from synapse_gateway.backends import adapter
from synapse_gateway.backends.downloads import DEADLINE, Downloads
from synapse_gateway.backends.prober import Prober
from synapse_gateway.config import load_for_serving
from synapse_gateway.config.load import Dialect, Loaded
from synapse_gateway.config.reload import ConfigWatcher
from synapse_gateway.config.settings import Backend, BackendType
from synapse_gateway.errors import ConfigError
from synapse_gateway.proxy.deadlines import Deadlines
from synapse_gateway.proxy.fetch import BackendHttp
from synapse_gateway.proxy.outbox import Outbox
from synapse_gateway.proxy.spool import SpoolRoom
from synapse_gateway.proxy.upstream import MadeOf, Upstream, Upstreams
from synapse_gateway.proxy.waiting import WaitingRoom
from synapse_gateway.routing.fleet import BackendState, Fleet
from synapse_gateway.routing.retry_budget import RetryBudget
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.shared_state import SharedState
from synapse_gateway.telemetry import logs, tracing
from synapse_gateway.telemetry.hub import Telemetry
from synapse_gateway.telemetry.live import FleetState, LiveUploads
from synapse_gateway.telemetry.metrics import Metrics
from synapse_gateway.telemetry.redact import Redactor
from synapse_gateway.voices.library import Library
from synapse_gateway.voices.shelf import Shelf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import FrameType

    from synapse_gateway.auth.limits import Limiter
    from synapse_gateway.backends.base import Probe, Reply
    from synapse_gateway.config.options import ServeOptions
    from synapse_gateway.config.settings import Settings
    from synapse_gateway.telemetry.logs import AccessLog

_log = logging.getLogger(__name__)
KEEP_ALIVE = 75
"""Seconds that a caller's idle connection stays open; longer than common proxies keep theirs."""
BACKLOG = 4096
LAST_WORDS = 2.0
"""Seconds that callers have to read why their requests, which outlasted the stop, were ended."""
FAREWELL = 2.0
"""Seconds after SIGTERM in which kept connections stay open though nothing is under way."""
DEFAULT_VOICES = Path("/data/voices")
"""Directory of the library of voices, where `SYNAPSE_VOICE_LIBRARY_DIR` names no other."""
GC_THRESHOLD = 20_000
"""Allocations between two collections; requests leave few cycles, so the default's 700 is waste."""


class _Parts(NamedTuple):
    """What a configuration is made into before it replaces the one that runs."""

    states: dict[str, BackendState]
    upstreams: Upstreams
    ring: KeyRing


class Runtime:
    """A gateway with everything that works behind it.

    Args:
        environ: Process environment.
        access: Access log, if requests are logged.
        instance: Name of this replica.
        permit: Refuses keys that must not be served with, by raising `ConfigError`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        access: AccessLog | None = None,
        instance: str = "",
        permit: Callable[[KeyRing], None] = lambda _ring: None,
    ) -> None:
        self._environ = environ
        self._permit = permit
        self.metrics = Metrics()
        self._tracer = tracing.start(environ, instance)
        call_soon = asyncio.get_running_loop().call_soon
        self.telemetry = Telemetry(self.metrics, access, self._tracer, call_soon)
        self.fleet = Fleet()
        self.waiting = WaitingRoom()
        self._spool = SpoolRoom(Path(environ.get("SYNAPSE_SPOOL_DIR") or tempfile.gettempdir()))
        voices = Path(environ.get("SYNAPSE_VOICE_LIBRARY_DIR") or DEFAULT_VOICES)
        self._voices = Shelf(Library(voices), self._spool.submit)
        self._deadlines = Deadlines()
        self.outbox = Outbox(call_soon)
        self._made_of: dict[str, MadeOf] = {}
        self._shared: SharedState | None = None
        redis_url = environ.get("SYNAPSE_REDIS_URL")
        self._limiter: Limiter = LocalLimiter(self.metrics.rate_limited)
        if redis_url:
            self._shared = SharedState(redis_url)
            self._shared.on_change(self.metrics.redis_up)
            self._limiter = RedisLimiter(self._shared, instance, self.metrics.rate_limited)
        self.prober = Prober(self._http_for, self._report, shared=self._shared)
        self.downloads = Downloads(self._get, self.fleet.take_downloads)
        self.gateway: Gateway = None  # type: ignore[assignment]  # set by start

    async def start(self, settings: Settings, config_hash: str) -> None:
        """Build everything for the first configuration and look at every backend once.

        Raises:
            ConfigError: Something that the configuration refers to is missing.
        """
        parts = self._parts(settings, {})
        self._spool.check()
        await self._voices.run(self._voices.library.sweep)
        table = self._adopt(settings, parts)
        limits = settings.limits.retry_budget
        self.gateway = Gateway(
            State(table, parts.upstreams, parts.ring),
            self.fleet,
            self.waiting,
            RetryBudget(limits.ratio, limits.window, limits.minimum_per_second),
            self._limiter,
            self.telemetry,
            self._spool,
            self._voices,
        )
        self.metrics.watch(
            FleetState(
                self.fleet,
                lambda: self.gateway.state.table,
                lambda: list(self.waiting.lengths()),
                lambda: self.gateway.budget.denied,
                self._uploads,
            )
        )
        self._note_table(table)
        self.metrics.config_loaded(config_hash, time.time())
        if self._shared is not None:
            await self._shared.start()
        if isinstance(self._limiter, RedisLimiter):
            await self._limiter.start()
        self.prober.adopt(self.fleet.backends)
        self.downloads.watch(settings.downloads)
        await self.prober.first_look()

    async def stop(self) -> None:
        """Stop what runs in the background."""
        await self.downloads.stop()
        await self.prober.stop()
        if isinstance(self._limiter, RedisLimiter):
            await self._limiter.stop()
        if self._shared is not None:
            await self._shared.stop()
        for upstream in self.gateway.state.upstreams.items().values():
            upstream.pool.close()
        self.telemetry.account()
        await asyncio.to_thread(self._spool.close)
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)

    def apply(self, loaded: Loaded) -> None:
        """Replace the configuration at once; requests under way finish on the old one.

        Raises:
            ConfigError: It cannot be used; nothing has changed.
        """
        before = self.gateway.state
        parts = self._parts(loaded.settings, before.upstreams.items())
        table = self._adopt(loaded.settings, parts)
        self.gateway.state = State(table, parts.upstreams, parts.ring)
        limits = loaded.settings.limits.retry_budget
        self.gateway.budget.configure(limits.ratio, limits.window, limits.minimum_per_second)
        self._limiter.retain(parts.ring.names)
        self._note_table(table)
        self.prober.adopt(self.fleet.backends)
        for name, upstream in before.upstreams.items().items():
            if parts.upstreams.items().get(name) is not upstream:
                upstream.pool.close()
                self.prober.nudge(name)
        self.downloads.watch(loaded.settings.downloads)
        self.metrics.config_loaded(loaded.hash, time.time())
        self.waiting.notify()
        _log.info("configuration %s is in use", loaded.hash[:12])

    def _adopt(self, settings: Settings, parts: _Parts) -> RouteTable:
        for name, state in parts.states.items():
            state.configure(settings.backends[name])
        self.fleet.adopt(parts.states)
        return RouteTable(settings, self.fleet)

    def refuse(self, error: ConfigError) -> None:
        """Note that a changed file cannot be used."""
        self.metrics.config_refused()
        _log.error("the changed configuration is refused, the one before stays: %s", error)

    def _parts(self, settings: Settings, before: Mapping[str, Upstream]) -> _Parts:
        states: dict[str, BackendState] = {}
        upstreams: dict[str, Upstream] = {}
        made_of: dict[str, MadeOf] = {}
        for name, config in settings.backends.items():
            known = self.fleet.backends.get(name)
            if known is None or not known.is_at(config):
                known = BackendState(name, config, adapter(config.type))
            states[name] = known
            try:
                made_of[name] = MadeOf.read(config, self._environ)
                if made_of[name] == self._made_of.get(name):
                    upstreams[name] = before[name]
                    continue
                upstreams[name] = Upstream(
                    config,
                    known.adapter,
                    made_of[name].key,
                    self.telemetry.outgoing_traceparent,
                    self.outbox,
                )
            except ConfigError as error:
                raise ConfigError(f"backends.{name}.{error}") from error
        ring = KeyRing.build(settings, self._environ)
        self._permit(ring)
        self._made_of = made_of
        return _Parts(states, Upstreams(upstreams, self.prober.nudge, self._deadlines), ring)

    def _http_for(self, name: str) -> BackendHttp:
        return BackendHttp(self.gateway.state.upstreams.of(name))

    async def _get(self, url: str) -> Reply:
        kind = BackendType.OPENAI_COMPATIBLE
        upstream = Upstream(
            Backend(url=url),
            adapter(kind),
            None,
            self.telemetry.outgoing_traceparent,
            self.outbox,
        )
        return await BackendHttp(upstream).request("GET", "/", timeout=DEADLINE)

    def _report(self, name: str, probe: Probe) -> None:
        if self.fleet.report(name, probe):
            state = self.gateway.state
            table = RouteTable(state.table.settings, self.fleet)
            self.gateway.state = state._replace(table=table)
            self._note_table(table)
        self.waiting.notify()

    def _uploads(self) -> LiveUploads:
        room = self._spool
        return LiveUploads(room.uploads, room.reserved, room.refused)

    def _note_table(self, table: RouteTable) -> None:
        self.telemetry.configured(
            table.settings,
            [
                (state.backend.name, route.name)
                for route in table.models.values()
                for state in route.states
            ],
            self.gateway.state.ring.names,
        )


class _Server(uvicorn.Server):
    """uvicorn's server; it says so as soon as it has been told to stop."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway) -> None:
        super().__init__(config)
        self._gateway = gateway
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell who waits for it."""
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        """Serve until told to stop, then until what had begun has ended.

        The port stays open meanwhile: who asks hears that the gateway is not ready, and who comes
        before that news has spread is served. So do kept connections, on which a request may be
        on its way; its answer closes them (RFC 9112, 9.6).
        """
        await super().main_loop()
        if not self._gateway.draining:
            return
        told = time.monotonic()
        until = told + self._gateway.state.table.settings.limits.shutdown_grace
        begun = set(self.server_state.tasks)

        def awaits_some() -> bool:
            kept = self.server_state.connections and time.monotonic() < told + FAREWELL
            return bool(kept or begun & self.server_state.tasks)

        while awaits_some() and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(0.1)
            await self.on_tick(0)  # keeps the date of answers right
        self.config.timeout_graceful_shutdown = max(1, round(until - time.monotonic()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close, and see that those whose requests were cut short can read why."""
        await super().shutdown(sockets)
        until = time.monotonic() + (LAST_WORDS if self._gateway.draining else 0)
        while (  # noqa: ASYNC110 - nothing tells that a connection is closed
            self.server_state.connections and time.monotonic() < until and not self.force_exit
        ):
            await asyncio.sleep(0.05)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the signals that stop the server, and give them back when it has stopped.

        uvicorn's own raises them again, which would end the process before what is left to do.
        """
        handlers = {sig: signal.signal(sig, self.handle_exit) for sig in HANDLED_SIGNALS}
        try:
            yield
        finally:
            for sig, handler in handlers.items():
                signal.signal(sig, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop taking work; a second SIGINT stops at once."""
        self._gateway.draining = True
        super().handle_exit(sig, frame)


def _server(gateway: Gateway, outbox: Outbox) -> _Server:
    protocol: Any = type(
        "GatewayProtocol",
        (SynapseProtocol,),
        {"gateway": gateway, "outbox": outbox, "idle": IdleConnections(KEEP_ALIVE)},
    )
    config = uvicorn.Config(
        make_app(gateway),
        http=protocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=BACKLOG,
    )
    return _Server(config, gateway)


def _listen(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        ConfigError: The port is taken, or the address is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error.strerror}; "
            "stop what uses it, or choose another with --port"
        ) from error
    listener.setblocking(False)
    return listener


class Running(NamedTuple):
    """A gateway that serves within this process."""

    url: str
    runtime: Runtime
    server: _Server


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Running]:
    """Serve within the current event loop, for tests and for embedding.

    Args:
        settings: The configuration.
        host: Address to listen on.
        port: TCP port; 0 takes a free one.
        environ: Environment that keys and the like are looked up in.
    """
    runtime = Runtime({} if environ is None else environ)
    await runtime.start(settings, "")
    listener = _listen(host, port)
    server = _server(runtime.gateway, runtime.outbox)
    with server_without_signals(server):
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await server.ready.wait()
            name = listener.getsockname()
            yield Running(f"http://{host}:{name[1]}", runtime, server)
        finally:
            server.should_exit = True
            # what still runs at the end of a test is not waited for
            server.config.timeout_graceful_shutdown = 1
            await task
            await runtime.stop()


@contextlib.contextmanager
def server_without_signals(server: _Server) -> Any:
    """Leave the process's signals alone: the event loop belongs to somebody else."""
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    yield


def serve(options: ServeOptions, environ: Mapping[str, str] | None = None) -> None:
    """Run the gateway until it is told to stop.

    Args:
        options: Flags and environment, resolved.
        environ: Process environment.

    Raises:
        ConfigError: It cannot start; the text says why and what to do.
    """
    env = dict(os.environ if environ is None else environ)
    if options.redis_url:
        env["SYNAPSE_REDIS_URL"] = options.redis_url
    log = logs.setup(
        options.log_level, instance=options.instance_id, redact=Redactor.from_environ(env)
    )
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options, env, log))
    finally:
        log.close()


def _loop_factory() -> Any:
    import uvloop  # noqa: PLC0415 - only a server needs it

    return uvloop.new_event_loop


async def _serve(options: ServeOptions, environ: Mapping[str, str], log: logs.Logs) -> None:
    loaded = load_for_serving(options, environ)
    for warning in loaded.warnings:
        _log.warning("%s", warning)
    permit = partial(check_exposure, host=options.host, on_loopback=options.on_loopback)
    runtime = Runtime(environ, log.access, options.instance_id, permit)
    listeners = [_listen(options.host, options.port)]
    if options.ollama_port:
        listeners.append(_listen(options.host, options.ollama_port))
    await runtime.start(loaded.settings, loaded.hash)
    watcher: asyncio.Task[None] | None = None
    if loaded.dialect is not Dialect.NONE:
        watch = ConfigWatcher(
            options.config_path,
            environ,
            loaded,
            on_change=runtime.apply,
            on_refused=runtime.refuse,
        )
        watcher = asyncio.create_task(watch.run())
    server = _server(runtime.gateway, runtime.outbox)
    _log.info("listening on %s port %d", options.host, options.port)
    # what is there now stays: looking through it for garbage again and again finds none
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        await server.serve(sockets=listeners)
    finally:
        if watcher is not None:
            watcher.cancel()
        await runtime.stop()
