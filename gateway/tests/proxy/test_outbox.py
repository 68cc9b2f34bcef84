from __future__ import annotations

from typing import TYPE_CHECKING, Any

from synapse_gateway.proxy import outbox as module
from synapse_gateway.proxy.outbox import Outbox
from tests.proxy.support import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Turn:
    """An outbox, and what it wants done at the end of the loop's turn."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.outbox = Outbox(self.soon.append)

    def end(self) -> None:
        for function in self.soon:
            function()
        self.soon.clear()


def test_nothing_is_written_before_the_turn_ends() -> None:
    turn, one, two = Turn(), FakeTransport(), FakeTransport()
    turn.outbox.post(one, b"a")
    turn.outbox.post(two, b"b")
    turn.outbox.post(one, b"c")
    assert one.written == two.written == []
    assert len(turn.soon) == 1
    turn.end()
    assert (one.written, two.written) == ([b"a", b"c"], [b"b"])


def test_what_is_posted_in_a_row_to_one_goes_in_one_call() -> None:
    class Counting(FakeTransport):
        calls = 0

        def writelines(self, *args: Any) -> None:
            self.calls += 1
            super().writelines(*args)

    turn, one = Turn(), Counting()
    for data in (b"a", b"b", b"c"):
        turn.outbox.post(one, data)
    turn.end()
    assert (one.written, one.calls) == ([b"a", b"b", b"c"], 1)


def test_every_turn_is_counted_and_written_once() -> None:
    turn, one = Turn(), FakeTransport()
    before = turn.outbox.turn
    turn.outbox.post(one, b"a")
    assert turn.outbox.turn == before
    turn.end()
    assert turn.outbox.turn > before
    turn.outbox.post(one, b"b")
    turn.end()
    assert one.written == [b"a", b"b"]


def test_a_flush_before_the_end_of_the_turn_writes_what_there_is() -> None:
    turn, one = Turn(), FakeTransport()
    turn.outbox.post(one, b"a")
    turn.outbox.flush()
    assert one.written == [b"a"]
    turn.outbox.post(one, b"b")
    turn.end()
    assert one.written == [b"a", b"b"]


def test_many_writes_do_not_wait_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    turn, several = Turn(), [FakeTransport() for _ in range(3)]
    for each in several:
        turn.outbox.post(each, b"a")
    assert [each.written for each in several] == [[b"a"], [b"a"], []]
    turn.end()
    assert several[2].written == [b"a"]


def test_nothing_is_written_to_who_has_closed() -> None:
    turn, one = Turn(), FakeTransport()
    turn.outbox.post(one, b"a")
    one.abort()
    turn.end()
    assert one.written == []


def test_one_that_cannot_be_written_to_does_not_cost_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeTransport):
        def write(self, data: object) -> None:
            raise RuntimeError("no")

    turn, one, two = Turn(), Broken(), FakeTransport()
    turn.outbox.post(one, b"a")
    turn.outbox.post(two, b"b")
    turn.end()
    assert two.written == [b"b"]
    assert "could not write" in caplog.text
