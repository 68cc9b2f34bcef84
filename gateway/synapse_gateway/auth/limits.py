"""What each caller may use: requests and tokens a minute, and requests at once.

The checks come in the order concurrency, requests, tokens. Tokens are known only when a request has
ended, so they are charged then, and a caller over its budget is refused until the window has slid
far enough. A refused request is not counted. All callers without a key share one allowance.

Memory is bounded by the number of keys: each has one entry, and `retain` drops those of keys that
a reload has removed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from synapse_gateway.auth.windows import Window
from synapse_gateway.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from synapse_gateway.auth.keys import Caller

REQUESTS = "requests_per_minute"
TOKENS = "tokens_per_minute"
CONCURRENCY = "concurrency"


class Limiter(Protocol):
    """Keeps callers within their limits.

    `admit` (or `admit_shared`, where `shared` is true) before a request is sent anywhere; if it
    returns, `release` exactly once when the request has ended, and `charge` with what it used.
    """

    @property
    def shared(self) -> bool:
        """Whether `admit_shared` must be awaited in place of `admit`."""
        ...

    def admit(self, caller: Caller) -> None:
        """Count a request, or raise RateLimited; by what this process knows."""
        ...

    async def admit_shared(self, caller: Caller) -> None:
        """Count a request, or raise RateLimited; by what all replicas know."""
        ...

    def charge(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of an ended request; never raises."""
        ...

    def release(self, caller: Caller) -> None:
        """Count a request as ended; never raises."""
        ...

    def retain(self, names: Container[str]) -> None:
        """Forget all callers but these."""
        ...


class _Usage:
    """What one caller has used."""

    __slots__ = ("in_flight", "requests", "tokens")

    def __init__(self) -> None:
        self.in_flight = 0
        self.requests = Window()
        self.tokens = Window()


class LocalLimiter:
    """Limits by what this process has seen: of several replicas, each grants them anew."""

    shared = False

    def __init__(
        self,
        on_refused: Callable[[str, str], None] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Build one.

        Args:
            on_refused: Called with the caller's name and the limit that refused it.
            clock: Nanoseconds.
        """
        self._usage: dict[str, _Usage] = {}
        self._on_refused = on_refused
        self._clock = clock

    def admit(self, caller: Caller) -> None:
        """Count a request, or raise RateLimited."""
        if caller.limited:
            self._count(self._check(caller), caller)

    async def admit_shared(self, caller: Caller) -> None:
        """Do the same as `admit`: there is nobody to share with."""
        self.admit(caller)

    def charge(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of an ended request."""
        if caller.tokens_per_minute is not None and tokens > 0:
            usage = self._of(caller.name)
            usage.tokens.advance(self._clock())
            usage.tokens.add(tokens)

    def release(self, caller: Caller) -> None:
        """Count a request as ended."""
        if caller.concurrency is not None:
            usage = self._usage.get(caller.name)
            # None, or none in flight: the limits came, or the key went, while it was in flight.
            if usage is not None and usage.in_flight > 0:
                usage.in_flight -= 1

    def retain(self, names: Container[str]) -> None:
        """Forget all callers but these."""
        for name in [name for name in self._usage if name not in names]:
            del self._usage[name]

    def check(self, caller: Caller) -> None:
        """Raise RateLimited if a request would be refused now; count nothing."""
        self._check(caller)

    def count(self, caller: Caller) -> None:
        """Count a request that was admitted elsewhere."""
        usage = self._of(caller.name)
        usage.requests.advance(self._clock())
        self._count(usage, caller)

    def in_flight(self, name: str) -> int:
        """Return how many of a caller's requests are in flight here."""
        usage = self._usage.get(name)
        return 0 if usage is None else usage.in_flight

    def refuse(self, caller: Caller, limit: str, wait: float) -> RateLimited:
        """Return the refusal by a limit, and tell the listener of it.

        Args:
            caller: Who is refused.
            limit: `requests_per_minute`, `tokens_per_minute` or `concurrency`.
            wait: Seconds after which a repetition may succeed.
        """
        if self._on_refused is not None:
            self._on_refused(caller.name, limit)
        return refusal(caller, limit, wait)

    def _check(self, caller: Caller) -> _Usage:
        usage = self._of(caller.name)
        most = caller.concurrency
        if most is not None and usage.in_flight >= most:
            raise self.refuse(caller, CONCURRENCY, 1)
        now = self._clock()
        most = caller.requests_per_minute
        if most is not None and usage.requests.advance(now) >= most:
            raise self.refuse(caller, REQUESTS, usage.requests.seconds_until(most))
        most = caller.tokens_per_minute
        if most is not None and usage.tokens.advance(now) >= most:
            raise self.refuse(caller, TOKENS, usage.tokens.seconds_until(most))
        return usage

    @staticmethod
    def _count(usage: _Usage, caller: Caller) -> None:
        if caller.concurrency is not None:
            usage.in_flight += 1
        if caller.requests_per_minute is not None:
            usage.requests.add(1)

    def _of(self, name: str) -> _Usage:
        usage = self._usage.get(name)
        if usage is None:
            usage = self._usage[name] = _Usage()
        return usage


def refusal(caller: Caller, limit: str, wait: float) -> RateLimited:
    """Return the error that tells a caller which of its limits is reached."""
    who = "Callers without a key together" if caller.anonymous else f"The key '{caller.name}'"
    has = "have" if caller.anonymous else "has"
    if limit == CONCURRENCY:
        said = f"{who} {has} {caller.concurrency} requests in flight, the most allowed at once"
    elif limit == REQUESTS:
        said = f"{who} {has} used the {caller.requests_per_minute} requests allowed per minute"
    else:
        said = f"{who} {has} used the {caller.tokens_per_minute} tokens allowed per minute"
    return RateLimited(f"{said}; try again in {wait:.0f} s.", retry_after=wait)
