"""The gateway itself: what every request meets, and what a reload replaces."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.api import speaking, speech
from synapse_gateway.api.access import UNKNOWN_ROUTE
from synapse_gateway.api.audio import AUDIO_ROUTES, prepare_audio
from synapse_gateway.api.cloning import Cloning
from synapse_gateway.api.errors import render
from synapse_gateway.api.ollama import OLLAMA_ROUTES, prepare_ollama
from synapse_gateway.api.openai_speech import PATH as OPENAI_SPEECH
from synapse_gateway.api.openai_speech import conversion, openai_speech
from synapse_gateway.api.prepare import Resolver, prepare_json, prepare_multipart
from synapse_gateway.api.records import new_record
from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.api.speech import SPEECH_ROUTES, Desk, prepare_speech
from synapse_gateway.api.uploads import receive
from synapse_gateway.backends.base import Capability
from synapse_gateway.errors import RequestError, TooLarge, Unavailable
from synapse_gateway.proxy.attempt import VOICE
from synapse_gateway.proxy.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from synapse_gateway.api.call import Call
    from synapse_gateway.auth.keys import Caller, KeyRing
    from synapse_gateway.auth.limits import Limiter
    from synapse_gateway.proxy.caller import Caller as Answering
    from synapse_gateway.proxy.connection import Headers
    from synapse_gateway.proxy.request import ProxyRequest
    from synapse_gateway.proxy.spool import Spool, SpoolRoom
    from synapse_gateway.proxy.upstream import Upstreams
    from synapse_gateway.proxy.waiting import WaitingRoom
    from synapse_gateway.routing.fleet import Fleet
    from synapse_gateway.routing.retry_budget import RetryBudget
    from synapse_gateway.routing.table import Candidate, RouteTable
    from synapse_gateway.telemetry.hub import Telemetry
    from synapse_gateway.telemetry.record import RequestRecord
    from synapse_gateway.voices.shelf import Shelf

_log = logging.getLogger(__name__)
HOT_PATHS = (*OPENAI_ROUTES, *OLLAMA_ROUTES, *AUDIO_ROUTES, *SPEECH_ROUTES)
"""Paths that are served without ASGI."""
UPLOAD_PATHS = frozenset(
    (*AUDIO_ROUTES, *(path for path, route in OPENAI_ROUTES.items() if route.body is None))
)
"""Those whose bodies are spooled."""
_MAX_TOKENS = 100_000_000
"""Tokens of one request that a backend is believed; limits are charged with what it says."""


class State(NamedTuple):
    """What belongs to one configuration; a request keeps the one that it began with."""

    table: RouteTable
    upstreams: Upstreams
    ring: KeyRing


class Gateway:
    """Serves calls.

    Args:
        state: Of the first configuration.
        fleet: Backends and targets, across configurations.
        waiting: Queues.
        budget: Retries.
        limiter: Callers' limits.
        telemetry: Takes the finished records.
        spool: Where uploads lie.
        voices: The library of voices.
    """

    def __init__(
        self,
        state: State,
        fleet: Fleet,
        waiting: WaitingRoom,
        budget: RetryBudget,
        limiter: Limiter,
        telemetry: Telemetry,
        spool: SpoolRoom,
        voices: Shelf,
    ) -> None:
        self.state = state
        self.fleet = fleet
        self.waiting = waiting
        self.budget = budget
        self.limiter = limiter
        self.telemetry = telemetry
        self.spool = spool
        self.voices = voices
        self.cloning = Cloning(voices.run)
        self.draining = False
        """Whether the process has been told to stop."""
        self.kept_bytes = 0
        """Of bodies in memory, of all requests that are received or served."""
        self._apart: dict[str, Callable[[Call, Caller, RequestRecord], Awaitable[None]]] = {
            **dict.fromkeys(UPLOAD_PATHS, self._serve_upload),
            **dict.fromkeys(SPEECH_ROUTES, self._speak),
            OPENAI_SPEECH: self._speak_openai,
        }
        """Who serves what is not passed on as it is, by path."""

    def authenticate(self, call: Call) -> None:
        """Find out who calls, before he sends a body.

        Raises:
            RequestError: He may not.
        """
        headers = call.headers
        call.caller = self.state.ring.authenticate(
            headers.get(b"authorization"), headers.get(b"x-api-key")
        )

    def check_length(self, call: Call, size: int) -> None:
        """Set the bounds of a call's body and look at the length that is announced.

        Raises:
            TooLarge: It is more than may be.
            Unavailable: There is no room for it.
        """
        limits = self.state.table.settings.limits
        call.limit = limits.max_upload_bytes if call.uploads else limits.max_body_bytes
        call.room = limits.max_buffered_bytes
        if size > call.limit or self.kept_bytes > call.room:
            raise self.too_much(call, size)

    @staticmethod
    def too_much(call: Call, size: int) -> RequestError:
        """Return why a body is not taken: its own size, or that of all together."""
        if size > call.limit:
            return TooLarge(f"The body is larger than {call.limit} bytes.")
        return Unavailable("Too many large requests are being served.", code="no_memory")

    @staticmethod
    def render(error: RequestError, path: str) -> tuple[int, Headers, bytes]:
        """Return an error as an answer."""
        return render(error, path)

    async def handle(self, call: Call) -> None:
        """Serve one call; always ends it in some way."""
        record = self._record(call)
        caller: Caller | None = None
        try:
            known = self._known(call, record)
            await self._count(known)
            caller = known
            serve = self._apart.get(call.path)
            if serve is not None:
                await serve(call, caller, record)
            else:
                await self._serve(call, caller, record)
        except RequestError as error:
            self._answer(call, record, error)
        except asyncio.CancelledError:
            self._stop(call, record)
            raise
        except Exception:  # noqa: BLE001 - whatever it is, the caller gets an answer
            _log.exception("request %s failed", record.id)
            record.status = 500
            record.error = "internal_error"
            if call.started:
                call.break_off()
            else:
                self._answer(call, record, RequestError("The gateway failed.", code="internal"))
        finally:
            self._finish(call, record, caller)

    def _stop(self, call: Call, record: RequestRecord) -> None:
        """End a request that was cancelled: because its caller left, or the process stops."""
        if call.disconnected:
            record.disconnected = True
        elif not call.started:
            self._answer(call, record, Unavailable("The gateway is stopping.", retry_after=1))
        elif not call.response_complete:
            call.break_off()

    async def admit_reader(self, headers: Mapping[bytes, bytes], record: RequestRecord) -> Caller:
        """Return who asks for something that no model has to work for; count his request.

        Raises:
            RequestError: He may not, or not now.
        """
        ring = self.state.ring
        caller = ring.authenticate(headers.get(b"authorization"), headers.get(b"x-api-key"))
        record.caller = caller.name
        await self._count(caller.reading)
        return caller

    async def _count(self, caller: Caller) -> None:
        if self.limiter.shared:
            await self.limiter.admit_shared(caller)
        else:
            self.limiter.admit(caller)

    def refuse_bad_http(self, client: tuple[str, int] | None, error: RequestError) -> None:
        """Account for what is not even a request."""
        record = new_record("", UNKNOWN_ROUTE, {}, client)
        record.ended = record.started
        record.status = error.status
        record.error = error.code or error.kind
        self.telemetry.other(record)

    def refuse_early(self, call: Call, error: RequestError) -> None:
        """Answer a call whose body is not even read."""
        record = self._record(call)
        self._answer(call, record, error)
        self._finish(call, record, None)

    async def _serve(self, call: Call, caller: Caller, record: RequestRecord) -> None:
        """Have a request answered whose body goes to the backend as it is."""
        state = self.state
        request = self._prepare(call, state.table, caller, record)
        if isinstance(request, bytes):
            self._answer_whole(call, record, request)
            return
        # those who came together all take the step before, then all the step behind: code that
        # has just run for another request runs a fifth faster
        await asyncio.sleep(0)
        await self._exchange(request, call, state)

    @staticmethod
    def _known(call: Call, record: RequestRecord) -> Caller:
        if call.refusal is not None:
            raise call.refusal
        caller = call.caller
        assert caller is not None  # noqa: S101 - refused otherwise
        record.caller = caller.name
        return caller

    async def _exchange(
        self, request: ProxyRequest, answer: Answering, state: State
    ) -> Candidate | None:
        """Serve a request; return who answered, None if it is refused or broke off.

        Raises:
            RequestError: Nobody did.
        """
        self.budget.request(request.record.started)
        exchange = Exchange(
            request, answer, state.table, state.upstreams, self.waiting, self.budget
        )
        try:
            await exchange.run()
        except RequestError as error:
            if request.otherwise is None or error.status < 500:
                raise
            self._answer_whole(answer, request.record, request.otherwise)
        return exchange.served

    async def _speak(self, call: Call, caller: Caller, record: RequestRecord) -> None:
        """Have a text spoken as the contract says."""
        state = self.state
        resolver = Resolver(state.table, caller, record)
        asked = await prepare_speech(
            call.path, call.body, call.headers, resolver, caller, record, self._desk(state)
        )
        run = partial(self._exchange, state=state)
        try:
            if asked.text.stream:
                await speaking.stream(asked, call, run)
            else:
                await speaking.synthesize(asked, call, run, self._new_spool)
        except Unavailable as error:
            raise speech.without_the_voice(error, asked) from None

    async def _speak_openai(self, call: Call, caller: Caller, record: RequestRecord) -> None:
        """Have a text spoken as OpenAI's API says."""
        state = self.state
        resolver = Resolver(state.table, caller, record)
        hot = OPENAI_ROUTES[call.path]
        request = prepare_json(hot, call.body, call.headers, resolver, caller, record)
        spoken = await openai_speech(request, call.body, call.headers, resolver, self._desk(state))
        if spoken.sound is None:
            await self._exchange(spoken.request, call, state)
            return
        spool = self._new_spool()
        try:
            run = partial(self._exchange, state=state)
            made = await speaking.collect_one(spoken.request, spoken.sound, call, spool, run)
            if isinstance(made, speaking.Refused):
                call.whole(*made)
                return
            headers, wav = made
            route = resolver.service("/audio/convert", Capability.CONVERSION)
            voice = dict(headers).get(VOICE)
            await self._exchange(conversion(spoken.request, route, wav, voice), call, state)
        finally:
            spool.close()

    def _desk(self, state: State) -> Desk:
        allowed = state.table.settings.voices.allow_standard
        return Desk(self.voices, self.cloning, state.upstreams, allowed)

    def _new_spool(self) -> Spool:
        return self.spool.open(0, self.state.table.settings.limits.spool)

    def _prepare(
        self, call: Call, table: RouteTable, caller: Caller, record: RequestRecord
    ) -> ProxyRequest | bytes:
        resolver = Resolver(table, caller, record)
        route = OPENAI_ROUTES.get(call.path)
        if route is None:
            return prepare_ollama(call, resolver, caller, record)
        return prepare_json(route, call.body, call.headers, resolver, caller, record)

    async def _serve_upload(self, call: Call, caller: Caller, record: RequestRecord) -> None:
        """Spool a recording, and have it served from there."""
        limits = self.state.table.settings.limits
        form, spool = await receive(call, self.spool, limits, self.state.upstreams.deadlines)
        try:
            # what the upload took is not the backends' time
            record.started = monotonic()
            record.bytes_in = call.received
            state = self.state
            resolver = Resolver(state.table, caller, record)
            route = AUDIO_ROUTES.get(call.path)
            if route is not None:
                request = prepare_audio(route, form, call.headers, resolver, caller, record)
            else:
                hot = OPENAI_ROUTES[call.path]
                request = prepare_multipart(hot, form, call.headers, resolver, caller, record)
            await self._exchange(request, call, state)
        finally:
            spool.close()

    def _record(self, call: Call) -> RequestRecord:
        record = new_record("POST", call.path, call.headers, call.protocol.client)
        record.bytes_in = call.received
        return record

    @staticmethod
    def _answer_whole(answer: Answering, record: RequestRecord, body: bytes) -> None:
        record.bytes_out = len(body)
        headers = [
            (b"content-type", b"application/json"),
            (b"x-request-id", record.id.encode()),
        ]
        answer.whole(200, headers, body)

    def _answer(self, call: Call, record: RequestRecord, error: RequestError) -> None:
        """Answer with an error; nothing was sent before."""
        record.error = error.code or error.kind
        status, headers, body = render(error, call.path)
        headers.append((b"x-request-id", record.id.encode()))
        if record.attempts:
            headers.append((b"x-synapse-attempts", b"%d" % len(record.attempts)))
        record.bytes_out = len(body)
        call.whole(status, headers, body)

    def _finish(self, call: Call, record: RequestRecord, caller: Caller | None) -> None:
        call.let_go()
        record.ended = now = monotonic()
        record.status = call.status or (499 if record.disconnected else 0)
        attempts = record.attempts
        if attempts:
            record.overhead = max(0.0, attempts[0].started - record.started - record.queued)
            if attempts[-1].last_byte:
                record.overhead += now - attempts[-1].last_byte
        record.tokens_in = _believed(record.tokens_in)
        record.tokens_out = _believed(record.tokens_out)
        if caller is not None:
            self.limiter.release(caller)
            self.limiter.charge(caller, record.tokens_in + record.tokens_out)
        self.telemetry.finished(record)


def _believed(tokens: int) -> int:
    """Return a backend's figure, or 0 where no request can have it."""
    return tokens if 0 <= tokens <= _MAX_TOKENS else 0
