"""Connections to one backend, kept open between requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from synapse_gateway.errors import ConfigError
from synapse_gateway.proxy.connection import UpstreamConnection
from synapse_gateway.routing.outcome import Outcome

if TYPE_CHECKING:
    from synapse_gateway.config.settings import Backend, Tls
    from synapse_gateway.proxy.outbox import Outbox

MAX_IDLE = 512
"""Idle connections kept per backend."""
MAX_IDLE_SECONDS = 60.0


class ConnectFailed(Exception):
    """No connection could be made.

    Attributes:
        outcome: Which row of the failover table it is.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.value)
        self.outcome = outcome


class Address(NamedTuple):
    """Where a backend is, and how requests to it begin."""

    host: str
    port: int
    base_path: str
    authority: str
    """Value of the Host header."""
    tls: Tls | None


def address_of(backend: Backend) -> Address:
    """Split a backend's URL; a trailing `/v1` is dropped, for the gateway's paths hold it."""
    parts = urlsplit(backend.url)
    secure = parts.scheme == "https"
    base = parts.path.rstrip("/")
    base = base.removesuffix("/v1")
    host = parts.hostname or ""
    port = parts.port or (443 if secure else 80)
    authority = f"[{host}]" if ":" in host else host
    if parts.port is not None:
        authority = f"{authority}:{parts.port}"
    return Address(host, port, base, authority, backend.tls if secure else None)


def _context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"tls.ca_file: cannot use {tls.ca_file}: {error.strerror}") from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


class Pool:
    """Connections to one backend.

    Args:
        backend: Its settings.
        outbox: Writes the requests.

    Raises:
        ConfigError: The certificates to trust cannot be read.
    """

    def __init__(self, backend: Backend, outbox: Outbox) -> None:
        self._outbox = outbox
        self.address = address_of(backend)
        self._ssl = _context(self.address.tls) if self.address.tls else None
        self._idle: dict[UpstreamConnection, None] = {}
        self._loop = asyncio.get_running_loop()
        self._closing = False

    def take(self) -> UpstreamConnection | None:
        """Return the idle connection that was used last, if there is one."""
        oldest = monotonic() - MAX_IDLE_SECONDS
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.usable:
                continue
            if connection.idle_since < oldest:
                connection.abort()
                continue
            return connection
        return None

    async def connect(self, timeout: float, *, keep: bool = True) -> UpstreamConnection:
        """Open a connection.

        Args:
            timeout: Seconds until it must stand, TLS included.
            keep: Whether it stays open for further requests.

        Raises:
            ConnectFailed: It does not.
        """
        address = self.address
        on_idle = self._on_idle if keep else UpstreamConnection.abort
        server_name = None
        if address.tls is not None:
            server_name = address.tls.server_name or address.host
        try:
            async with asyncio.timeout(timeout):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(on_idle, self._on_closed, self._outbox),
                    address.host,
                    address.port,
                    ssl=self._ssl,
                    server_hostname=server_name,
                )
        except OSError as error:
            raise ConnectFailed(_outcome_of(error)) from error
        if not connection.usable:
            # it was closed before anybody could ask for anything: no callback would ever say so
            raise ConnectFailed(Outcome.RESET)
        return connection

    def close(self) -> None:
        """Close what is idle now, and the rest as it becomes idle."""
        self._closing = True
        for connection in list(self._idle):
            connection.abort()
        self._idle.clear()

    def _on_idle(self, connection: UpstreamConnection) -> None:
        if self._closing or len(self._idle) >= MAX_IDLE:
            connection.abort()
            return
        connection.idle_since = now = monotonic()
        self._idle[connection] = None
        # the one used last is taken first, so one that nobody needs any more is at the front
        oldest = next(iter(self._idle))
        if oldest.idle_since < now - MAX_IDLE_SECONDS:
            del self._idle[oldest]
            oldest.abort()

    def _on_closed(self, connection: UpstreamConnection) -> None:
        self._idle.pop(connection, None)


def _outcome_of(error: OSError) -> Outcome:
    """Say which row of the failover table a connection error is."""
    # gaierror and SSLError are OSErrors too, and so is TimeoutError
    for kind, outcome in _OUTCOMES:
        if isinstance(error, kind):
            return outcome
    return Outcome.REFUSED


_OUTCOMES: tuple[tuple[type[OSError], Outcome], ...] = (
    (TimeoutError, Outcome.CONNECT_TIMEOUT),
    (ssl.SSLError, Outcome.TLS),
    (socket.gaierror, Outcome.DNS),
    (ConnectionResetError, Outcome.RESET),
)
