from __future__ import annotations

import asyncio

import pytest

from synapse_gateway.config.settings import Model, Queue
from synapse_gateway.proxy.waiting import Line, Place, QueueFull, WaitingRoom
from synapse_gateway.routing.table import ModelRoute


def line(name: str, size: int = 100) -> Line:
    return Line(ModelRoute(name, Model(targets=()), (), attempts=3, queue=Queue(size=size)))


M, N = line("m"), line("n")


class Waiter:
    """Somebody who waits in a task."""

    def __init__(self, room: WaitingRoom, name: str, priority: int = 5, where: Line = M) -> None:
        self.name = name
        self.line = where
        self.room = room
        self.place: Place = room.enter(where, priority)
        self.task = asyncio.create_task(room.wait(self.place, 30.0))

    @property
    def woken(self) -> bool:
        return self.task.done()

    def leave(self) -> None:
        self.room.leave(self.line, self.place)


async def turn() -> None:
    """Let every task that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def leaving_order(room: WaitingRoom, waiters: list[Waiter]) -> list[str]:
    """Return the order in which a chain of departures lets everybody go."""
    order = []
    await turn()
    room.notify()
    while waiters:
        await turn()
        [first] = [waiter for waiter in waiters if waiter.woken]
        order.append(first.name)
        waiters.remove(first)
        first.leave()
    return order


async def test_first_come_first_served() -> None:
    room = WaitingRoom()
    waiters = [Waiter(room, name) for name in "abcd"]
    assert await leaving_order(room, waiters) == ["a", "b", "c", "d"]
    assert list(room.lengths()) == []


async def test_a_higher_priority_goes_first() -> None:
    room = WaitingRoom()
    waiters = [
        Waiter(room, f"{name}{p}", p) for name, p in zip("abcde", [1, 5, 9, 5, 9], strict=True)
    ]
    assert await leaving_order(room, waiters) == ["c9", "e9", "b5", "d5", "a1"]


async def test_only_the_first_of_a_queue_is_woken() -> None:
    room = WaitingRoom()
    first, second = Waiter(room, "a"), Waiter(room, "b")
    await turn()
    room.notify()
    await turn()
    assert (first.woken, second.woken) == (True, False)
    second.task.cancel()


async def test_every_queue_hears_of_a_freed_place() -> None:
    room = WaitingRoom()
    waiters = [Waiter(room, "a", where=M), Waiter(room, "b", where=N)]
    await turn()
    room.notify()
    await turn()
    assert all(waiter.woken for waiter in waiters)
    assert dict(room.lengths()) == {"m": 1, "n": 1}


async def test_who_was_woken_in_vain_keeps_his_place() -> None:
    room = WaitingRoom()
    first, second = Waiter(room, "a"), Waiter(room, "b")
    await turn()
    room.notify()
    await turn()
    again = asyncio.create_task(room.wait(first.place, 30.0))
    await turn()
    room.notify()
    await turn()
    assert again.done()
    assert not second.woken
    second.task.cancel()


async def test_who_leaves_lets_the_next_look() -> None:
    room = WaitingRoom()
    first, second = Waiter(room, "a"), Waiter(room, "b")
    await turn()
    first.task.cancel()
    first.leave()
    await turn()
    assert second.woken


async def test_who_leaves_from_the_middle_disturbs_no_order() -> None:
    room = WaitingRoom()
    waiters = [
        Waiter(room, f"{n}{p}", p) for n, p in zip("abcdef", [3, 9, 1, 5, 9, 5], strict=True)
    ]
    gone = waiters.pop(3)
    gone.task.cancel()
    gone.leave()
    await turn()
    assert await leaving_order(room, waiters) == ["b9", "e9", "f5", "a3", "c1"]


async def test_a_queue_has_so_many_places() -> None:
    room = WaitingRoom()
    small = line("small", 3)
    places = [room.enter(small, 5) for _ in range(3)]
    with pytest.raises(QueueFull):
        room.enter(small, 9)
    room.leave(small, places[0])
    room.enter(small, 5)
    room.enter(N, 5)


async def test_a_queue_of_no_places_is_always_full() -> None:
    room = WaitingRoom()
    with pytest.raises(QueueFull):
        room.enter(line("none", 0), 5)
    assert list(room.lengths()) == []


@pytest.mark.parametrize(("newcomer", "must_wait"), [(4, True), (5, True), (6, False)])
async def test_a_newcomer_overtakes_only_lower_priorities(
    newcomer: int, *, must_wait: bool
) -> None:
    room = WaitingRoom()
    room.enter(M, 5)
    assert room.occupied(M, newcomer) is must_wait
    assert not room.occupied(N, newcomer)


async def test_time_that_runs_out_is_told() -> None:
    room = WaitingRoom()
    place = room.enter(M, 5)
    assert await room.wait(place, 0.0) is False
    room.notify()


async def test_a_wake_that_nobody_waits_for_is_harmless() -> None:
    room = WaitingRoom()
    room.notify()
    waiter = Waiter(room, "a")
    room.notify()
    await turn()
    assert not waiter.woken, "nobody was listening yet"
    room.notify()
    room.notify()
    await turn()
    assert waiter.woken


async def test_routes_of_one_name_wait_apart() -> None:
    room = WaitingRoom()
    before, after = line(""), line("")
    room.enter(before, 5)
    assert not room.occupied(after, 5)
    room.enter(after, 5)
    assert dict(room.lengths()) == {"": 2}


async def test_those_who_need_a_particular_target_hold_nobody_up_who_takes_any() -> None:
    room = WaitingRoom()
    particular = Line(M.route, particular=True)
    Waiter(room, "a", where=particular).task.cancel()
    assert room.occupied(particular, 5)
    assert not room.occupied(M, 5)
    assert dict(room.lengths()) == {"m": 1}
