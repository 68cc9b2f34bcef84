"""A gateway over sockets in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import threading
import zlib
from contextlib import AsyncExitStack, contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Breaker,
    Limits,
    Model,
    Queue,
    RetryBudget,
    Settings,
    Target,
    Timeouts,
)
from synapse_gateway.testing import FaultyUpstream, scripts
from synapse_gateway.testing.scripts import Close, Reset, Stall

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Script

SERVERS = (
    BackendType.FASTER_WHISPER,
    BackendType.SPEACHES,
    BackendType.OPENVOICE,
    BackendType.PIPER,
    BackendType.PYANNOTE,
    BackendType.DEEPFILTER,
)
"""Kinds of servers with audio behind the gateway."""
NAMES = ("m", "org/model:1b", "größe")
"""Models that the gateway serves."""

FAULTS = (
    scripts.answer(),
    *(scripts.status(code) for code in (401, 403, 404, 500, 501, 502, 503, 504, 529)),
    # silent for no time: a longer one would keep the faults from every request in it
    scripts.throttled(0),
    scripts.reset(),
    scripts.close(),
    scripts.stall(),
    scripts.head_only(),
    scripts.head_only(then=Close()),
    scripts.role_only(then=Reset()),
    scripts.error_first(),
    scripts.empty(),
    scripts.broken(then=Close()),
    scripts.broken(then=Stall()),
    scripts.malformed_event(),
    scripts.error_event(),
    scripts.without_done(),
    scripts.huge_headers(),
    scripts.length_and_chunked(),
    scripts.bad_chunk_size(),
    scripts.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", then=Close()),
)


@contextmanager
def serving(*, faulty: bool) -> Iterator[str]:
    """Serve in front of two upstreams; the URL.

    Args:
        faulty: Whether every request meets one of `FAULTS`.
    """
    stopped = threading.Event()
    started: list[str] = []
    ready = threading.Event()

    async def run() -> None:
        async with AsyncExitStack() as stack:
            upstreams = [await stack.enter_async_context(FaultyUpstream()) for _ in range(2)]
            for upstream in upstreams:
                upstream.probes["/v1/models"] = scripts.models(*NAMES)
                for path in ("/metrics", "/languages", "/api/ps"):
                    upstream.probes[path] = scripts.probe()
                if faulty:
                    upstream.when(_fault_of)
            urls = [upstream.url for upstream in upstreams]
            voices = stack.enter_context(TemporaryDirectory())
            gateway = await stack.enter_async_context(
                app.running(
                    _settings(urls, faulty=faulty),
                    environ={"SYNAPSE_VOICE_LIBRARY_DIR": voices},
                )
            )
            started.append(gateway.url)
            ready.set()
            while not stopped.is_set():
                for upstream in upstreams:
                    upstream.requests.clear()
                await asyncio.sleep(0.05)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(30), "the gateway does not start"
        yield started[0]
    finally:
        stopped.set()
        thread.join()


def _fault_of(request: Request) -> Script:
    """Choose by what is sent, so that the same request meets the same fault again."""
    return FAULTS[zlib.crc32(request.body) % len(FAULTS)]


def _settings(urls: list[str], *, faulty: bool) -> Settings:
    short = Timeouts(connect=0.3, first_token=0.2, first_byte=0.2, between_tokens=0.2, overall=3.0)
    targets = tuple(Target(backend=f"b{order}", order=order) for order in (1, 2))
    timeouts = short if faulty else Timeouts()
    backends = {
        f"b{order}": Backend(url=url, probe_interval=3600.0)
        for order, url in enumerate(urls, start=1)
    }
    for kind in SERVERS:
        for order, url in enumerate(urls, start=1):
            backends[f"{kind.value}{order}"] = Backend(
                url=url, type=kind, probe_interval=3600.0, timeouts=timeouts
            )
    return Settings(
        auth=AuthMode.ANONYMOUS,
        backends=backends,
        models={name: Model(targets=targets, timeouts=timeouts, attempts=2) for name in NAMES},
        limits=Limits(
            # breakers that open would hide most faults from most requests
            breaker=Breaker(failures=10**9 if faulty else 5, cool_down=0.1),
            retry_budget=RetryBudget(minimum_per_second=1000),
            queue=Queue(deadline=0.5),
            max_body_bytes=1 << 20,
        ),
    )


@pytest.fixture(scope="session")
def healthy() -> Iterator[str]:
    with serving(faulty=False) as url:
        yield url


@pytest.fixture(scope="session")
def faulty() -> Iterator[str]:
    with serving(faulty=True) as url:
        yield url
