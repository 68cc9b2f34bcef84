"""The same limits, counted in Redis over all replicas.

In Redis, for each caller that has limits (all with a time to live; times are Redis' own clock, so
that replicas need not agree on theirs):

- `synapse:limits:{NAME}:used`, a hash: in `r<second>` the requests and in `t<second>` the tokens of
  that second, and behind them the microsecond in it that the last of them came in;
- `synapse:limits:{NAME}:leases`, a sorted set: one lease a request in flight, scored by when it
  lapses. A replica renews its leases while it lives, so one that died frees its slots by itself.

Admissions that arrive together go out together: one exchange at a time, and whatever gathers
meanwhile is the next. This process' own counts are kept as well. They refuse without asking Redis
what must be refused (what all replicas admitted is never less), and they are what holds while Redis
is gone: then each replica grants the limits by itself, and no request fails for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import NoScriptError

from synapse_gateway.auth.limits import CONCURRENCY, REQUESTS, TOKENS, LocalLimiter
from synapse_gateway.shared_state import FAILURES

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.shared_state import SharedState

LEASE = 60
"""Seconds after which a lease that nobody renews lapses."""

_MAX_DOUBTFUL = 256

_NAMES = {b"c": CONCURRENCY, b"r": REQUESTS, b"t": TOKENS}

# A second's amount leaves the window 60 s after the last of it, as in auth.windows.
_COUNT = """
local time = redis.call('TIME')
local function count(kind, amount)
  local field = kind .. time[1]
  local before = string.match(redis.call('HGET', KEYS[1], field) or '', '^%d+') or 0
  redis.call('HSET', KEYS[1], field, string.format('%d %d', before + amount, time[2]))
  redis.call('EXPIRE', KEYS[1], 120)
end
"""

# Sums the window, and drops what has left it. Times are in microseconds.
_WINDOW = """
local now, minute = time[1] * 1000000 + time[2], 60000000
local sums, held = {r = 0, t = 0}, {}
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local kind, second = string.sub(fields[i], 1, 1), string.sub(fields[i], 2)
  local amount, latest = string.match(fields[i + 1], '^(%d+) (%d+)$')
  local age = now - (second * 1000000 + latest)
  if age >= minute then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    sums[kind] = sums[kind] + amount
    held[#held + 1] = {kind, age, amount}
  end
end
local function wait(kind, most)
  table.sort(held, function(a, b) return a[2] > b[2] end)
  local left = sums[kind]
  for _, entry in ipairs(held) do
    if entry[1] == kind then
      left = left - entry[3]
      if left < most then return math.ceil((minute - entry[2]) / 1000000) end
    end
  end
  return 60
end
"""

# KEYS: used, leases. ARGV: requests, tokens and concurrency allowed ('' is unlimited), the lease to
# take, its seconds. Returns the limit that refuses and the seconds to wait, or nothing.
ADMIT = (
    _COUNT
    + _WINDOW
    + """
local requests, tokens = tonumber(ARGV[1]), tonumber(ARGV[2])
local concurrency = tonumber(ARGV[3])
if concurrency then
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', time[1])
  if redis.call('ZCARD', KEYS[2]) >= concurrency then return {'c', 1} end
end
if requests and sums.r >= requests then return {'r', wait('r', requests)} end
if tokens and sums.t >= tokens then return {'t', wait('t', tokens)} end
if requests then count('r', 1) end
if concurrency then
  redis.call('ZADD', KEYS[2], time[1] + ARGV[5], ARGV[4])
  redis.call('EXPIRE', KEYS[2], 2 * ARGV[5])
end
return {}
"""
)

# KEYS: used, leases. ARGV: tokens to count, leases to give back.
SETTLE = (
    _COUNT
    + """
if tonumber(ARGV[1]) > 0 then count('t', ARGV[1]) end
for i = 2, #ARGV do redis.call('ZREM', KEYS[2], ARGV[i]) end
return {}
"""
)

# KEYS: leases. ARGV: seconds, leases to renew.
RENEW = """
local till = redis.call('TIME')[1] + ARGV[1]
for i = 2, #ARGV do redis.call('ZADD', KEYS[1], till, ARGV[i]) end
redis.call('EXPIRE', KEYS[1], 2 * ARGV[1])
return {}
"""


class _Admission(msgspec.Struct, eq=False):
    """A request that waits to be admitted."""

    caller: Caller
    lease: str
    answer: asyncio.Future[Any]


class _Debt(msgspec.Struct, eq=False):
    """What Redis has not been told yet of a caller."""

    tokens: int = 0
    leases: list[str] = msgspec.field(default_factory=list)


class RedisLimiter:
    """Limits over all replicas, and over this one alone while Redis is gone."""

    shared = True

    def __init__(
        self,
        state: SharedState,
        instance: str,
        on_refused: Callable[[str, str], None] | None = None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        renewal: float = LEASE / 3,
    ) -> None:
        """Build one; it works alone until `start`.

        Args:
            state: The connection.
            instance: Name of this replica, different from every other's.
            on_refused: Called with the caller's name and the limit that refused it.
            clock: Nanoseconds, for this process' own counts.
            renewal: Seconds between two renewals of the leases.
        """
        self._state = state
        self._local = LocalLimiter(on_refused, clock)
        # A restarted replica must not give back the leases of its former life.
        self._life = f"{instance}:{time.time_ns()}"
        self._numbers = itertools.count()
        self._leases: dict[str, list[str]] = {}
        self._admissions: list[_Admission] = []
        self._debts: dict[str, _Debt] = {}
        # Leases of exchanges that failed: Redis may have them all the same.
        self._doubtful: dict[str, deque[str]] = {}
        self._shas: tuple[str, str, str] | None = None
        self._exchange: asyncio.Task[None] | None = None
        self._interval = renewal
        self._due = asyncio.Event()
        self._stopped = False
        self._renewal: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to renew the leases of requests in flight."""
        self._state.on_change(self._changed)
        self._renewal = asyncio.create_task(self._renew_forever(), name="limits-renew")

    async def stop(self) -> None:
        """Settle what is open, and stop."""
        # Not cancelled: the client may swallow a cancellation that comes with a time-out.
        self._stopped = True
        self._due.set()
        if self._renewal is not None:
            await self._renewal
            self._renewal = None
        if self._exchange is not None:
            await self._exchange

    def admit(self, caller: Caller) -> None:
        """Count a request by what this process knows, or raise RateLimited."""
        self._local.admit(caller)

    async def admit_shared(self, caller: Caller) -> None:
        """Count a request by what all replicas know, or raise RateLimited."""
        if not caller.limited:
            return
        if not self._state.up:
            self._local.admit(caller)
            return
        self._local.check(caller)
        lease = f"{self._life}:{next(self._numbers)}"
        admission = _Admission(caller, lease, asyncio.get_running_loop().create_future())
        self._admissions.append(admission)
        self._wake()
        try:
            refused = await admission.answer
        except asyncio.CancelledError:
            if admission in self._admissions:
                self._admissions.remove(admission)
            else:
                # Asked already, so Redis may have admitted it: give the lease back.
                self._owe(caller.name).leases.append(lease)
                self._wake()
            raise
        if refused is None:
            self._local.admit(caller)
            return
        if refused:
            raise self._local.refuse(caller, _NAMES[refused[0]], refused[1])
        self._local.count(caller)
        if caller.concurrency is not None:
            self._leases.setdefault(caller.name, []).append(lease)

    def charge(self, caller: Caller, tokens: int) -> None:
        """Count the tokens of an ended request."""
        self._local.charge(caller, tokens)
        if caller.tokens_per_minute is not None and tokens > 0 and self._state.up:
            self._owe(caller.name).tokens += tokens
            self._wake()

    def release(self, caller: Caller) -> None:
        """Count a request as ended."""
        self._local.release(caller)
        leases = self._leases.get(caller.name)
        if not leases:
            return
        # Leases are alike. A request admitted while Redis was gone has none, so there may be fewer
        # of them than requests in flight.
        while len(leases) > self._local.in_flight(caller.name):
            self._owe(caller.name).leases.append(leases.pop())
        if not leases:
            del self._leases[caller.name]
        self._wake()

    def retain(self, names: Container[str]) -> None:
        """Forget all callers but these; what Redis holds of the others lapses."""
        self._local.retain(names)

    def _owe(self, name: str) -> _Debt:
        debt = self._debts.get(name)
        if debt is None:
            debt = self._debts[name] = _Debt()
        return debt

    def _wake(self) -> None:
        if self._exchange is None or self._exchange.done():
            self._exchange = asyncio.create_task(self._exchange_all(), name="limits-exchange")

    async def _exchange_all(self) -> None:
        while self._admissions or self._debts:
            admissions, self._admissions = self._admissions, []
            debts, self._debts = self._debts, {}
            answers = [None] * len(admissions)
            try:
                answers = await self._exchange_once(admissions, debts)
            except FAILURES as error:
                self._state.failed(error)
                self._doubt(admissions, debts)
            finally:
                # Whatever happened, nobody waits for ever.
                for admission, answer in zip(admissions, answers, strict=True):
                    if not admission.answer.done():
                        admission.answer.set_result(answer)

    async def _exchange_once(
        self, admissions: list[_Admission], debts: dict[str, _Debt]
    ) -> list[Any]:
        """Send debts, then admissions, in one exchange; return the answers to the admissions."""
        if not self._state.up:
            return [None] * len(admissions)
        calls: list[tuple[int, tuple[Any, ...]]] = []
        for name, debt in debts.items():
            calls.append((1, (2, *_keys(name), debt.tokens, *debt.leases)))
        for entry in admissions:
            caller = entry.caller
            allowed = (caller.requests_per_minute, caller.tokens_per_minute, caller.concurrency)
            limits = ("" if limit is None else limit for limit in allowed)
            calls.append((0, (2, *_keys(caller.name), *limits, entry.lease, LEASE)))
        answers = await self._run(calls)
        return answers[len(debts) :]

    async def _run(self, calls: list[tuple[int, tuple[Any, ...]]]) -> list[Any]:
        """Run scripts by number in one exchange, giving Redis the scripts if it has them not."""
        async with asyncio.timeout(self._state.timeout):
            try:
                return await self._send(calls)
            except NoScriptError:
                self._shas = None
                return await self._send(calls)

    async def _send(self, calls: list[tuple[int, tuple[Any, ...]]]) -> list[Any]:
        client = self._state.client
        if self._shas is None:
            shas = [await client.script_load(script) for script in (ADMIT, SETTLE, RENEW)]
            self._shas = (shas[0], shas[1], shas[2])
        pipeline = client.pipeline(transaction=False)
        for script, arguments in calls:
            _ = pipeline.evalsha(self._shas[script], *arguments)
        return list(await pipeline.execute())

    def _doubt(self, admissions: list[_Admission], debts: dict[str, _Debt]) -> None:
        """Remember the leases of an exchange that failed, to give them back later."""
        leases = [(entry.caller.name, entry.lease) for entry in admissions]
        leases += [(name, lease) for name, debt in debts.items() for lease in debt.leases]
        for name, lease in leases:
            # Bounded: what is forgotten lapses.
            self._doubtful.setdefault(name, deque(maxlen=_MAX_DOUBTFUL)).append(lease)

    def _changed(self, up: bool) -> None:
        if up:
            self._due.set()

    async def _renew_forever(self) -> None:
        while not self._stopped:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._due.wait()
            self._due.clear()
            await self.renew()

    async def renew(self) -> None:
        """Renew the leases of all requests in flight, and give back doubtful ones."""
        if not self._state.up:
            return
        doubtful, self._doubtful = self._doubtful, {}
        for name, leases in doubtful.items():
            self._owe(name).leases.extend(leases)
            self._wake()
        calls = [(2, (1, _keys(name)[1], LEASE, *leases)) for name, leases in self._leases.items()]
        if not calls:
            return
        try:
            await self._run(calls)
        except FAILURES as error:
            self._state.failed(error)


def _keys(name: str) -> tuple[str, str]:
    # The braces put both on one node of a cluster.
    return f"synapse:limits:{{{name}}}:used", f"synapse:limits:{{{name}}}:leases"
