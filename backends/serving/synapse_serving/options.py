"""Command line flags that every server has."""

import argparse
import os
from dataclasses import dataclass

MEGABYTE = 1_000_000


@dataclass(frozen=True, slots=True)
class Options:
    """How a server listens and what it refuses.

    Attributes:
        host: Address to listen on.
        port: Port, 0 for any free one.
        concurrency: Requests computed at a time.
        queue: Requests that may wait for a slot; one more is answered 503 at once.
        max_wait: Seconds that a request may wait for a slot.
        max_request_bytes: Largest request body.
        grace: Seconds that requests in flight have to end after SIGTERM.
        threads: Threads that one computation uses.
    """

    host: str = "127.0.0.1"
    port: int = 0
    concurrency: int = 1
    queue: int = 8
    max_wait: float = 60.0
    max_request_bytes: int = 100 * MEGABYTE
    grace: float = 20.0
    threads: int = 1


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 (got {value})")
    return value


def add_options(parser: argparse.ArgumentParser, *, port: int, max_request_mb: int = 100) -> None:
    """Add the common flags to ``parser``; the arguments are the server's own defaults."""
    half = max(1, (os.cpu_count() or 1) // 2)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on")
    add("--port", type=int, default=port, help="port to listen on, 0 for any free one")
    add("--concurrency", type=_positive, default=1, help="requests computed at a time")
    add("--queue", type=int, default=8, help="requests that may wait; one more gets a 503")
    add("--max-wait", type=float, default=60.0, help="seconds that a request may wait")
    add(
        "--max-request-mb",
        type=_positive,
        default=max_request_mb,
        help="largest request body, 10^6 bytes",
    )
    add("--grace", type=float, default=20.0, help="seconds for requests in flight at SIGTERM")
    add("--threads", type=_positive, default=half, help="threads of one computation")


def read_options(parsed: argparse.Namespace) -> Options:
    """The common flags out of a parsed command line."""
    return Options(
        host=parsed.host,
        port=parsed.port,
        concurrency=parsed.concurrency,
        queue=parsed.queue,
        max_wait=parsed.max_wait,
        max_request_bytes=parsed.max_request_mb * MEGABYTE,
        grace=parsed.grace,
        threads=parsed.threads,
    )
