"""Has a text spoken, sentence by sentence, and makes one sound of the answers.

Each sentence is a request of its own with all the failover that every request has. The first one
settles which kind of backend speaks, so that one voice speaks to the end: another may still take a
whole text over while nothing of it has been sent.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple, Protocol

from synapse_gateway.errors import BadGateway, GatewayTimeout, RequestError, Unavailable
from synapse_gateway.proxy.body import Span
from synapse_gateway.proxy.readers import SoundReader

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.api.call import Call
    from synapse_gateway.api.speech import Speech
    from synapse_gateway.audio_api.wav import Format
    from synapse_gateway.config.settings import BackendType
    from synapse_gateway.proxy.body import Part
    from synapse_gateway.proxy.caller import Caller as Answering
    from synapse_gateway.proxy.connection import Headers
    from synapse_gateway.proxy.request import ProxyRequest
    from synapse_gateway.proxy.spool import Spool
    from synapse_gateway.routing.table import Candidate, Plan
    from synapse_gateway.telemetry.record import RequestRecord


_BROKE_OFF = "The backend broke off in the middle of its answer."


class Run(Protocol):
    """Serves a request (`api.gateway`)."""

    async def __call__(self, request: ProxyRequest, answer: Answering) -> Candidate | None:
        """Return who answered; None if the answer is a refusal, or broke off.

        Raises:
            RequestError: Nobody did.
        """


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


class Refused(NamedTuple):
    """A backend's own answer to what the caller asked."""

    status: int
    headers: Headers
    body: bytes


class _Taking:
    """Takes a sentence's answer (`proxy.caller.Caller`)."""

    def __init__(self, sound: Sound, call: Call) -> None:
        self.sound = sound
        self._call = call
        self.refused: Refused | None = None
        """A backend's own answer to what the caller asked."""
        self.broken = False

    @property
    def gone(self) -> bool:
        """Whether the caller is."""
        return self._call.gone

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Note a refusal."""
        self.refused = Refused(status, headers, body)

    def sender(self) -> None:
        """Want every part of the sound brought by `write` or `pass_on`."""

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
    for sentence in speech.text.sentences:
        try:
            served = await run(speech.request(sentence, plan, sound), taking)
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
        plan = plan.narrowed(Voice.of(served).is_of)
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


async def collect_one(
    request: ProxyRequest, sound: Sound, call: Call, spool: Spool, run: Run
) -> tuple[Headers, tuple[Part, ...]] | Refused:
    """Have one request answered with a WAV file, and keep it.

    Returns:
        The answer's headers and the file, or a backend's own answer to what the caller asked.

    Raises:
        RequestError: Nobody gave one.
    """
    taking = _Collecting(sound, call, spool)
    await run(request, taking)
    if taking.full is not None:
        raise taking.full
    if taking.broken:
        request.record.cut = ""
        raise BadGateway(_BROKE_OFF)
    if taking.refused is not None:
        return taking.refused
    await spool.flush()
    head = sound.begin().head(spool.size)
    return taking.headers, (head, Span(spool, 0, spool.size))


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
    for sentence in speech.text.sentences:
        try:
            served = await run(speech.request(sentence, plan, taking.sound), taking)
        except (BadGateway, GatewayTimeout, Unavailable) as error:
            return _Lost(voice, error)
        if taking.full is not None:
            return _Lost(None, taking.full)
        if taking.broken:
            speech.record.cut = ""
            return _Lost(
                voice or _voice_of_last(plan, speech.record),
                BadGateway(_BROKE_OFF),
            )
        if served is None:
            break
        voice = Voice.of(served)
        plan = plan.narrowed(voice.is_of)
    return None


def _without(plan: Plan, lost: _Lost) -> Plan:
    """Return who else may speak."""
    voice = lost.voice
    return plan.narrowed(lambda candidate: voice is not None and not voice.is_of(candidate))


def _voice_of_last(plan: Plan, record: RequestRecord) -> Voice | None:
    name = record.attempts[-1].backend
    return next((Voice.of(c) for c in plan.candidates if c.state.backend.name == name), None)


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
