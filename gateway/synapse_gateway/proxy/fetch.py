"""Small requests to a backend that are wanted whole: probes, and what is asked on its behalf."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synapse_gateway.backends.base import Reply
from synapse_gateway.proxy.connection import Broken
from synapse_gateway.proxy.pool import ConnectFailed

if TYPE_CHECKING:
    from synapse_gateway.proxy.body import Body
    from synapse_gateway.proxy.connection import Headers
    from synapse_gateway.proxy.upstream import Upstream

MAX_REPLY_BYTES = 8 * 1024 * 1024


class _Collector:
    """Receives an answer whole."""

    def __init__(self) -> None:
        self.done: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._parts: list[bytes] = []
        self._size = 0

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status
        self._headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in headers}

    def on_body(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MAX_REPLY_BYTES:
            self._parts.append(data)
        else:
            self._fail("too large an answer")

    def relay(self, _raw: bytes) -> bool:
        return False

    def on_chunks(self, _raw: bytes, chunks: list[bytes]) -> None:
        self.on_body(b"".join(chunks))

    def on_end(self) -> None:
        if not self.done.done():
            self.done.set_result(Reply(self._status, self._headers, b"".join(self._parts)))

    def on_broken(self, why: Broken) -> None:
        self._fail("not HTTP" if why is Broken.MALFORMED else "broke off")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(why))


class BackendHttp:
    """One backend's HTTP interface (`backends.base.Http`)."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    async def request(
        self, method: str, path: str, *, body: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        """Send one request and return the whole answer.

        Raises:
            OSError: It could not be reached, or broke off.
            TimeoutError: It did not answer in time.
        """
        kind = b"application/json" if body else b""
        return await self._request(method, path, kind, len(body), body, timeout)

    async def upload(
        self, method: str, path: str, *, body: Body, content_type: bytes, timeout: float
    ) -> Reply:
        """Send a request with a body that is read as it is sent, and return the whole answer.

        Raises:
            OSError: It could not be reached, or broke off.
            TimeoutError: It did not answer in time.
        """
        return await self._request(method, path, content_type, body.length, body, timeout)

    async def _request(
        self,
        method: str,
        path: str,
        content_type: bytes,
        length: int,
        body: bytes | Body,
        timeout: float,
    ) -> Reply:
        head = b"%baccept: */*\r\n%bcontent-length: %d\r\n\r\n" % (
            self._upstream.start(method, path, verbatim=True),
            b"content-type: %b\r\n" % content_type if content_type else b"",
            length,
        )
        async with asyncio.timeout(timeout):
            try:
                # a connection of its own: a probe tells whether new ones can be made
                connection = await self._upstream.pool.connect(timeout, keep=False)
            except ConnectFailed as failed:
                raise ConnectionError(failed.outcome.value) from failed
            collector = _Collector()
            try:
                connection.send(head, body, collector)
                return await collector.done
            finally:
                connection.leave(collector)
