"""A request from its plan to its last byte: choose, attempt, fail over, account.

This is the design's failover table at work; what each outcome leads to is in `routing.outcome`.
"""

from __future__ import annotations

import asyncio
from asyncio import sleep
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import quote

from synapse_gateway import errors
from synapse_gateway.backends.answers import error_of
from synapse_gateway.backends.base import Refusal
from synapse_gateway.config.settings import Service
from synapse_gateway.proxy.attempt import PASSED_ON, Attempt
from synapse_gateway.proxy.pool import ConnectFailed
from synapse_gateway.proxy.readers import SoundReader
from synapse_gateway.proxy.waiting import Line, QueueFull
from synapse_gateway.routing.choose import back_at, choose
from synapse_gateway.routing.outcome import RULES, Counts, Outcome
from synapse_gateway.routing.table import SERVICE_OF
from synapse_gateway.telemetry.record import AttemptRecord

if TYPE_CHECKING:
    from synapse_gateway.config.settings import Limits
    from synapse_gateway.proxy.caller import Caller
    from synapse_gateway.proxy.connection import Headers
    from synapse_gateway.proxy.request import ProxyRequest
    from synapse_gateway.proxy.upstream import Upstreams
    from synapse_gateway.proxy.waiting import Place, WaitingRoom
    from synapse_gateway.routing.choose import Choice
    from synapse_gateway.routing.retry_budget import RetryBudget
    from synapse_gateway.routing.table import Candidate, ModelRoute, Plan, RouteTable

BACK_OFF = (0.5, 1.0, 2.0)
"""Seconds before a target that this request has tried already is tried again."""

STALE_WITHIN = 0.25
"""Seconds after a request within which the end of a kept connection crossed it on the way; one that
comes later is the backend's answer to it."""

AUDIO = frozenset(
    capability
    for capability, service in SERVICE_OF.items()
    if service in (Service.TTS, Service.STT, Service.SPEAKER, Service.AUDIO)
)
"""What servers of one model do: what theirs cannot, nothing of the deployment can."""

_REFUSALS = {
    Refusal.MODEL_NOT_FOUND: Outcome.MISROUTED,
    Refusal.CONTEXT_EXCEEDED: Outcome.CONTEXT_EXCEEDED,
    Refusal.CREDENTIALS: Outcome.CREDENTIALS,
    Refusal.OVERLOADED: Outcome.THROTTLED,
    Refusal.INVALID_REQUEST: Outcome.CLIENT_ERROR,
    Refusal.VOICE_NOT_FOUND: Outcome.CLIENT_ERROR,
    Refusal.NOT_SUPPORTED: Outcome.NOT_SUPPORTED,
}


class Exchange:
    """Serves one request.

    Args:
        request: What is asked.
        caller: Who gets the answer.
        table: Route table that holds for the whole request, whatever is loaded meanwhile.
        upstreams: Connections, and how requests to each backend begin.
        waiting: Where to wait for a place.
        budget: Retries that the whole gateway may make.
    """

    def __init__(
        self,
        request: ProxyRequest,
        caller: Caller,
        table: RouteTable,
        upstreams: Upstreams,
        waiting: WaitingRoom,
        budget: RetryBudget,
    ) -> None:
        self._request = request
        self._caller = caller
        self._table = table
        self._limits: Limits = table.settings.limits
        self._upstreams = upstreams
        self._waiting = waiting
        self._budget = budget
        self._route: ModelRoute = request.route
        self._plan: Plan = request.plan or self._route.plan(request.capability)
        self._line = Line(self._route, particular=request.particular)
        self.served: Candidate | None = None
        """Who answered, when that is over."""
        self._tried: list[Candidate] = []
        self._outcomes: list[Outcome] = []
        self._other_models = list(self._route.config.fallbacks)
        self._attempt_now: Attempt | None = None
        self._useless: list[Candidate] = []
        """Targets that would say the same again."""
        self._refused = ""
        """Why a backend cannot do it, in its own words."""
        self._repeats = 0
        self._place: Place | None = None
        self._waits_in = self._line
        self._wait_until = 0.0

    async def run(self) -> None:
        """Answer the caller.

        A cancellation while the caller is still there means that the gateway stops.

        Raises:
            errors.RequestError: Nothing was sent to the caller, and this is why.
        """
        try:
            while True:
                candidate = await self._next_candidate()
                attempt, outcome = await self._attempt(candidate)
                if outcome is Outcome.OK:
                    self.served = candidate
                    return
                rule = RULES[outcome]
                if attempt is not None and attempt.committed:
                    self._break_off(attempt, outcome)
                    return
                if outcome is Outcome.CONTEXT_EXCEEDED and self._to_larger_context():
                    continue
                if not rule.next_target:
                    self._answer_refusal(attempt, outcome)
                    return
        finally:
            self._leave_queue()

    # choosing

    async def _next_candidate(self) -> Candidate:
        """Return where to send the request now; wait for a place if that helps.

        Raises:
            errors.RequestError: There is nothing left to try.
        """
        while True:
            now = monotonic()
            if now >= self._request.deadline:
                raise errors.GatewayTimeout(_TIME_RAN_OUT)
            made = len(self._outcomes)
            if made >= self._route.attempts:
                raise self._failure()
            choice = self._look(now)
            if choice is not None and choice.candidate is not None:
                # the first attempt on another target is free
                if made > 1:
                    self._draw_on_budget(now)
                self._leave_queue()
                return self._taken(choice.candidate, choice.skipped)
            full = choice is None or choice.full
            if self._to_other_model(choice.skipped if choice else "at_capacity", now, full=full):
                continue
            if not full and self._tried:
                again = await self._again()
                if again is None:
                    raise self._failure()
                return again
            await self._wait_for_place(now, choice)

    def _look(self, now: float) -> Choice | None:
        """Choose, unless others wait who came first."""
        if self._place is None and self._waiting.occupied(self._line, self._request.priority):
            return None
        return self._choose(now, self._tried)

    def _choose(self, now: float, tried: list[Candidate]) -> Choice:
        request = self._request
        return choose(
            self._plan, now, tried=tried, affinity=request.affinity, session=request.session
        )

    def _taken(self, candidate: Candidate, skipped: str) -> Candidate:
        if skipped and not self._request.record.fallback:
            self._request.record.fallback = skipped
        return candidate

    def _draw_on_budget(self, now: float) -> None:
        """Draw on the retry budget.

        Raises:
            errors.RequestError: It is spent.
        """
        if not self._budget.withdraw(now):
            raise self._failure()

    async def _again(self) -> Candidate | None:
        """After a back-off, return a target that was tried before, if that can help."""
        candidates = self._plan.candidates
        if all(candidate in self._useless for candidate in candidates) or not (
            len(candidates) > 1 or RULES[self._outcomes[-1]].nothing_sent
        ):
            return None
        # nobody shall wait behind one who only waits for time to pass
        self._leave_queue()
        pause = BACK_OFF[min(self._repeats, len(BACK_OFF) - 1)]
        self._repeats += 1
        await sleep(min(pause, max(0.0, self._request.deadline - monotonic())))
        now = monotonic()
        candidate = self._choose(now, self._useless).candidate
        if candidate is not None:
            self._draw_on_budget(now)
        return candidate

    def _to_other_model(self, reason: str, now: float, *, full: bool) -> bool:
        """Go on with the next model that the configuration names as a fallback.

        Args:
            reason: Why this one does not serve.
            now: Monotonic seconds.
            full: Whether this one only has no room: worth waiting for, unless another has some.
        """
        for number, name in enumerate(self._other_models):
            route = self._table.model(name)
            if route is None or (full and not self._has_room(route, now)):
                continue
            if self._go_on_with(route):
                del self._other_models[: number + 1]
                self._request.record.fallback = self._request.record.fallback or reason
                return True
        return False

    def _has_room(self, route: ModelRoute, now: float) -> bool:
        plan = route.plan(self._request.capability)
        waiting = self._waiting.occupied(Line(route), self._request.priority)
        return not waiting and choose(plan, now).candidate is not None

    def _to_larger_context(self) -> bool:
        name = self._route.config.context_fallback
        route = self._table.model(name) if name is not None else None
        return route is not None and self._go_on_with(route)

    def _go_on_with(self, route: ModelRoute) -> bool:
        plan = route.plan(self._request.capability)
        if not plan.orders:
            return False
        self._leave_queue()
        self._route = route
        self._line = Line(route)
        self._plan = plan
        self._tried = []
        return True

    # waiting

    async def _wait_for_place(self, now: float, choice: Choice | None) -> None:
        """Wait until it is worth choosing again.

        Args:
            now: Monotonic seconds.
            choice: What there was to choose from; None if others wait who came first.

        Raises:
            errors.RequestError: The queue is full, or its deadline is over.
        """
        route = self._route
        retry_at = choice.retry_at if choice is not None else 0.0
        if self._place is None:
            try:
                self._place = self._waiting.enter(self._line, self._request.priority)
            except QueueFull:
                raise self._no_place("Too many requests wait for it already.", retry_at) from None
            self._waits_in = self._line
            self._wait_until = now + route.queue.deadline
        until = min(self._wait_until, self._request.deadline)
        if now >= until:
            if self._outcomes:
                raise self._failure()
            raise self._no_place("None became free in time.", retry_at)
        if retry_at > until and choice is not None and not choice.full:
            # whatever is out stays out for longer than there is time to wait
            raise self._no_place("None can be back in time.", retry_at)
        if retry_at > now:
            until = min(until, retry_at)
        await self._waiting.wait(self._place, until - now)
        self._request.record.queued += monotonic() - now

    def _leave_queue(self) -> None:
        if self._place is not None:
            self._waiting.leave(self._waits_in, self._place)
            self._place = None

    def _no_place(self, why: str, retry_at: float) -> errors.RequestError:
        wait = max(1.0, retry_at - monotonic())
        name = self._request.record.model_asked or "this request"
        return errors.Unavailable(
            f"No backend for {name!r} is free. {why}", code="no_capacity", retry_after=wait
        )

    # attempting

    async def _attempt(self, candidate: Candidate) -> tuple[Attempt | None, Outcome]:
        """Send the request to a candidate and wait for the end of its answer."""
        state = candidate.state
        self._tried.append(candidate)
        request_record = self._request.record
        if self._outcomes and not request_record.fallback:
            request_record.fallback = self._outcomes[0].value
        record = AttemptRecord(
            backend=state.backend.name,
            model=self._route.name,
            order=candidate.order,
            started=monotonic(),
        )
        request_record.attempts.append(record)
        probe = state.start()
        outcome = Outcome.CALLER_LEFT
        retry_after = None
        try:
            attempt, outcome = await self._send(candidate, record)
            if self._lacks_voice(candidate, attempt):
                attempt, outcome = await self._provide(candidate, record)
            elif attempt is not None and attempt.status >= 400:
                outcome = self._refine(candidate, attempt, outcome)
                if outcome is Outcome.NOT_SUPPORTED:
                    self._refused = error_of(attempt.body).message
            if attempt is not None and outcome is not Outcome.OK:
                retry_after = parse_retry_after(attempt.headers)
        except asyncio.CancelledError:
            if not self._caller.gone:
                outcome = Outcome.STOPPED
            raise
        finally:
            now = monotonic()
            record.outcome = outcome.value
            record.ended = record.ended or now
            state.end(outcome, now, retry_after, probe=probe)
            self._waiting.notify()
            # also of a caller who left: what he has read was made for him
            self._count_tokens()
        self._outcomes.append(outcome)
        if RULES[outcome].counts is Counts.FAILURE:
            self._upstreams.nudge(state.backend.name)
        else:
            self._useless.append(candidate)
        return attempt, outcome

    async def _send(
        self, candidate: Candidate, record: AttemptRecord
    ) -> tuple[Attempt | None, Outcome]:
        request = self._request
        upstream = self._upstreams.of(candidate.state.backend.name)
        form = request.form_for(candidate)
        body = form.body_for(candidate.state.model)
        length = len(body) if isinstance(body, bytes) else body.length
        head = upstream.head(request, form.path, length, record)
        connection = upstream.pool.take()
        record.reused = connection is not None
        while True:
            if connection is None:
                connect = min(candidate.timeouts.connect, request.deadline - monotonic())
                try:
                    connection = await upstream.pool.connect(max(connect, 0.001))
                except ConnectFailed as failed:
                    return None, failed.outcome
            attempt = Attempt(
                request,
                form,
                self._caller,
                record,
                candidate.timeouts,
                self._limits,
                self._upstreams.deadlines,
                self._answer_head,
            )
            self._attempt_now = attempt
            sent = monotonic()
            attempt.begin(connection, head, body)
            try:
                outcome = await attempt.done
            except asyncio.CancelledError:
                attempt.abandon()
                if attempt.committed and not self._caller.gone:
                    self._break_off(attempt, Outcome.STOPPED)
                raise
            if not (attempt.stale and record.reused and monotonic() < sent + STALE_WITHIN):
                return attempt, outcome
            # the backend closed the idle connection as the request left: it has read none of it
            record.reused = False
            connection = None

    def _lacks_voice(self, candidate: Candidate, attempt: Attempt | None) -> bool:
        if self._request.provide is None or attempt is None or attempt.status < 400:
            return False
        adapter = candidate.state.backend.adapter
        return adapter.refusal(attempt.status, attempt.body) is Refusal.VOICE_NOT_FOUND

    async def _provide(
        self, candidate: Candidate, record: AttemptRecord
    ) -> tuple[Attempt | None, Outcome]:
        """Give the backend the voice that it lacks, and send the request once more.

        Raises:
            errors.RequestError: The voice cannot be used there.
        """
        assert self._request.provide is not None  # noqa: S101 - it was asked whether it is
        try:
            async with asyncio.timeout(self._request.deadline - monotonic()):
                outcome = await self._request.provide(candidate)
        except TimeoutError:
            outcome = Outcome.DEADLINE
        if outcome is not Outcome.OK:
            return None, outcome
        attempt, outcome = await self._send(candidate, record)
        if self._lacks_voice(candidate, attempt):
            return None, Outcome.SERVER_ERROR
        if attempt is not None and attempt.status >= 400:
            outcome = self._refine(candidate, attempt, outcome)
        return attempt, outcome

    def _answer_head(self) -> Headers:
        record = self._request.record
        attempts = record.attempts
        headers = [
            (b"x-request-id", record.id.encode()),
            (b"x-synapse-backend", _header_value(attempts[-1].backend)),
        ]
        model = self._route.name or record.model_asked
        if model:
            headers.append((b"x-synapse-model", _header_value(model)))
        headers.append((b"x-synapse-attempts", b"%d" % len(attempts)))
        if record.fallback:
            headers.append((b"x-synapse-fallback", record.fallback.encode()))
        headers.extend(self._request.extra_headers)
        return headers

    def _refine(self, candidate: Candidate, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Let the adapter say what an error answer means beyond its status."""
        refusal = candidate.state.backend.adapter.refusal(attempt.status, attempt.body)
        return outcome if refusal is None else _REFUSALS[refusal]

    def _count_tokens(self) -> None:
        attempt, self._attempt_now = self._attempt_now, None
        if attempt is None or attempt.reader is None:
            return
        record = self._request.record
        dialect = attempt.reader.dialect
        record.tokens_in = dialect.tokens_in
        record.tokens_out = dialect.tokens_out
        if not record.tokens_out and dialect.content_events:
            record.tokens_out = dialect.content_events
            record.tokens_estimated = True

    # ending

    def _break_off(self, attempt: Attempt, outcome: Outcome) -> None:
        """End an answer that the caller has begun to read, but not as if it were whole."""
        record = self._request.record
        record.cut = outcome.value
        reader = attempt.reader
        if reader is None or isinstance(reader, SoundReader):
            self._caller.break_off()
            return
        error = _CUT_ERRORS.get(RULES[outcome].status, errors.BadGateway)
        problem = error(_CUT_MESSAGES[outcome], code=f"stream_{outcome.value}")
        render = attempt.form.error_event or reader.dialect.error_event
        self._caller.write(render(problem.as_object()))
        self._caller.finish()

    def _answer_refusal(self, attempt: Attempt | None, outcome: Outcome) -> None:
        """Give the caller the backend's own answer to what he asked.

        Raises:
            errors.RequestError: There is none to give.
        """
        if attempt is None or attempt.status < 400:
            raise self._failure()
        body = attempt.body
        if attempt.oversized:
            # a part of it would be unreadable
            raise errors.InvalidRequest("The backend refuses it, at too great a length to repeat.")
        # an adapter may know that a server error was the request's fault
        status = attempt.status if attempt.status < 500 else 400
        if attempt.form.refused is not None:
            body = attempt.form.refused(attempt.status, body)
        elif status != attempt.status:
            # its own body would contradict the status
            code = "context_length_exceeded" if outcome is Outcome.CONTEXT_EXCEEDED else None
            raise errors.InvalidRequest(error_of(body).message or "It was refused.", code=code)
        headers = self._answer_head()
        if attempt.form.refused is None:
            headers.extend(pair for pair in attempt.headers if pair[0] in PASSED_ON)
        else:
            headers.append((b"content-type", b"application/json"))
        self._request.record.error = outcome.value
        self._caller.whole(status, headers, body)

    def _failure(self) -> errors.RequestError:
        """Return the error that tells best why nothing worked."""
        if self._outcomes[-1] is Outcome.DEADLINE:
            return errors.GatewayTimeout(_TIME_RAN_OUT)
        outcome = min(reversed(self._outcomes), key=_tells_least)
        status = RULES[outcome].status
        name = self._request.record.model_asked or "this request"
        reasons = ", ".join(dict.fromkeys(o.value for o in self._outcomes))
        text = f"No backend for {name!r} answered properly ({reasons})."
        if status == 404:
            return errors.ModelNotFound(
                f"The model {name!r} is not loaded at any backend.", param="model"
            )
        if outcome is Outcome.CONTEXT_EXCEEDED:
            return errors.InvalidRequest(
                f"The request is too long for the model {name!r}, and the one with a larger "
                "context cannot answer now.",
                code="context_length_exceeded",
            )
        if outcome is Outcome.NOT_SUPPORTED and self._request.capability in AUDIO:
            return errors.NotSupported(self._refused or text)
        if status == 400:
            return errors.InvalidRequest(
                f"The model {name!r} cannot do this kind of request.",
                param="model",
                code="model_not_capable",
            )
        if status == 504:
            return errors.GatewayTimeout(text)
        if status == 503:
            return errors.Unavailable(text, retry_after=self._soonest())
        return errors.BadGateway(text)

    def _soonest(self) -> float:
        """Return the seconds until a target may be asked again."""
        now = monotonic()
        candidates = self._plan.candidates
        return max(1.0, min((back_at(c, now) for c in candidates), default=now) - now)


def _tells_least(outcome: Outcome) -> int:
    """Rank what an outcome says of the next time: one that may pass before one that stays."""
    rule = RULES[outcome]
    return 0 if rule.counts is Counts.FAILURE else 1 if rule.status >= 500 else 2


_TIME_RAN_OUT = "The request's time ran out before it was answered."

_CUT_MESSAGES = {
    Outcome.CUT: "The backend broke off in the middle of its answer.",
    Outcome.STALLED: "The backend stopped in the middle of its answer.",
    Outcome.MALFORMED_EVENT: "The backend sent something unreadable in the middle of its answer.",
    Outcome.ERROR_EVENT: "The backend failed in the middle of its answer.",
    Outcome.DEADLINE: "The request's time ran out in the middle of the answer.",
    Outcome.STOPPED: "The gateway was stopped in the middle of the answer.",
}
_CUT_ERRORS = {503: errors.Unavailable, 504: errors.GatewayTimeout}


def _header_value(name: str) -> bytes:
    """Return a name as a header's value, percent-encoded where it could not stand there: callers
    and backends choose names too, with line ends in them if they like.
    """
    if name.isascii() and name.isprintable():
        return name.encode()
    return quote(name, safe=" /:", errors="replace").encode()


def parse_retry_after(headers: Headers) -> float | None:
    """Return the seconds of a Retry-After header (RFC 9110, 10.2.3), either form of it."""
    for name, value in headers:
        if name != b"retry-after":
            continue
        text = value.decode("latin-1").strip()
        if text.isdecimal():
            return float(text[:9])
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    return None
