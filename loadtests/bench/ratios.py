"""What the measured figures mean: medians, ratios, and whether a ratio counts and meets its aim."""

from __future__ import annotations

import enum
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

HARNESS_SHARE = 0.8
"""A rate counts only if nginx stays under this share of what the harness does with no proxy."""


class Verdict(enum.StrEnum):
    """How a figure stands against its aim."""

    MET = "met"
    MISSED = "missed"
    DOES_NOT_COUNT = "does not count"
    NO_AIM = "-"


class Sense(enum.StrEnum):
    """Which side of its aim a figure should be on."""

    AT_LEAST = ">="
    AT_MOST = "<="
    UNDER = "<"


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A bound and its side."""

    sense: Sense
    bound: float

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}"

    def holds(self, value: float) -> bool:
        """Say whether a figure meets the bound; one that could not be measured does not."""
        if math.isnan(value):
            return False
        if self.sense is Sense.AT_LEAST:
            return value >= self.bound
        if self.sense is Sense.AT_MOST:
            return value <= self.bound
        return value < self.bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the report; figures that do not apply are None."""

    name: str
    unit: str
    direct: float | None = None
    nginx: float | None = None
    gateway: float | None = None
    ratio: float | None = None
    aim: Aim | None = None
    verdict: Verdict = Verdict.NO_AIM
    note: str = ""

    def as_plain(self) -> dict[str, Any]:
        """Return the row as plain values; a ratio that is not a number becomes None."""
        plain = asdict(self)
        plain["aim"] = None if self.aim is None else str(self.aim)
        plain["verdict"] = str(self.verdict)
        if self.ratio is not None and math.isnan(self.ratio):
            plain["ratio"] = None
        return plain


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile; NaN of nothing."""
    if not values:
        return math.nan
    rank = max(math.ceil(len(values) * percent / 100), 1)
    return sorted(values)[rank - 1]


def divide(over: float, under: float) -> float:
    """Return a ratio; NaN where there is nothing to divide by."""
    return over / under if under > 0 else math.nan


def _judge(value: float, aim: Aim, *, measured: float = 0.0) -> Verdict:
    """Return the verdict; there is none where the gateway was not measured."""
    if math.isnan(measured):
        return Verdict.NO_AIM
    return Verdict.MET if aim.holds(value) else Verdict.MISSED


def rate_row(
    name: str, unit: str, rates: Mapping[str, Sequence[float]], aim: Aim, *, saturates: bool
) -> Row:
    """Compare rates: gateway over nginx.

    Args:
        name: What is measured.
        unit: Of the rates.
        rates: One rate a round for each of direct, nginx, gateway.
        aim: What the ratio should be.
        saturates: Whether the proxies are driven to their limit, so that the ratio means something
            only while the harness could have done more than nginx did.
    """
    middle = {target: median(values) for target, values in rates.items()}
    ratio = divide(middle["gateway"], middle["nginx"])
    verdict, note = _judge(ratio, aim, measured=middle["gateway"]), ""
    if saturates:
        share = divide(middle["nginx"], middle["direct"])
        note = f"counts only if nginx stays under {HARNESS_SHARE} of direct: it is at {share:.2f}"
        if not share < HARNESS_SHARE:
            verdict = Verdict.DOES_NOT_COUNT
    return Row(
        name=name,
        unit=unit,
        ratio=ratio,
        aim=aim,
        verdict=verdict,
        note=note,
        direct=middle["direct"],
        nginx=middle["nginx"],
        gateway=middle["gateway"],
    )


def added_row(name: str, unit: str, times: Mapping[str, Sequence[float]], aim: Aim) -> Row:
    """Compare what each proxy adds to the direct time: (gateway - direct) / (nginx - direct)."""
    middle = {target: median(values) for target, values in times.items()}
    by_gateway = middle["gateway"] - middle["direct"]
    by_nginx = middle["nginx"] - middle["direct"]
    ratio = divide(by_gateway, by_nginx)
    note = f"added: nginx {by_nginx:.1f}, gateway {by_gateway:.1f}"
    verdict = _judge(ratio, aim, measured=middle["gateway"])
    if by_nginx <= 0:
        verdict, note = Verdict.DOES_NOT_COUNT, "nginx was no slower than no proxy: too much noise"
    return Row(
        name=name,
        unit=unit,
        ratio=ratio,
        aim=aim,
        verdict=verdict,
        note=note,
        direct=middle["direct"],
        nginx=middle["nginx"],
        gateway=middle["gateway"],
    )


def times_row(
    name: str, unit: str, times: Mapping[str, Sequence[float]], aim: Aim | None = None
) -> Row:
    """Compare times: gateway over nginx."""
    middle = {target: median(values) for target, values in times.items()}
    ratio = divide(middle["gateway"], middle["nginx"])
    return Row(
        name=name,
        unit=unit,
        ratio=ratio,
        aim=aim,
        direct=middle.get("direct"),
        nginx=middle["nginx"],
        gateway=middle["gateway"],
        verdict=Verdict.NO_AIM if aim is None else _judge(ratio, aim, measured=middle["gateway"]),
    )


def bound_row(
    name: str, unit: str, times: Mapping[str, Sequence[float]], aim: Aim | None = None
) -> Row:
    """Hold the gateway's own figure against its aim; nginx's stands beside it."""
    gateway = median(times["gateway"])
    return Row(
        name=name,
        unit=unit,
        nginx=median(times["nginx"]),
        gateway=gateway,
        aim=aim,
        verdict=Verdict.NO_AIM if aim is None else _judge(gateway, aim, measured=gateway),
    )


def close_latencies(left: Mapping[str, int], closed: Mapping[str, int]) -> tuple[list[float], int]:
    """Join when callers left with when the upstream saw its connection close.

    Args:
        left: Wall-clock nanoseconds by the request's name.
        closed: The same at the upstream.

    Returns:
        The delays in milliseconds, and how many callers' leaving the upstream never saw.
    """
    delays = [(closed[name] - at) / 1e6 for name, at in left.items() if name in closed]
    return delays, len(left) - len(delays)


def growth(points: Sequence[Mapping[str, float]], figure: str, since: float) -> float:
    """Return how much a figure grew from the first point at `since` requests to the last."""
    start = next((p for p in points if p["requests"] >= since), None)
    if start is None or not points:
        return math.nan
    return points[-1][figure] - start[figure]
