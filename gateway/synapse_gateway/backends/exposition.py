"""Reads a few figures out of a Prometheus text exposition.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format. Only the
samples that are asked for are looked at; anything that is not a sample of theirs is passed over, so
that no oddity of a backend's other metrics can fail a probe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of an exposition that are read; what comes after them is not looked at."""


def read_gauges(text: bytes, names: Collection[str]) -> dict[str, float]:
    """Return the value of each metric that is there, summed over its label sets.

    Args:
        text: The exposition, of any length and content.
        names: Metric names, without labels.

    Returns:
        Name to sum. A name without a finite sample is left out.
    """
    wanted = {name.encode(): name for name in names}
    found: dict[str, float] = {}
    for line in text[:MAX_BYTES].splitlines():
        name, _, value = _split(line)
        if name in wanted and value is not None:
            key = wanted[name]
            found[key] = found.get(key, 0.0) + value
    return found


def read_labelled(text: bytes, name: str, label: bytes) -> float | None:
    """Return the sum of the samples of one metric whose label set holds `label`.

    Args:
        text: The exposition.
        name: Metric name.
        label: A pair as it is written there, for example `b'state="awake"'`.

    Returns:
        The sum, or None if there is no such sample.
    """
    total: float | None = None
    for line in text[:MAX_BYTES].splitlines():
        found, labels, value = _split(line)
        if found == name.encode() and value is not None and label in labels:
            total = (total or 0.0) + value
    return total


def _split(line: bytes) -> tuple[bytes, bytes, float | None]:
    """Split a line into name, labels and value; the value is None where there is none to use."""
    if not line or line.startswith(b"#"):
        return b"", b"", None
    labels = b""
    head, brace, rest = line.partition(b"{")
    if brace:
        labels, closing, rest = rest.rpartition(b"}")
        if not closing:
            return b"", b"", None
        name = head.strip()
    else:
        name, _, rest = line.strip().partition(b" ")
    fields = rest.split()
    try:
        value = float(fields[0])
    except (IndexError, ValueError):
        return name, labels, None
    return name, labels, value if math.isfinite(value) else None
