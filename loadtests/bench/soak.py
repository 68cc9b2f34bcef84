"""A million mixed requests: what the gateway's memory and its metrics grow to."""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from loadtests.bench.processes import BenchError, get, rss_bytes
from loadtests.bench.ratios import Aim, Row, Sense, Verdict, growth

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from loadtests.bench.subjects import Proxy, Setup

STEP = 100_000
"""Requests between two looks at the gateway."""
KEYS = 1000
MODELS = 100
UNKNOWN_MODELS = 100
LEAVING = 0.05
FAIL_EVERY = 20
GROWTH_BYTES = 5_000_000
QUIET_SECONDS = 3.0
"""Pause before each look: what is under way ends, and nothing is in flight."""


def soak(setup: Setup, total: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Send the requests in steps and look at the gateway after each; return what was seen."""
    gateway = setup.gateway
    if gateway is None:
        raise BenchError("the soak measures the gateway, and it was left out (--no-gateway)")
    setup.control(interval_us=2_000, fail_every=FAIL_EVERY)
    statuses: Counter[str] = Counter()
    points: list[dict[str, Any]] = []
    done = left = bad_ends = 0
    for _ in range(-(-total // STEP)):
        result = setup.client(
            "soak",
            gateway.port,
            requests=min(STEP, total - done),
            first=done,
            keys=KEYS,
            models=MODELS,
            unknown=UNKNOWN_MODELS,
            leave=LEAVING,
            chunks=8,
            connections=64,
        )
        done += result["requests"]
        left += result["callers_left"]
        bad_ends += result["streams_incomplete"] + result["resets"] + result["malformed"]
        statuses.update(result["statuses"])
        time.sleep(QUIET_SECONDS)
        counted = series(gateway)
        points.append(
            {
                "requests": done,
                # behind a scrape, whose own memory is there from the first one on
                "rss_bytes": rss_bytes(gateway.pids),
                "series": counted,
                "callers_left": left,
                "wrong_ends": bad_ends,
                "per_second": result["per_second"],
                "statuses": dict(statuses),
            }
        )
        point = points[-1]
        say(
            f"{done:>9,} requests  {result['per_second']:>7,.0f}/s"
            f"  RSS {point['rss_bytes'] / 1e6:.1f} MB  {point['series']} series"
            f"  statuses {dict(statuses)}  {left} left"
        )
        os.truncate(setup.children.folder / "gateway.log", 0)
    return points


def series(gateway: Proxy) -> int:
    """Return the number of series on /metrics."""
    status, body = get(gateway.port, "/metrics", {"authorization": "Bearer sk-bench-0000"})
    if status != 200:
        raise BenchError(f"the gateway's /metrics answered {status}")
    return sum(1 for line in body.splitlines() if line and not line.startswith(b"#"))


def rows(points: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the report of a soak."""
    first, last = points[0], points[-1]
    grown = growth(points, "rss_bytes", STEP)
    aim = Aim(sense=Sense.UNDER, bound=GROWTH_BYTES / 1e6)
    span = f"{first['requests']:,} to {last['requests']:,} requests"
    return [
        *(
            Row(name=f"RSS at {p['requests']:,} requests", unit="MB", gateway=p["rss_bytes"] / 1e6)
            for p in (first, last)
        ),
        Row(
            name="growth of RSS",
            unit="MB",
            gateway=grown / 1e6,
            aim=aim,
            note=span,
            verdict=Verdict.MET if aim.holds(grown / 1e6) else Verdict.MISSED,
        ),
        Row(name=f"series at {first['requests']:,} requests", unit="", gateway=first["series"]),
        Row(name=f"series at {last['requests']:,} requests", unit="", gateway=last["series"]),
    ]
