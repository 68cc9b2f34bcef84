"""The measurements: each is made in rounds in which every proxy has its turn, never two at once."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from loadtests.bench.processes import Meter, await_quiet, get_json
from loadtests.bench.ratios import (
    Aim,
    Row,
    Sense,
    added_row,
    bound_row,
    close_latencies,
    percentile,
    rate_row,
    times_row,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from loadtests.bench.subjects import Proxy, Setup

STREAMS = 400
DELIVERED = 0.98
"""Share of the asked-for chunks that the harness must deliver to carry a rate."""
LATE = 2.0
"""Intervals that its inter-chunk p99 may reach: beyond that, chunks arrive in lumps."""
BUSY = 0.10
"""Share of a core that others may take before a measurement is made again."""
TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how often to measure.

    Attributes:
        rounds: Turns of each proxy.
        seconds: Length of one measurement.
        connections: At once, where the proxies are driven to their limit.
        leavers: Callers that leave, each round.
        patience: Seconds to wait before each measurement for others to leave the cores alone.
    """

    rounds: int = 5
    seconds: float = 3.0
    connections: int = 64
    leavers: int = 200
    patience: float = 3.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement of one target.

    Attributes:
        mode: Of the client.
        flags: Of the client.
        streams: Whether the target is asked on its port for streams.
        interval_us: Between the chunks of the upstream's streams.
        finish: Completes the result while the upstream still knows what it saw.
    """

    mode: str
    flags: Mapping[str, float]
    streams: bool = False
    interval_us: int = 10_000
    finish: Callable[[dict[str, Any]], None] | None = None

    def port(self, proxy: Proxy) -> int:
        """Return the target's port for this job."""
        return proxy.stream_port if self.streams else proxy.port


@dataclass
class Run:
    """A run under way: what is set up, what was measured, what it came to."""

    setup: Setup
    plan: Plan
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list)
    cells: list[dict[str, Any]] = field(default_factory=list)
    tries: int = TRIES

    def cell(self, figure: str, proxy: Proxy, job: Job) -> dict[str, Any]:
        """Measure once; again, and keep the quietest, where others took too much of a core.

        On a machine that is never quiet the tries become fewer, so that a run still ends.
        """
        best: dict[str, Any] = {}
        for _ in range(self.tries):
            await_quiet(self.plan.patience, BUSY)
            self.setup.control(interval_us=job.interval_us, fail_every=0)
            with Meter(self.setup.upstream_pid, proxy.pids) as meter:
                result = self.setup.client(job.mode, job.port(proxy), **job.flags)
            cell = {
                "figure": figure,
                "target": proxy.name,
                "foreign": meter.foreign,
                "worst": meter.worst,
                "wall": meter.wall,
                "proxy_cpu": meter.proxy_cpu,
                "harness_cpu": meter.harness_cpu,
                **result,
            }
            if job.finish is not None:
                job.finish(cell)
            if not best or cell["worst"] < best["worst"]:
                best = cell
            if best["worst"] <= BUSY:
                break
        self.tries = min(max(self.tries + (1 if best["worst"] <= BUSY else -1), 1), TRIES)
        self.cells.append(best)
        return best

    def rounds(
        self, figure: str, job: Job, *, direct: bool = True
    ) -> dict[str, list[dict[str, Any]]]:
        """Let every proxy have its turn in each round, each round beginning with another one."""
        proxies = self.setup.proxies if direct else self.setup.proxies[1:]
        found: dict[str, list[dict[str, Any]]] = {proxy.name: [] for proxy in proxies}
        for number in range(self.plan.rounds):
            shift = number % len(proxies)
            for proxy in proxies[shift:] + proxies[:shift]:
                found[proxy.name].append(self.cell(figure, proxy, job))
            self.say(f"{figure}: round {number + 1} of {self.plan.rounds}")
        return found

    def busiest(self) -> float:
        """Return the median share of a core that others took, over everything measured."""
        return median(cell["worst"] for cell in self.cells) if self.cells else math.nan


def pick(found: dict[str, list[dict[str, Any]]], *path: str) -> dict[str, list[float]]:
    """Return one figure of every measurement, by target."""
    out: dict[str, list[float]] = {}
    for target, cells in found.items():
        out[target] = []
        for cell in cells:
            value: Any = cell
            for name in path:
                value = value[name]
            out[target].append(float(value))
    return with_gateway(out)


def with_gateway(values: dict[str, list[float]]) -> dict[str, list[float]]:
    """Let a run without the gateway print its table: what was not measured is not a number."""
    return {"gateway": [math.nan], **values}


def throughput(run: Run) -> None:
    """Requests a second with many connections, the proxy being the limit."""
    plan = run.plan
    job = Job(mode="closed", flags={"connections": plan.connections, "seconds": plan.seconds})
    found = run.rounds("requests/s", job)
    run.rows += [
        rate_row(
            f"requests/s, {plan.connections} connections",
            "1/s",
            pick(found, "per_second"),
            Aim(sense=Sense.AT_LEAST, bound=0.25),
            saturates=True,
        ),
        times_row("  CPU of the proxy a request", "us", _cpu_each(found, "requests")),
    ]


def _cpu_each(found: dict[str, list[dict[str, Any]]], of: str) -> dict[str, list[float]]:
    """Return the proxy's CPU microseconds for each request or chunk, warm-up included in neither.

    A measurement's CPU time covers its warm-up as well, so it is scaled to the measured seconds.
    """
    return with_gateway(
        {
            target: [
                1e6 * cell["proxy_cpu"] * (cell["seconds"] / cell["wall"]) / max(cell[of], 1)
                for cell in cells
            ]
            for target, cells in found.items()
            if target != "direct"
        }
    )


def added_latency(run: Run) -> None:
    """Median time of a request when there is one at a time."""
    job = Job(mode="closed", flags={"connections": 1, "seconds": run.plan.seconds / 2})
    found = run.rounds("latency", job)
    run.rows.append(
        added_row(
            "p50 added, concurrency 1",
            "us",
            pick(found, "latency_us", "p50"),
            Aim(sense=Sense.AT_MOST, bound=3),
        )
    )


def paced(run: Run) -> None:
    """Latency at half the gateway's rate, with arrivals that do not wait for answers."""
    measured = [row.gateway for row in run.rows if row.name.startswith("requests/s")]
    limit = measured[0] if measured and measured[0] and not math.isnan(measured[0]) else 4000
    rate = max(round(limit / 2, -2), 100)
    flags = {"connections": 256, "seconds": run.plan.seconds, "rate": rate}
    found = run.rounds("paced requests", Job(mode="open", flags=flags))
    for name in ("p50", "p99"):
        times = pick(found, "latency_us", name)
        run.rows.append(times_row(f"{name} at {rate:,.0f} arrivals/s", "us", times))


def _stream_job(interval_us: int, seconds: float) -> Job:
    """Return the job of 400 streams, each of which begins anew after about two seconds."""
    flags = {
        "streams": STREAMS,
        "seconds": seconds,
        "interval_us": interval_us,
        "chunks": round(2e6 / interval_us),
    }
    return Job(mode="streams", flags=flags, streams=True, interval_us=interval_us)


def carried_alone(run: Run) -> float:
    """Return the chunks a second that the harness carries alone, found in steps of a quarter."""
    rate, carried, failed = 20_000.0, 0.0, 0
    while rate < 400_000 and failed < TRIES:
        interval = round(STREAMS * 1e6 / rate)
        job = _stream_job(interval, min(run.plan.seconds, 2))
        cell = run.cell("carried alone", run.setup.direct, job)
        got, gap = cell["chunks_per_second"], cell["gap_us"]["p99"]
        run.say(f"harness alone: asked {rate:,.0f} chunks/s, got {got:,.0f}, gap p99 {gap:,.0f} us")
        if got < DELIVERED * cell["asked_per_second"] or gap > LATE * interval:
            failed += 1
        else:
            carried, rate, failed = cell["asked_per_second"], rate * 1.25, 0
    return carried


def streaming(run: Run) -> None:
    """400 streams at half the rate that the harness carries alone."""
    carried = carried_alone(run)
    interval = round(STREAMS * 1e6 / max(carried / 2, 1000))
    found = run.rounds("streams", _stream_job(interval, run.plan.seconds))
    rates = rate_row(
        f"chunks/s, {STREAMS} streams",
        "1/s",
        pick(found, "chunks_per_second"),
        Aim(sense=Sense.AT_LEAST, bound=0.95),
        saturates=False,
    )
    asked = (
        f"asked {STREAMS * 1e6 / interval:,.0f}/s: half of the {carried:,.0f} the harness carries"
    )
    wrong = {
        name: sum(c["streams_incomplete"] + c["streams_with_wrong_count"] for c in cells)
        for name, cells in found.items()
    }
    ended = "streams that ended wrongly: " + ", ".join(f"{n} {k}" for n, k in wrong.items())
    p99 = _thousandth(pick(found, "gap_us", "p99"))
    run.rows += [
        replace(rates, note=asked),
        times_row("  inter-chunk p99", "ms", p99, Aim(sense=Sense.AT_MOST, bound=2)),
        times_row("  inter-chunk p50", "ms", _thousandth(pick(found, "gap_us", "p50"))),
        times_row("  delay of a chunk, p50", "ms", _thousandth(pick(found, "delay_us", "p50"))),
        replace(
            times_row("  CPU of the proxy a chunk", "us", _cpu_each(found, "chunks")), note=ended
        ),
    ]


def _thousandth(values: dict[str, list[float]]) -> dict[str, list[float]]:
    return {name: [value / 1e3 for value in listed] for name, listed in values.items()}


def leaving(run: Run) -> None:
    """Time from a caller's leaving, mid-stream, to the upstream's seeing its connection close."""

    def finish(cell: dict[str, Any]) -> None:
        left = {entry["user"]: entry["at_ns"] for entry in cell.pop("left")}
        cell["close_ms"], cell["never_closed"] = close_latencies(left, _closes(run, len(left)))

    flags = {"connections": 8, "requests": run.plan.leavers, "chunks": 500}
    job = Job(mode="leave", flags=flags, streams=True, interval_us=20_000, finish=finish)
    found = run.rounds("callers that leave", job, direct=False)
    delays = {
        name: [d for cell in cells for d in cell["close_ms"]] for name, cells in found.items()
    }
    for percent in (50, 99):
        values = with_gateway({name: [percentile(d, percent)] for name, d in delays.items()})
        aim = Aim(sense=Sense.UNDER, bound=100)
        run.rows.append(
            bound_row(f"caller leaves to upstream closed, p{percent}", "ms", values, aim)
        )
    unseen = {name: sum(cell["never_closed"] for cell in cells) for name, cells in found.items()}
    run.rows[-1] = replace(
        run.rows[-1],
        note="never closed: "
        + ", ".join(f"{k} of {len(delays[n]) + k} by {n}" for n, k in unseen.items()),
    )


def _closes(run: Run, expected: int) -> dict[str, int]:
    """Return when the upstream saw connections close, asked again until it saw them all, or 2 s."""
    found: dict[str, int] = {}
    for _ in range(20):
        found = {e["user"]: e["at_ns"] for e in get_json(run.setup.upstream_port, "/bench/closes")}
        if len(found) >= expected:
            break
        time.sleep(0.1)
    return found


FIGURES: dict[str, Callable[[Run], None]] = {
    "throughput": throughput,
    "latency": added_latency,
    "paced": paced,
    "streams": streaming,
    "leaving": leaving,
}


def measure_all(run: Run, figures: Sequence[str]) -> None:
    """Make the measurements that were asked for, in the order of the report."""
    for name, measure in FIGURES.items():
        if name in figures:
            measure(run)
