"""Compare the gateway with nginx on the same upstream, in one run.

    python -m loadtests.bench.run compare [--rounds 5] [--seconds 3] [--figures throughput,latency]
    python -m loadtests.bench.run soak [--requests 1000000]
    python -m loadtests.bench.run uploads [--count 200] [--megabytes 50] [--rate 20]

Needs Linux with two cores, Go, and nginx and wrk, which it installs with apt-get when it may.
Everything listens on loopback only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from loadtests.bench import report, soak, subjects, uploads
from loadtests.bench.measure import FIGURES, Plan, Run, measure_all
from loadtests.bench.processes import BenchError, Children
from loadtests.bench.wrk import cross_check

COMPARE_KEYS = 50


def main(argv: list[str] | None = None) -> int:
    """Run the command line; 0 unless something could not be measured."""
    options = _parser().parse_args(argv)
    run = {"compare": _compare, "soak": _soak, "uploads": _uploads}[options.command]
    try:
        if run is not _uploads:
            subjects.require_tools(say)
        with tempfile.TemporaryDirectory(prefix="synapse-bench-") as folder:
            return run(options, Path(folder))
    except BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 2
    except KeyboardInterrupt:
        return 130


def say(text: str) -> None:
    """Tell how far the run is, apart from its result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser("compare", help="direct, nginx and gateway beside each other")
    compare.add_argument("--rounds", type=int, default=5)
    compare.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    compare.add_argument("--connections", type=int, default=64)
    compare.add_argument(
        "--patience",
        type=float,
        default=3.0,
        metavar="SECONDS",
        help="wait so long before each measurement for other processes to leave the cores alone",
    )
    compare.add_argument(
        "--figures", default=",".join(FIGURES), help=f"which, by comma, of {', '.join(FIGURES)}"
    )
    compare.add_argument("--no-gateway", action="store_true", help="only the harness and nginx")
    compare.add_argument(
        "--wrk", action="store_true", help="also print requests/s as wrk sees them"
    )
    long = commands.add_parser("soak", help="a million mixed requests: memory and metric series")
    long.add_argument("--requests", type=int, default=1_000_000)
    large = commands.add_parser("uploads", help="many large recordings at once: room and memory")
    large.add_argument("--count", type=int, default=200, help="clients, each with one")
    large.add_argument("--megabytes", type=float, default=50.0, help="of each")
    large.add_argument("--rate", type=float, default=20.0, help="MB a second of all together")
    for command in (compare, long, large):
        command.add_argument(
            "--docs", type=Path, metavar="FILE", help="put the table into this Markdown file"
        )
        command.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    return parser


def _compare(options: argparse.Namespace, folder: Path) -> int:
    figures = options.figures.split(",")
    unknown = sorted(set(figures) - set(FIGURES))
    if unknown:
        raise BenchError(f"--figures: {', '.join(unknown)}: must be of {', '.join(FIGURES)}")
    if options.rounds < 1 or options.seconds <= 0 or not 1 <= options.connections <= 4096:
        raise BenchError(
            "--rounds, --seconds, --connections: must be at least 1, above 0, 1 to 4096"
        )
    plan = Plan(
        rounds=options.rounds,
        seconds=options.seconds,
        connections=options.connections,
        patience=options.patience,
    )
    began = time.monotonic()
    with Children(folder) as children:
        setup = subjects.start(children, say, keys=COMPARE_KEYS, gateway=not options.no_gateway)
        run = Run(setup=setup, plan=plan, say=say)
        measure_all(run, figures)
        if options.wrk:
            run.rows.append(cross_check(setup, plan))
    footer = (
        f"Medians of {plan.rounds} rounds of {plan.seconds:g} s, one proxy at a time, each with a "
        f"core alone; other processes took {run.busiest():.0%} of the busier core (median)."
    )
    if setup.gateway is not None:
        footer += f" The gateway ran on {setup.python}."
    sys.stdout.write(f"{report.table(run.rows)}\n\n{footer}\n")
    say(f"took {time.monotonic() - began:.0f} s")
    if options.docs:
        report.write_docs(options.docs, "compare", run.rows, footer)
    if options.json:
        report.write_json(options.json, run.rows, {"cells": run.cells, "others": run.busiest()})
    return 0


def _soak(options: argparse.Namespace, folder: Path) -> int:
    if options.requests < 1:
        raise BenchError("--requests: must be at least 1")
    with Children(folder) as children:
        setup = subjects.start(children, say, keys=soak.KEYS, gateway=True, models=soak.MODELS)
        points = soak.soak(setup, options.requests, say)
    rows = soak.rows(points)
    sys.stdout.write(report.table(rows) + "\n")
    if options.docs:
        footer = f"Answers by status: {points[-1]['statuses']}; {points[-1]['callers_left']} left. "
        footer += f"The gateway ran on {setup.python}."
        report.write_docs(options.docs, "soak", rows, footer)
    if options.json:
        report.write_json(options.json, rows, {"points": points})
    return 0


def _uploads(options: argparse.Namespace, folder: Path) -> int:
    if options.count < 1 or options.megabytes < 0.001 or options.rate <= 0:
        raise BenchError(
            "--count, --megabytes, --rate: must be at least 1, at least 0.001, above 0"
        )
    size = int(options.megabytes * 1e6)
    with Children(folder) as children:
        seen = uploads.measure(
            children, say, count=options.count, size=size, rate=options.rate * 1e6
        )
    rows = uploads.rows(seen, count=options.count, size=size)
    footer = (
        f"{options.count} uploads of {options.megabytes:g} MB at {options.rate:g} MB/s in all; "
        f"final answers by status (0: none): {dict(seen.statuses)}."
    )
    sys.stdout.write(f"{report.table(rows)}\n{footer}\n")
    if options.docs:
        report.write_docs(options.docs, "uploads", rows, footer)
    if options.json:
        report.write_json(options.json, rows, {})
    return 0


if __name__ == "__main__":
    sys.exit(main())
