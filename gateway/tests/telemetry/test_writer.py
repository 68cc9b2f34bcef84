"""Lines are written by another thread, in order, and none is lost but for a sink that fails."""

from __future__ import annotations

import threading

import pytest

from synapse_gateway.telemetry import writer as writer_module
from synapse_gateway.telemetry.writer import LineWriter


class Sink:
    """Keeps what is written; can be made to wait or to fail."""

    def __init__(self) -> None:
        self.data = b""
        self.writes = 0
        self.error: Exception | None = None
        self.open = threading.Event()
        self.open.set()
        self.flushed = threading.Event()

    def write(self, data: bytes, /) -> None:
        self.open.wait(10)
        self.writes += 1
        if self.error is not None:
            raise self.error
        self.data += data

    def flush(self) -> None:
        self.flushed.set()


@pytest.fixture
def sink() -> Sink:
    return Sink()


def test_lines_come_out_in_order_and_in_batches(sink: Sink) -> None:
    writer = LineWriter(sink)
    lines = [b"%d\n" % number for number in range(3000)]
    for line in lines:
        writer.write(line)
    writer.close()
    assert sink.data == b"".join(lines)
    assert sink.writes < 50


def test_a_line_goes_out_by_itself_after_the_interval(sink: Sink) -> None:
    writer = LineWriter(sink, interval=0.01)
    writer.write(b"one\n")
    assert sink.flushed.wait(10)
    assert sink.data == b"one\n"
    sink.flushed.clear()
    writer.write(b"two\n")
    assert sink.flushed.wait(10)
    assert sink.data == b"one\ntwo\n"
    writer.close()


def test_a_line_in_a_hurry_does_not_wait_for_the_interval(sink: Sink) -> None:
    writer = LineWriter(sink, interval=3600)
    writer.write(b"one\n", hurry=True)
    assert sink.flushed.wait(10)
    writer.close()


def test_a_large_batch_does_not_wait_for_the_interval(sink: Sink) -> None:
    writer = LineWriter(sink, interval=3600)
    for _ in range(writer_module._BATCH):
        writer.write(b"x\n")
    assert sink.flushed.wait(10)
    writer.close()


def test_lines_of_many_threads_all_arrive(sink: Sink) -> None:
    writer = LineWriter(sink, interval=0.001)

    def work(name: bytes) -> None:
        for number in range(500):
            writer.write(b"%s %d\n" % (name, number))

    threads = [threading.Thread(target=work, args=(b"%d" % n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert sorted(sink.data.splitlines()) == sorted(
        b"%d %d" % (name, number) for name in range(4) for number in range(500)
    )


def test_a_sink_that_does_not_keep_up_costs_lines_but_no_memory_and_no_wait(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_LINES", 100)
    sink.open.clear()
    writer = LineWriter(sink, interval=3600)
    for number in range(150):
        writer.write(b"%d\n" % number)
    assert writer.dropped == 50
    sink.open.set()
    writer.close()
    assert sink.data.splitlines()[-1] == b"99"


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed file")])
def test_a_sink_that_fails_is_survived_and_counted(sink: Sink, error: Exception) -> None:
    writer = LineWriter(sink, interval=3600)
    sink.error = error
    writer.write(b"one\n")
    writer.flush()
    assert writer.dropped == 1
    sink.error = None
    writer.write(b"two\n")
    writer.close()
    assert sink.data == b"two\n"


def test_lines_after_the_end_are_written_by_a_flush(sink: Sink) -> None:
    writer = LineWriter(sink)
    writer.close()
    writer.write(b"late\n")
    writer.flush()
    assert sink.data == b"late\n"
