"""The contract's speech: /tts/synthesize and /tts/stream.

The text is cut into sentences, and each is a request of its own with all the failover that every
request has. The first sentence settles which kind of backend speaks, so that one voice speaks to
the end: another may still take a whole text over while nothing of it has been sent.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from synapse_gateway.api import bodies
from synapse_gateway.api.prepare import forwarded
from synapse_gateway.audio_api import sentences
from synapse_gateway.audio_api import speech as words
from synapse_gateway.audio_api.refusals import refusal
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import BackendType
from synapse_gateway.errors import (
    BadGateway,
    GatewayTimeout,
    RequestError,
    Unavailable,
    Unprocessable,
)
from synapse_gateway.proxy.body import Span
from synapse_gateway.proxy.readers import SoundReader
from synapse_gateway.proxy.request import Form, ProxyRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.api.call import Call
    from synapse_gateway.api.prepare import Resolver
    from synapse_gateway.audio_api.wav import Format
    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.proxy.caller import Caller as Answering
    from synapse_gateway.proxy.connection import Headers
    from synapse_gateway.proxy.spool import Spool
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.table import Candidate, ModelRoute, Plan
    from synapse_gateway.telemetry.record import RequestRecord

SPEECH_ROUTES = {
    "/tts/synthesize": "Speak a text, and give a whole WAV file.",
    "/tts/stream": "Speak a text, and give the sound as it is made.",
}
"""Hot paths, with what each does."""
_FIELDS = {"input": "text", "voice": "voice_id"}
"""The contract's names of what backends call otherwise."""
_OURS = frozenset({BackendType.PIPER, BackendType.OPENVOICE})


class Run(Protocol):
    """Serves a request (`api.gateway`)."""

    async def __call__(self, request: ProxyRequest, answer: Answering) -> Candidate | None:
        """Return who answered; None if the answer is a refusal, or broke off.

        Raises:
            RequestError: Nobody did.
        """


class Speech:
    """A text to be spoken.

    Args:
        asked: The caller's body.
        path: The route.
        headers: The caller's headers.
        route: What can speak.
        plan: Those of it that are asked.
        caller: Whose key it is.
        record: Of the request.
    """

    def __init__(
        self,
        asked: bodies.Synthesize,
        path: str,
        headers: dict[bytes, bytes],
        route: ModelRoute,
        plan: Plan,
        caller: Caller,
        record: RequestRecord,
    ) -> None:
        text = str(asked.text)
        self.sentences = sentences.split(text) if asked.split_sentences else [text.strip()]
        self.plan = plan
        self.stream = path == "/tts/stream"
        self.record = record
        self.deadline = record.started + plan.overall
        self._asked = asked
        self._route = route
        self._headers = forwarded(headers, b"application/json")
        self._priority = caller.priority
        record.stream = self.stream

    def request(self, text: str, plan: Plan, sound: Sound) -> ProxyRequest:
        """Return the request for one sentence.

        Args:
            text: The sentence.
            plan: Who may be asked.
            sound: What it becomes a part of.
        """

        def choose_form(backend: BackendState) -> Form:
            return self._form(backend, text, sound)

        return ProxyRequest(
            record=self.record,
            capability=Capability.SPEECH,
            route=self._route,
            form=_NO_FORM,
            choose_form=choose_form,
            plan=plan,
            headers=self._headers,
            stream=self.stream,
            deadline=self.deadline,
            priority=self._priority,
        )

    def _form(self, backend: BackendState, text: str, sound: Sound) -> Form:
        asked = self._asked
        language = words.matching(asked.language, backend.languages) or asked.language
        ask = words.Ask(text, language, asked.speed)
        kind = backend.config.type
        path = words.OPENAI_PATH
        body_for: Callable[[str], bytes]
        if kind is BackendType.CHATTERBOX:
            path = words.CHATTERBOX_PATH
            voice = backend.voices[0] if backend.voices else words.CHATTERBOX_VOICE
            body = words.chatterbox(ask, voice=voice, cloned=False, split=not asked.split_sentences)
            body_for = lambda _: body  # noqa: E731
        elif kind in _OURS:
            voice = words.STANDARD_VOICE
            body_for = lambda model: words.synapse(ask, model)  # noqa: E731
        else:
            voice = words.OPENAI_VOICE
            body_for = lambda model: words.openai(ask, model)  # noqa: E731
        return Form(
            path=path,
            body_for=body_for,
            dialect=None,
            sound=sound.reader,
            content_type=b"audio/wav",
            voice=voice.encode() if kind not in _OURS else None,
            refused=lambda _, body: refusal(body, _FIELDS),
        )


_NO_FORM = Form(path=words.OPENAI_PATH, body_for=lambda _: b"", dialect=None)
"""Never asked with: every backend has a form of its own."""


def prepare_speech(
    path: str,
    body: bytes,
    headers: dict[bytes, bytes],
    resolver: Resolver,
    caller: Caller,
    record: RequestRecord,
) -> Speech:
    """Read a request for speech.

    Raises:
        RequestError: The caller's mistake, or nothing here can do it.
    """
    asked = bodies.parse(bodies.Synthesize, body, Unprocessable)
    if not any(letter.isalnum() for letter in str(asked.text)):
        raise Unprocessable("text: there is nothing to speak in it", param="text")
    route = resolver.service(path, Capability.SPEECH)
    plan = speaking(route.plan(Capability.SPEECH), asked.language)
    return Speech(asked, path, headers, route, plan, caller, record)


def speaking(plan: Plan, language: str) -> Plan:
    """Return the candidates that speak a language, or do not tell which they speak.

    Raises:
        Unprocessable: There is none; the error lists the languages that there are.
    """

    def speaks(candidate: Candidate) -> bool:
        known = candidate.state.backend.languages
        return not known or words.matching(language, known) is not None

    able = narrowed(plan, speaks)
    if not able.orders:
        states = [candidate.state.backend for order in plan.orders for candidate in order]
        known = sorted({code for state in states for code, _ in state.languages})
        raise Unprocessable(
            f"language: {language!r} is not known; known: {', '.join(known)}",
            param="language",
            code="unknown_language",
        )
    return able


def narrowed(plan: Plan, wanted: Callable[[Candidate], bool]) -> Plan:
    """Return a plan with some of its candidates only."""
    orders = (tuple(filter(wanted, order)) for order in plan.orders)
    return plan._replace(orders=tuple(order for order in orders if order))


class Voice(NamedTuple):
    """Who speaks: a backend may take a text over from another of the same kind and model."""

    kind: BackendType
    model: str

    @classmethod
    def of(cls, candidate: Candidate) -> Voice:
        """Return whose voice a candidate has."""
        return cls(candidate.state.backend.config.type, candidate.state.model)

    def is_of(self, candidate: Candidate) -> bool:
        """Say whether a candidate has it."""
        return Voice.of(candidate) == self


class Sound:
    """The sound of several sentences, which have to be alike to become one."""

    def __init__(self) -> None:
        self.format: Format | None = None
        """Of the first sentence, once there is something of it."""
        self._reader: SoundReader | None = None

    def reader(self, hold: int) -> SoundReader:
        """Return what reads the next sentence."""
        self._reader = SoundReader(lambda found: self.format in (None, found), hold)
        return self._reader

    def begin(self) -> Format:
        """Note that a sentence's samples are coming."""
        if self.format is None and self._reader is not None:
            self.format = self._reader.format
        assert self.format is not None  # noqa: S101 - there are no samples without a format
        return self.format


class _Taking:
    """Takes a sentence's answer (`proxy.caller.Caller`)."""

    def __init__(self, sound: Sound, call: Call) -> None:
        self.sound = sound
        self._call = call
        self.refused: tuple[int, Headers, bytes] | None = None
        """A backend's own answer to what the caller asked."""
        self.broken = False

    @property
    def gone(self) -> bool:
        """Whether the caller is."""
        return self._call.gone

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Note a refusal."""
        self.refused = (status, headers, body)

    def finish(self) -> None:
        """Note the end of a sentence, which is not the end of all."""

    def break_off(self) -> None:
        """Note that a sentence will never be whole."""
        self.broken = True


class _Passing(_Taking):
    """Passes sound on to the caller as it comes."""

    def __init__(self, sound: Sound, call: Call) -> None:
        super().__init__(sound, call)
        self.begun = False

    def start(self, status: int, headers: Headers, length: int | None, first: bytes) -> None:
        """Send the file's head before the first sentence."""
        del length
        form = self.sound.begin()
        if self.begun:
            self._call.write(first)
        else:
            self.begun = True
            self._call.start(status, headers, None, form.head(None) + first)

    def write(self, data: bytes) -> None:
        """Send samples."""
        self._call.write(data)

    def pass_on(self, raw: bytes, chunks: list[bytes]) -> None:
        """Send samples as they came."""
        self._call.pass_on(raw, chunks)

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let a slow caller slow the backend down."""
        self._call.on_flow(pause, resume)


class _Collecting(_Taking):
    """Keeps sound until all of it is there."""

    def __init__(self, sound: Sound, call: Call, spool: Spool) -> None:
        super().__init__(sound, call)
        self._spool = spool
        self.headers: Headers = []
        self.full: RequestError | None = None
        """Why not all of it could be kept."""
        self._pause: Callable[[], None] = _nothing

    def start(self, status: int, headers: Headers, length: int | None, first: bytes) -> None:
        """Keep the head and the first samples."""
        del status, length
        self.sound.begin()
        self.headers = self.headers or headers
        self.write(first)

    def write(self, data: bytes) -> None:
        """Keep samples."""
        if self.full is None and data:
            try:
                self._spool.append(data)
            except RequestError as error:
                self.full = error
            if self._spool.congested:
                self._pause()

    def pass_on(self, raw: bytes, chunks: list[bytes]) -> None:
        """Keep samples."""
        del raw
        self.write(b"".join(chunks))

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Let a slow disk slow the backend down."""
        self._pause = pause
        self._spool.on_drained = resume


async def stream(speech: Speech, call: Call, run: Run) -> None:
    """Speak a text, and send the sound as it is made.

    Raises:
        RequestError: Nothing was sent to the caller, and this is why.
    """
    sound = Sound()
    taking = _Passing(sound, call)
    plan = speech.plan
    for text in speech.sentences:
        try:
            served = await run(speech.request(text, plan, sound), taking)
        except RequestError as error:
            if not taking.begun:
                raise
            speech.record.cut = error.code or error.kind
            call.break_off()
            return
        if served is None:
            if taking.refused is not None and not taking.begun:
                call.whole(*taking.refused)
            else:
                speech.record.cut = speech.record.cut or "refused"
                call.break_off()
            return
        plan = narrowed(plan, Voice.of(served).is_of)
    call.finish()


async def synthesize(speech: Speech, call: Call, run: Run, new_spool: Callable[[], Spool]) -> None:
    """Speak a text, and send the sound when it is whole.

    Raises:
        RequestError: Nothing was sent to the caller, and this is why.
    """
    plan = speech.plan
    while True:
        spool = new_spool()
        try:
            taking = _Collecting(Sound(), call, spool)
            lost = await _collect(speech, plan, taking, run)
            if lost is None:
                await spool.flush()
                await _send(speech, call, taking, spool)
                return
        finally:
            spool.close()
        plan = _without(plan, lost)
        if not plan.orders or monotonic() >= speech.deadline:
            raise lost.error
        # another voice speaks the whole text: nobody has heard anything of it
        speech.record.fallback = speech.record.fallback or speech.record.attempts[-1].outcome


class _Lost(NamedTuple):
    """Why a text could not be spoken to its end."""

    voice: Voice | None
    """Whose fault it was; None if no other voice could do better."""
    error: RequestError


async def _collect(speech: Speech, plan: Plan, taking: _Collecting, run: Run) -> _Lost | None:
    """Speak all sentences, or up to one that is refused.

    Returns:
        None, or what came between.
    """
    voice: Voice | None = None
    for text in speech.sentences:
        try:
            served = await run(speech.request(text, plan, taking.sound), taking)
        except (BadGateway, GatewayTimeout, Unavailable) as error:
            return _Lost(voice, error)
        if taking.full is not None:
            return _Lost(None, taking.full)
        if taking.broken:
            speech.record.cut = ""
            return _Lost(
                voice or _voice_of_last(plan, speech.record),
                BadGateway("The backend broke off in the middle of its answer."),
            )
        if served is None:
            break
        voice = Voice.of(served)
        plan = narrowed(plan, voice.is_of)
    return None


def _without(plan: Plan, lost: _Lost) -> Plan:
    """Return who else may speak."""
    voice = lost.voice
    return narrowed(plan, lambda candidate: voice is not None and not voice.is_of(candidate))


def _voice_of_last(plan: Plan, record: RequestRecord) -> Voice | None:
    name = record.attempts[-1].backend
    candidates = (candidate for order in plan.orders for candidate in order)
    return next((Voice.of(c) for c in candidates if c.state.backend.name == name), None)


async def _send(speech: Speech, call: Call, taking: _Collecting, spool: Spool) -> None:
    """Send what was collected, or the refusal."""
    if taking.refused is not None:
        call.whole(*taking.refused)
        return
    writable = asyncio.Event()
    writable.set()
    call.on_flow(writable.clear, writable.set)
    head = taking.sound.begin().head(spool.size)
    span = Span(spool, 0, spool.size)
    call.start(200, taking.headers, len(head) + spool.size, head)
    at = 0
    try:
        async with asyncio.timeout(speech.deadline - monotonic()):
            while at < span.size:
                piece = await span.read(at)
                at += len(piece)
                call.write(piece)
                await writable.wait()
    except (OSError, TimeoutError):
        speech.record.cut = "deadline" if monotonic() >= speech.deadline else "cut"
        call.break_off()
        return
    speech.record.bytes_out = len(head) + spool.size
    call.finish()


def _nothing() -> None:
    pass
