"""What the user sees: one line a step, with the seconds since the start."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

HEARTBEAT_SECONDS = 20.0
BEGUN = time.monotonic()


def say(text: str) -> None:
    """Write a line."""
    sys.stderr.write(f"{time.monotonic() - BEGUN:5.0f} s  {text}\n")
    sys.stderr.flush()


class Step:
    """A step that takes a while: says that it goes on, and how long it took.

    Args:
        name: What is being done.
        detail: Asked for a few words on how far it is, each time a line is written.
    """

    def __init__(self, name: str, detail: Callable[[], str] = str) -> None:
        self.name = name
        self.detail = detail
        self.begun = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        say(self.name)
        self.begun = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()
        if kind is None:
            say(f"{self.name}: {time.monotonic() - self.begun:.0f} s")

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            say(f"  {self.name}: {time.monotonic() - self.begun:.0f} s so far{self._words()}")

    def _words(self) -> str:
        words = self.detail()
        return f", {words}" if words else ""
