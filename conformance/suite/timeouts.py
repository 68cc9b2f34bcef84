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
EXEC = 60.0
"""A command in a pod."""
POD_READY = 120.0
"""A pod whose image is there already."""
RECOVERY = 180.0
"""A backend is ready again, its breaker has cooled down, and requests go to it."""
FAULT_MET = 240.0
"""The gateway has met a fault: its own deadlines have to pass first."""
CONFIG_TAKEN = 120.0
"""A changed ConfigMap has reached the pods: kubelets look once a minute."""
NODE_NOTICED = 120.0
"""A node that is gone is found not ready, and its pods are replaced."""
POD_GONE = 360.0
"""A pod has ended, its drain included."""
DRAINED = 20.0
"""A pod that was told to end has answered what it had begun, if no more came."""
TRAFFIC_ENDS = 180.0
"""Requests that were begun have ended, or were given up."""
POLICY = 30.0
"""A network policy is in force, or no more."""
SCRAPED = 90.0
"""Prometheus has scraped, and evaluated its rules."""
ALERT = 420.0
"""An alert that looks at five minutes fires, or resolves."""
AUTOSCALED = 420.0
"""The autoscaler has acted; in most clusters it waits five minutes before it shrinks anything."""
EXTENDED = 60.0
"""A node says that it has a resource which it was given."""
PHASE = 900.0
"""A rollout has come to its next phase: images are there, weights have to be loaded."""
PROBED = 15.0
"""The gateway has asked every backend again."""
NAMESPACE_GONE = 120.0
"""Everything in a namespace is deleted."""


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
