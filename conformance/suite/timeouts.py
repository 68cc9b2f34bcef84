"""How long the suite waits, in seconds, in one place.

None of them is a promise of the deployment: a wait that is over is a failure of what was waited
for, and what is promised about time is measured in the section Speed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

REQUEST = 300.0
"""One request: a CPU may have to load a model first."""


def eventually(what: str, look: Callable[[], T | None], seconds: float, every: float = 0.5) -> T:
    """Look again and again until there is something to see; the suite's one way to wait.

    Args:
        what: What is waited for, for the error.
        look: Returns None (or False) while there is nothing.
        seconds: When to give up.
        every: Seconds between two looks.

    Raises:
        AssertionError: There was nothing in time.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what}: not so after {seconds:g} s")
        time.sleep(every)
