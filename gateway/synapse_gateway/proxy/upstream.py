"""How requests to each backend begin, and the connections that they go over."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.errors import ConfigError
from synapse_gateway.proxy.pool import Pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from synapse_gateway.backends.base import Adapter
    from synapse_gateway.config.settings import Backend
    from synapse_gateway.proxy.deadlines import Deadlines
    from synapse_gateway.proxy.outbox import Outbox
    from synapse_gateway.proxy.request import ProxyRequest
    from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord

    TraceParent = Callable[[RequestRecord, AttemptRecord], bytes]


def backend_key(backend: Backend, environ: Mapping[str, str]) -> str | None:
    """Return the key that a backend wants.

    Raises:
        ConfigError: The variable or file that should hold it is not there, or holds none.
    """
    if backend.api_key_env is not None:
        key = environ.get(backend.api_key_env)
        if key is None:
            raise ConfigError(f"api_key_env: the variable {backend.api_key_env} is not set")
        return _usable(key, f"api_key_env: the variable {backend.api_key_env}")
    if backend.api_key_file is not None:
        try:
            key = Path(backend.api_key_file).read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise ConfigError(f"api_key_file: {error.strerror}: {error.filename}") from error
        return _usable(key, f"api_key_file: {backend.api_key_file}")
    return None


def _usable(key: str, source: str) -> str:
    """Return a key without the blanks around it, which editors and `echo` leave."""
    key = key.strip()
    if not re.fullmatch("[!-~]+", key):
        raise ConfigError(f"{source} must hold a key: visible ASCII characters, no blanks")
    return key


class MadeOf(NamedTuple):
    """All that the connections to a backend depend on, files by their content."""

    config: Backend
    key: str | None
    authorities: bytes | None

    @classmethod
    def read(cls, backend: Backend, environ: Mapping[str, str]) -> MadeOf:
        """Read it.

        Raises:
            ConfigError: Something that the settings refer to is not there.
        """
        authorities = None
        if backend.tls.ca_file is not None:
            try:
                authorities = Path(backend.tls.ca_file).read_bytes()
            except OSError as error:
                raise ConfigError(f"tls.ca_file: {error.strerror}: {error.filename}") from error
        return cls(backend, backend_key(backend, environ), authorities)


class Upstream:
    """One backend's connections and request heads.

    Args:
        backend: Its settings.
        adapter: Knows its paths.
        key: Its key, if it wants one.
        traceparent: Makes the W3C trace context of an attempt; an empty one is not sent.
        outbox: Writes the requests.
    """

    def __init__(
        self,
        backend: Backend,
        adapter: Adapter,
        key: str | None,
        traceparent: TraceParent,
        outbox: Outbox,
    ) -> None:
        self.pool = Pool(backend, outbox)
        self._adapter = adapter
        self._traceparent = traceparent
        address = self.pool.address
        self._base = address.base_path
        lines = [f"host: {address.authority}", "accept-encoding: identity"]
        if key is not None:
            lines.append(f"authorization: Bearer {key}")
        lines.extend(f"{name.lower()}: {value}" for name, value in backend.headers.items())
        self._lines = ("\r\n".join(lines) + "\r\n").encode("latin-1")
        self._starts: dict[str, bytes] = {}

    def head(self, request: ProxyRequest, path: str, length: int, record: AttemptRecord) -> bytes:
        """Return the request line and headers of a request to this backend."""
        start = self._starts.get(path)
        if start is None:
            start = self._starts[path] = self.start("POST", path)
        trace = self._traceparent(request.record, record)
        if trace:
            trace = b"traceparent: %b\r\n" % trace
        return b"%bx-request-id: %b\r\n%b%bcontent-length: %d\r\n\r\n" % (
            start,
            request.record.id.encode(),
            trace,
            request.headers,
            length,
        )

    def start(self, method: str, path: str, *, verbatim: bool = False) -> bytes:
        """Return the request line, and the headers that every request to this backend has.

        Args:
            method: HTTP method.
            path: The gateway's path, or with `verbatim` the backend's own.
            verbatim: Whether the adapter has no say in the path.
        """
        target = self._base + (path if verbatim else self._adapter.upstream_path(path))
        return f"{method} {target} HTTP/1.1\r\n".encode("latin-1") + self._lines


class Upstreams:
    """All backends of a configuration by name.

    Args:
        upstreams: The backends.
        nudge: Told the name of a backend that failed a request.
        deadlines: Looks at the deadlines of requests to them.
    """

    def __init__(
        self,
        upstreams: dict[str, Upstream],
        nudge: Callable[[str], None],
        deadlines: Deadlines,
    ) -> None:
        self._upstreams = upstreams
        self.nudge = nudge
        self.deadlines = deadlines

    def of(self, name: str) -> Upstream:
        """Return a backend's."""
        return self._upstreams[name]

    def items(self) -> dict[str, Upstream]:
        """Return them all."""
        return self._upstreams
