"""Where requests wait while every target of their model is at its cap."""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.routing.table import ModelRoute


class QueueFull(Exception):
    """As many requests wait for this model as may."""


class Place:
    """A request's place in the queue; it keeps it however often it is woken in vain."""

    __slots__ = ("_sort", "woken")

    def __init__(self, priority: int, number: int) -> None:
        self._sort = (-priority, number)
        self.woken: asyncio.Future[None] | None = None

    def __lt__(self, other: Place) -> bool:
        return self._sort < other._sort


class Line(NamedTuple):
    """Those who wait for the same."""

    route: ModelRoute
    particular: bool = False
    """Whether only some of its targets will do: they must not hold up those who take any."""


class WaitingRoom:
    """Queues by line: higher priority first, then first come first served.

    A route is known by itself, not by its name: those of paths have none, and a reload makes new
    ones, whose requests need not wait for what the old one's wait for.

    A freed place at a target wakes the first of each queue, who looks for a target again; that is
    cheaper than to know whom the place would suit, since few models wait at a time.
    """

    def __init__(self) -> None:
        self._queues: dict[Line, list[Place]] = {}
        self._number = 0

    def lengths(self) -> Iterator[tuple[str, int]]:
        """Iterate over (model, number of requests that wait)."""
        lengths: Counter[str] = Counter()
        for line, queue in self._queues.items():
            lengths[line.route.name] += len(queue)
        return iter(lengths.items())

    def occupied(self, line: Line, priority: int) -> bool:
        """Say whether somebody waits whom a newcomer of this priority must not overtake."""
        queue = self._queues.get(line)
        return bool(queue) and queue[0]._sort[0] <= -priority  # type: ignore[index]  # noqa: SLF001

    def enter(self, line: Line, priority: int) -> Place:
        """Take a place.

        Raises:
            QueueFull: There is none left.
        """
        places = self._queues.get(line, [])
        if len(places) >= line.route.queue.size:
            raise QueueFull
        self._queues[line] = places
        self._number += 1
        place = Place(priority, self._number)
        heapq.heappush(places, place)
        return place

    def leave(self, line: Line, place: Place) -> None:
        """Give a place up, and let the next one look whether there is room for him too."""
        places = self._queues[line]
        places.remove(place)
        if places:
            heapq.heapify(places)
            _wake(places[0])
        else:
            del self._queues[line]

    async def wait(self, place: Place, timeout: float) -> bool:
        """Wait until it is worth looking again.

        Args:
            place: From `enter`.
            timeout: Seconds.

        Returns:
            False if the time ran out.
        """
        loop = asyncio.get_running_loop()
        place.woken = loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await place.woken
        except TimeoutError:
            return False
        finally:
            place.woken = None
        return True

    def notify(self) -> None:
        """Wake the first of every queue: a target has room, or is back."""
        if self._queues:
            for places in self._queues.values():
                _wake(places[0])


def _wake(place: Place) -> None:
    if place.woken is not None and not place.woken.done():
        place.woken.set_result(None)
