"""The connection to Redis that replicas share, and whether it works.

Redis is never needed to answer a request: whoever uses it has a way without. This module says when
to take that way, and finds out by itself when Redis is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

FAILURES = (RedisError, OSError, TimeoutError)
"""What a call of the client may raise when Redis is gone, slow, or answers nonsense."""


class SharedState:
    """A Redis client with a known state.

    Attributes:
        client: The client; use it only while `up`, and report what it raises to `failed`.
        up: Whether Redis answered last time.
    """

    def __init__(
        self, url: str, *, timeout: float = 0.25, interval: float = 1.0, connections: int = 8
    ) -> None:
        """Make a client; nothing is sent before `start`.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            timeout: Seconds that one exchange may take: callers wait for it.
            interval: Seconds between two looks.
            connections: Open at once at most.

        Raises:
            ConfigError: The URL is not one of Redis.
        """
        wrong = "SYNAPSE_REDIS_URL: must be like redis://host:6379/0 (or rediss://, unix://)"
        if "://" not in url:
            raise ConfigError(wrong)
        try:
            # No retries: the way without Redis is better than waiting for it.
            self.client: Redis = Redis.from_url(
                url,
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
                max_connections=connections,
                retry=Retry(NoBackoff(), 0),
            )
        except ValueError as error:
            # The URL may hold a password, and the client's sentence the URL.
            raise ConfigError(wrong) from error
        self.up = False
        self.timeout = timeout
        self._interval = interval
        self._listeners: list[Callable[[bool], None]] = []
        self._said = False
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def on_change(self, listener: Callable[[bool], None]) -> None:
        """Call `listener` with the state now and whenever it changes."""
        self._listeners.append(listener)
        listener(self.up)

    async def start(self) -> None:
        """Look once, then keep looking."""
        await self.look()
        self._task = asyncio.create_task(self._watch(), name="redis-watch")

    async def stop(self) -> None:
        """Stop looking and close the connections."""
        # Not cancelled: the client may swallow a cancellation that comes with a time-out.
        self._stopping.set()
        if self._task is not None:
            await self._task
            self._task = None
        with contextlib.suppress(*FAILURES):
            await self.client.aclose()

    async def look(self) -> bool:
        """Ask Redis for a sign of life, and return whether there was one."""
        try:
            async with asyncio.timeout(2 * self.timeout):
                await self.client.ping()
        except FAILURES as error:
            self.failed(error)
        else:
            self._become(up=True, why="")
        return self.up

    def failed(self, error: BaseException) -> None:
        """Note that a call failed; nobody uses Redis until it has answered again."""
        # The name of the error only: its text may hold the address and the password.
        self._become(up=False, why=type(error).__name__)

    async def _watch(self) -> None:
        while not self._stopping.is_set():
            await self.look()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._stopping.wait()

    def _become(self, *, up: bool, why: str) -> None:
        if up == self.up and self._said:
            return
        self.up = up
        self._said = True
        if up:
            _log.info("Redis answers: limits and state are shared between replicas")
        else:
            _log.warning("Redis does not answer (%s): limits hold for each replica alone", why)
        for listener in self._listeners:
            listener(up)
