"""Looks at every backend from time to time, and at once when one has failed a request.

Requests tell more than probes, so one failed probe of a backend that was up says nothing yet: it is
repeated soon, and only a second failure is reported. A failed request (`nudge`) brings the next
look forward. Looks at one backend never overlap, and each has a deadline.

With several replicas and Redis, a round of looking is done by whichever replica takes its lease
(`SET NX PX`); the others take over its result. Whatever Redis does, every replica can look for
itself, and does when there is no result.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from synapse_gateway.backends.answers import Unreachable, describe
from synapse_gateway.backends.base import Probe
from synapse_gateway.backends.rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synapse_gateway.backends.base import Adapter, Http
    from synapse_gateway.config.settings import Backend
    from synapse_gateway.shared_state import SharedState

DEADLINE = 5.0
"""Seconds that one look may take."""
FAILURES_UNTIL_DOWN = 2
"""Consecutive failed looks after which a backend that was up is down."""
SOON = 1.0
"""Seconds until a failed look is repeated, at most."""
NUDGE_GAP = 0.2
"""Seconds between two looks at least, however many requests fail."""

_log = logging.getLogger(__name__)


class Probed(Protocol):
    """What the prober needs of a backend."""

    @property
    def config(self) -> Backend:
        """Its settings."""

    @property
    def adapter(self) -> Adapter:
        """Knows how it is looked at."""

    @property
    def up(self) -> bool | None:
        """Whether it is up, by probes and requests; None is not known yet."""


class Look(Protocol):
    """Looks at a backend."""

    def __call__(self, name: str, backend: Probed, *, urgent: bool) -> Awaitable[Probe | None]:
        """Return what there is to see; None if there is nothing new."""


class Prober:
    """Probes backends in the background.

    Args:
        http_for: Gives the HTTP interface of a backend by its name.
        report: Gets every result that counts.
        shared: Redis, if replicas share results.
        deadline: Seconds that one look may take.
    """

    def __init__(
        self,
        http_for: Callable[[str], Http],
        report: Callable[[str, Probe], object],
        *,
        shared: SharedState | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        self._http_for = http_for
        self._report = report
        self._rounds = Rounds(shared) if shared is not None else None
        self._deadline = deadline
        self._watches: dict[str, _Watch] = {}
        self._ended: set[asyncio.Task[None]] = set()

    def adopt(self, backends: Mapping[str, Probed]) -> None:
        """Look at these backends from now on, and at no others.

        One that is the same object as before is left alone, so that a reload disturbs nothing.
        """
        for name, watch in list(self._watches.items()):
            if backends.get(name) is not watch.backend:
                self._end(self._watches.pop(name))
        for name, backend in backends.items():
            if name not in self._watches:
                self._watches[name] = _Watch(name, backend, self._look, self._report)

    async def first_look(self, timeout: float = 2.0) -> None:
        """Wait until every backend was looked at once, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await asyncio.gather(*(watch.looked.wait() for watch in self._watches.values()))

    def nudge(self, name: str) -> None:
        """Look at a backend soon: a request to it has failed."""
        watch = self._watches.get(name)
        if watch is not None:
            watch.nudged.set()

    async def stop(self) -> None:
        """Stop looking."""
        for watch in self._watches.values():
            self._end(watch)
        self._watches.clear()
        await asyncio.gather(*self._ended, return_exceptions=True)

    def _end(self, watch: _Watch) -> None:
        watch.stopped = True  # the Redis client may swallow a cancellation that meets its time-out
        watch.task.cancel()
        self._ended.add(watch.task)
        watch.task.add_done_callback(self._ended.discard)

    async def _look(self, name: str, backend: Probed, *, urgent: bool) -> Probe | None:
        """Return what there is to see; None if another replica has it and it is not new."""
        if self._rounds is None:
            return await self._probe(name, backend)
        return await self._rounds.look(
            name, backend.config, lambda: self._probe(name, backend), urgent=urgent
        )

    async def _probe(self, name: str, backend: Probed) -> Probe:
        """Probe once; whatever goes wrong is a result too."""
        try:
            async with asyncio.timeout(self._deadline):
                return await backend.adapter.probe(self._http_for(name), backend.config.health)
        except (OSError, TimeoutError, Unreachable) as error:
            return Probe(up=False, detail=describe(error))
        except Exception:  # noqa: BLE001 - see below
            # a fault of ours in reading an answer must not end the looking for good
            _log.exception("probing %s failed", name)
            return Probe(up=False, detail="the answer to the probe could not be read")


class _Watch:
    """The looking at one backend, and when a failed look counts."""

    def __init__(
        self,
        name: str,
        backend: Probed,
        look: Look,
        report: Callable[[str, Probe], object],
    ) -> None:
        self.backend = backend
        self.nudged = asyncio.Event()
        self.looked = asyncio.Event()
        """Set once the first look is over."""
        self._name = name
        self._look = look
        self._report = report
        self._failures = 0
        self._said_down = False
        self.stopped = False
        self.task = asyncio.create_task(self._run(), name=f"probe-{name}")

    async def _run(self) -> None:
        urgent = False
        while not self.stopped:
            probe = await self._look(self._name, self.backend, urgent=urgent)
            if probe is not None and self._counts(probe):
                self._report(self._name, probe)
            self.looked.set()
            urgent = await self._rest()

    def _counts(self, probe: Probe) -> bool:
        """Say whether a result is to be reported."""
        if probe.up:
            self._failures = 0
            self._said_down = False
            return True
        if self.backend.up and self._said_down:
            # a request has succeeded since: that tells more than our looks did
            self._failures = 0
            self._said_down = False
        self._failures += 1
        if self.backend.up and self._failures < FAILURES_UNTIL_DOWN:
            return False
        self._said_down = True
        return True

    async def _rest(self) -> bool:
        """Wait for the next look; True if a failed request brought it forward."""
        pause = self.backend.config.probe_interval * random.uniform(0.9, 1.1)  # noqa: S311
        if self._failures and not self._said_down:
            pause = min(pause, SOON)
        gap = min(NUDGE_GAP, pause)
        await asyncio.sleep(gap)
        try:
            async with asyncio.timeout(pause - gap):
                await self.nudged.wait()
        except TimeoutError:
            return False
        self.nudged.clear()
        return True
