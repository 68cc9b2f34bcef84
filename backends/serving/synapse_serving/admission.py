"""How many requests are worked on, how many may wait, and when the next is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from .errors import Overloaded
from .metrics import Metrics

T = TypeVar("T")


class Admission:
    """Bounded concurrency with a bounded queue.

    A request first takes a *place* (a slot or the queue) before its body is read, so that a crowd
    of uploads fills neither memory nor disk; the model's work then waits for a *slot*.

    Args:
        slots: Requests worked on at a time.
        queue: Requests that may wait beyond those.
        max_wait: Seconds that one may wait for a slot.
        metrics: Where the queue is shown.
    """

    def __init__(self, slots: int, queue: int, max_wait: float, metrics: Metrics) -> None:
        self._places = slots + queue
        self._taken = 0
        self._slots = slots
        self._free = asyncio.Semaphore(slots)
        self._max_wait = max_wait
        self._threads = CapacityLimiter(slots)
        self._metrics = metrics
        self._seconds = 1.0

    @property
    def taken(self) -> int:
        """Places taken now."""
        return self._taken

    def retry_after(self) -> float:
        """Seconds until a place is likely free: the queue's length in recent durations."""
        return min(60.0, self._seconds * self._taken / self._slots)

    def enter(self) -> None:
        """Take a place; pair it with :meth:`leave`.

        Raises:
            Overloaded: When every slot and every place in the queue is taken.
        """
        if self._taken >= self._places:
            self._metrics.rejected.inc()
            raise Overloaded(self.retry_after())
        self._taken += 1

    def leave(self) -> None:
        """Give the place back."""
        self._taken -= 1

    async def acquire(self) -> None:
        """Wait for a slot; pair it with :meth:`release`.

        Raises:
            Overloaded: When none came free within ``max_wait``.
        """
        with self._metrics.queued.track_inprogress():
            try:
                await asyncio.wait_for(self._free.acquire(), self._max_wait)
            except TimeoutError:
                self._metrics.rejected.inc()
                raise Overloaded(self.retry_after()) from None

    def release(self, seconds: float | None = None) -> None:
        """Give the slot back; ``seconds`` it was held tunes the advice to those refused."""
        self._free.release()
        if seconds is not None:
            self._seconds += 0.2 * (seconds - self._seconds)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot for the body of a ``with``."""
        await self.acquire()
        begun = asyncio.get_running_loop().time()
        try:
            yield
        finally:
            self.release(asyncio.get_running_loop().time() - begun)

    async def in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Run blocking ``function`` off the event loop.

        A cancelled caller waits for it: the model is not free before it returns.
        """
        return await to_thread.run_sync(function, *arguments, limiter=self._threads)
