"""Writes log lines without making the event loop wait for whoever reads them."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Protocol

MAX_LINES = 65_536
"""Lines held while the reader is slow; further ones are dropped and counted."""

_BATCH = 512


class Sink(Protocol):
    """Where lines go, for example `sys.stdout.buffer`."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""
        ...

    def flush(self) -> object:
        """Pass on what was taken."""
        ...


class LineWriter:
    """Gathers lines and writes them in batches in a thread of its own.

    A batch goes out after `interval` seconds, or sooner if it is large or somebody asks. A line is
    lost only if the sink fails, or does not keep up with `MAX_LINES`.

    Attributes:
        dropped: Lines lost since the start.
    """

    def __init__(self, sink: Sink, interval: float = 0.2) -> None:
        """Build one, and start its thread.

        Args:
            sink: Where the lines go.
            interval: Seconds that a line waits at most.
        """
        self.dropped = 0
        self._sink = sink
        self._interval = interval
        self._lines: deque[bytes] = deque()
        self._some = threading.Event()
        self._hurry = threading.Event()
        self._drained = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: bytes, *, hurry: bool = False) -> None:
        """Take a line, with its line feed; never waits and never raises.

        Args:
            line: The line.
            hurry: Whether it should be written at once.
        """
        lines = self._lines
        if len(lines) >= MAX_LINES:
            self.dropped += 1
            return
        lines.append(line)
        # Asked after the line is in: the thread clears it before it takes lines.
        if not self._some.is_set():
            self._some.set()
        if hurry or len(lines) == _BATCH:
            self._hurry.set()

    def flush(self) -> None:
        """Write everything that was taken, now, in this thread."""
        self._drain()

    def close(self) -> None:
        """Write everything and end the thread; lines taken later are written by `flush` only."""
        self._closed = True
        self._some.set()
        self._hurry.set()
        self._thread.join()
        self._drain()

    def _run(self) -> None:
        while not self._closed:
            self._some.wait()
            self._hurry.wait(self._interval)
            self._some.clear()
            self._hurry.clear()
            self._drain()

    def _drain(self) -> None:
        with self._drained:
            lines = self._lines
            while lines:
                batch: list[bytes] = []
                with contextlib.suppress(IndexError):
                    while len(batch) < _BATCH:
                        batch.append(lines.popleft())
                try:
                    self._sink.write(b"".join(batch))
                    self._sink.flush()
                except (OSError, ValueError):
                    # The reader has gone (or closed the file): there is nobody left to tell.
                    self.dropped += len(batch)
