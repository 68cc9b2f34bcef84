"""Go's notation of durations, in which Ollama takes `keep_alive`."""

from __future__ import annotations

import math
import re

_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "μs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"([+-]?)((?:{_PART.pattern})+)")


def parse_keep_alive(value: float | str) -> float:
    """Return a `keep_alive` in seconds; `math.inf` where it is negative, which means for ever.

    Numbers are seconds, strings Go durations such as "5m" or "1h30m" (api/types.go, `Duration`).

    Raises:
        ValueError: The string is no duration; the text is Ollama's own.
    """
    if isinstance(value, str):
        value = _parse(value)
    return math.inf if value < 0 else float(value)


def _parse(text: str) -> float:
    if text.lstrip("+-") == "0" and len(text) <= 2:
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f'time: invalid duration "{text}"')
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(match[2]))
    return -seconds if match[1] == "-" else seconds
