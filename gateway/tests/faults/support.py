"""A real gateway over sockets, with a first and a second target that do as they are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synapse_gateway import app
from synapse_gateway.config.settings import (
    AuthMode,
    Backend,
    BackendType,
    Breaker,
    Limits,
    Model,
    RetryBudget,
    Route,
    Settings,
    Target,
    Timeouts,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.testing.wire import Answer, Metrics

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
LONG = Timeouts(connect=60.0, first_token=60.0, first_byte=60.0, between_tokens=60.0, overall=60.0)
"""So long that a busy machine reaches none of them."""
SHORT = Timeouts(connect=0.5, first_token=0.5, first_byte=0.5, between_tokens=0.5)
"""For a target that falls silent before its first word; what follows is asserted, never when."""
SHORT_BETWEEN = Timeouts(connect=60.0, first_token=60.0, first_byte=60.0, between_tokens=0.5)
"""For a target that falls silent after it."""


@dataclass
class Pair:
    """The gateway and what is behind it; the model `m` has `first` in order 1, `second` in 2."""

    url: str
    first: FaultyUpstream
    second: FaultyUpstream

    async def ask(self, *, stream: bool, path: str = CHAT, **body: Any) -> Answer:
        """Send a request and read the answer to its end."""
        return await wire.post(self.url, path, self.body(stream=stream, **body))

    def body(self, *, stream: bool, **more: Any) -> dict[str, Any]:
        """Return the request that `ask` sends."""
        return {"model": "m", "messages": MESSAGES, "stream": stream, **more}

    async def metrics(self) -> Metrics:
        """Read the gateway's metrics."""
        return await wire.metrics(self.url)

    async def until(self, name: str, value: float, **labels: str) -> None:
        """Wait until one of the gateway's metrics has a value."""
        while (await self.metrics()).value(name, **labels) != value:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    @property
    def seen(self) -> tuple[int, int]:
        """How many requests each target has seen."""
        return len(self.first.requests), len(self.second.requests)


def settings(
    first: str,
    second: str,
    patience: Timeouts = LONG,
    second_patience: Timeouts = LONG,
    **more: Any,
) -> Settings:
    """Return a configuration.

    Args:
        first: Address of the first target.
        second: Of the second.
        patience: Deadlines of the first target.
        second_patience: Of the second.
        more: Fields of the model `m`, of the breaker and the limits; `kind` of both targets;
            `path`, which the model serves where a request names none.
    """
    model: dict[str, Any] = {
        "targets": (Target(backend="first", order=1), Target(backend="second", order=2)),
        "attempts": 2,
    }
    failures = more.pop("failures", 50)
    hold_bytes = more.pop("hold_bytes", 1 << 20)
    cool_down = more.pop("cool_down", 3600.0)
    budget = more.pop("retry_budget", RetryBudget())
    kind = more.pop("kind", BackendType.OPENAI_COMPATIBLE)
    path = more.pop("path", "")
    # nothing is probed but once at the start: what requests met is what shall count
    backends = {
        name: Backend(url=url, type=kind, probe_interval=3600.0, timeouts=timeouts)
        for name, url, timeouts in (
            ("first", first, patience),
            ("second", second, second_patience),
        )
    }
    larger = Model(targets=(Target(backend="second", model="larger"),))
    return Settings(
        auth=AuthMode.ANONYMOUS,
        backends=backends,
        models={"m": Model(**{**model, **more}), "larger": larger},
        routes={path: Route(model="m")} if path else {},
        limits=Limits(
            breaker=Breaker(failures=failures, cool_down=cool_down),
            hold_bytes=hold_bytes,
            retry_budget=budget,
        ),
    )


@asynccontextmanager
async def pair(*, first_url: str = "", **more: Any) -> AsyncIterator[Pair]:
    """Run the gateway with two targets.

    Args:
        first_url: Address of the first target, in place of a `FaultyUpstream`'s.
        more: See `settings`.
    """
    async with asyncio.timeout(60), AsyncExitStack() as stack:  # a hang is a failure
        first = await stack.enter_async_context(FaultyUpstream())
        second = await stack.enter_async_context(FaultyUpstream())
        for upstream in (first, second):
            upstream.probes["/v1/models"] = scripts.models("m", "larger")
            upstream.probes |= dict.fromkeys(("/languages", "/metrics"), scripts.probe())
        configured = settings(first_url or first.url, second.url, **more)
        gateway = await stack.enter_async_context(app.running(configured))
        yield Pair(gateway.url, first, second)
