"""The contract's speech: /tts/synthesize, /tts/stream and /tts/interpolate.

What is asked, of whom, and in which words; how the answers become one sound is in `speaking`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from typing import cast as typed

from synapse_gateway.api import bodies
from synapse_gateway.api.cloning import Cast
from synapse_gateway.api.prepare import forwarded
from synapse_gateway.audio_api import sentences
from synapse_gateway.audio_api import speech as words
from synapse_gateway.audio_api.refusals import refusal
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import BackendType
from synapse_gateway.errors import (
    NotSupported,
    Unavailable,
    Unprocessable,
)
from synapse_gateway.proxy.request import Form, ProxyRequest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_gateway.api.cloning import Cloning
    from synapse_gateway.api.prepare import Resolver
    from synapse_gateway.api.speaking import Sound
    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.proxy.upstream import Upstreams
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.outcome import Outcome
    from synapse_gateway.routing.table import Candidate, ModelRoute, Plan
    from synapse_gateway.telemetry.record import RequestRecord
    from synapse_gateway.voices.shelf import Shelf

ALLOW_FALLBACK = b"x-synapse-allow-fallback"
"""Header with which a caller takes the standard voice where the one he names cannot be had."""
WEIGHTS_TOLERANCE = 0.01
SPEECH_ROUTES = {
    "/tts/synthesize": "Speak a text, and give a whole WAV file.",
    "/tts/stream": "Speak a text, and give the sound as it is made.",
    "/tts/interpolate": "Speak a text in a voice between several of the library.",
}
"""Hot paths, with what each does."""
_FIELDS = {"input": "text", "voice": "voice_id"}
"""The contract's names of what backends call otherwise."""
OURS = frozenset({BackendType.PIPER, BackendType.OPENVOICE})


class Text(NamedTuple):
    """What is to be spoken."""

    sentences: list[str]
    language: str
    speed: float
    split: bool
    """Whether it was cut into sentences here."""
    stream: bool = False
    """Whether sound is sent as it is made."""
    blend: bool = False
    """Whether several voices become one."""


class Speech:
    """A text to be spoken.

    Args:
        text: What.
        cast: In which voice of the library; None for the standard voice of whoever speaks.
        headers: The caller's headers.
        route: What can speak.
        plan: Those of it that are asked.
        caller: Whose key it is.
        record: Of the request.
        provide: Gives a backend the voice.
    """

    def __init__(
        self,
        text: Text,
        cast: Cast | None,
        headers: dict[bytes, bytes],
        route: ModelRoute,
        plan: Plan,
        caller: Caller,
        record: RequestRecord,
        provide: Callable[[Candidate], Awaitable[Outcome]] | None,
    ) -> None:
        self.text = text
        self.plan = plan
        self.record = record
        self.deadline = record.started + plan.overall
        self.cast = cast
        self.allowed = any(
            cast is None or not cast.is_for(candidate.state.backend)
            for candidate in plan.candidates
        )
        """Whether a standard voice may speak."""
        self._route = route
        self._headers = forwarded(headers, b"application/json")
        self._priority = caller.priority
        self._provide = provide
        record.stream = text.stream

    def request(self, sentence: str, plan: Plan, sound: Sound) -> ProxyRequest:
        """Return the request for one sentence.

        Args:
            sentence: The sentence.
            plan: Who may be asked.
            sound: What it becomes a part of.
        """

        def choose_form(backend: BackendState) -> Form:
            return self._form(backend, sentence, sound)

        return ProxyRequest(
            record=self.record,
            capability=Capability.SPEECH,
            route=self._route,
            form=_NO_FORM,
            choose_form=choose_form,
            plan=plan,
            particular=not self.allowed,
            headers=self._headers,
            stream=self.text.stream,
            deadline=self.deadline,
            priority=self._priority,
            provide=self._provide,
        )

    def _form(self, backend: BackendState, sentence: str, sound: Sound) -> Form:
        language = words.matching(self.text.language, backend.languages) or self.text.language
        ask = words.Ask(sentence, language, self.text.speed)
        asked = self._asked_of(backend, ask)
        return Form(
            path=asked.path,
            body_for=asked.body_for,
            dialect=None,
            sound=sound.reader,
            content_type=b"audio/wav",
            voice=asked.voice,
            refused=lambda _, body: refusal(body, _FIELDS),
        )

    def _asked_of(self, backend: BackendState, ask: words.Ask) -> _Asked:
        kind = backend.config.type
        cast = self.cast
        if cast is not None and not cast.is_for(backend):
            cast = None
        if kind is BackendType.CHATTERBOX:
            voice = cast.file if cast is not None else standard_voice(backend)
            body = words.chatterbox(
                ask, voice=voice, cloned=cast is not None, split=not self.text.split
            )
            shown = cast.header if cast is not None else voice.encode()
            return _Asked(words.CHATTERBOX_PATH, lambda _: body, shown)
        if kind not in OURS:
            shown = words.OPENAI_VOICE.encode()
            return _Asked(words.OPENAI_PATH, lambda model: words.openai(ask, model), shown)
        if cast is None:
            return _Asked(words.OPENAI_PATH, lambda model: words.synapse(ask, model), None)
        if self.text.blend:
            weights = [(voice.digest, weight) for voice, weight in cast.parts]
            body = words.interpolation(ask, weights)
            return _Asked("/tts/interpolate", lambda _: body, cast.header)
        digest = cast.parts[0][0].digest
        return _Asked(
            words.OPENAI_PATH, lambda model: words.synapse(ask, model, digest), cast.header
        )


class _Asked(NamedTuple):
    """How a backend is asked to speak."""

    path: str
    body_for: Callable[[str], bytes]
    voice: bytes | None
    """For the caller; None where the backend tells."""


_NO_FORM = Form(path=words.OPENAI_PATH, body_for=lambda _: b"", dialect=None)
"""Never asked with: every backend has a form of its own."""


def standard_voice(backend: BackendState) -> str:
    """Return the voice that a Chatterbox speaks in by itself."""
    return backend.voices[0] if backend.voices else words.CHATTERBOX_VOICE


def text_of(asked: bodies.Synthesize | bodies.Interpolate, path: str) -> Text:
    """Return what is to be spoken.

    Raises:
        Unprocessable: There is nothing in it.
    """
    text = str(asked.text)
    if not any(letter.isalnum() for letter in text):
        raise Unprocessable("text: there is nothing to speak in it", param="text")
    if isinstance(asked, bodies.Interpolate):
        return Text([text.strip()], asked.language, asked.speed, split=False, blend=True)
    split = asked.split_sentences
    pieces = sentences.split(text) if split else [text.strip()]
    return Text(pieces, asked.language, asked.speed, split, stream=path == "/tts/stream")


class Desk(NamedTuple):
    """What speech in the voices of the library needs."""

    shelf: Shelf
    cloning: Cloning
    upstreams: Upstreams
    allow_standard: bool
    """What the configuration says of it."""


async def prepare_speech(
    path: str,
    body: bytes,
    headers: dict[bytes, bytes],
    resolver: Resolver,
    caller: Caller,
    record: RequestRecord,
    desk: Desk,
) -> Speech:
    """Read a request for speech.

    Raises:
        RequestError: The caller's mistake, or nothing here can do it.
    """
    kind = bodies.Interpolate if path == "/tts/interpolate" else bodies.Synthesize
    asked = typed("bodies.Interpolate | bodies.Synthesize", bodies.parse(kind, body, Unprocessable))
    text = text_of(asked, path)
    cast = await _cast_of(asked, desk.shelf)
    allowed = cast is None or allows_standard(headers, desk)
    route = resolver.service(path, _needed(cast, allowed=allowed))
    plan = route.plan(Capability.SPEECH)
    provide = None
    if cast is not None:
        plan = cast_plan(plan, cast, allowed=allowed)
        provide = partial(desk.cloning.provide, cast=cast, upstreams=desk.upstreams)
    plan = speaking(plan, text.language)
    return Speech(text, cast, headers, route, plan, caller, record, provide)


def _needed(cast: Cast | None, *, allowed: bool) -> Capability:
    if cast is None or allowed:
        return Capability.SPEECH
    return Capability.CLONING if len(cast.parts) == 1 else Capability.INTERPOLATION


async def _cast_of(asked: bodies.Synthesize | bodies.Interpolate, shelf: Shelf) -> Cast | None:
    """Look the voices up that a request names.

    Raises:
        VoiceNotFound: One is not there.
        Unprocessable: They cannot be blended so.
    """
    if isinstance(asked, bodies.Synthesize):
        if not asked.voice_id:
            return None
        return Cast([(await shelf.of_id(asked.voice_id), 1.0)])
    shares = typed("list[bodies.Share]", asked.voices)
    whole = sum(share.weight for share in shares)
    if abs(whole - 1) > WEIGHTS_TOLERANCE + 1e-9:
        raise Unprocessable(
            f"voices: the weights must sum up to 1.0, give or take {WEIGHTS_TOLERANCE} "
            f"(got {whole:g})",
            param="voices",
        )
    return Cast([(await shelf.of_id(share.voice_id), share.weight) for share in shares])


def allows_standard(headers: dict[bytes, bytes], desk: Desk) -> bool:
    """Say whether the standard voice may speak where the one that is named cannot be had."""
    given = headers.get(ALLOW_FALLBACK)
    return desk.allow_standard if given is None else given.lower() in (b"true", b"1", b"yes")


def cast_plan(plan: Plan, cast: Cast, *, allowed: bool) -> Plan:
    """Return who may speak, those first who can in the voice that is asked for.

    Args:
        plan: Who can speak at all.
        cast: The voice.
        allowed: Whether the standard voice may speak where that one cannot be had.

    Raises:
        NotSupported: None of them can.
    """
    able = plan.narrowed(lambda candidate: cast.is_for(candidate.state.backend))
    if allowed:
        others = plan.narrowed(lambda candidate: not cast.is_for(candidate.state.backend))
        able = able._replace(orders=able.orders + others.orders)
    if not able.orders:
        raise NotSupported(
            "The recordings of these voices differ in format (rate, channels or bits), and no "
            "backend of this deployment can blend such."
        )
    return able


def without_the_voice(error: Unavailable, speech: Speech) -> Unavailable:
    """Return why a text was not spoken where only one voice would have done."""
    if speech.cast is None or speech.allowed:
        return error
    return Unavailable(
        f"Only a backend that clones voices can speak as {speech.cast.name}. {error.message} "
        "With the header x-synapse-allow-fallback: true the standard voice would speak.",
        code="voice_unavailable",
        retry_after=error.retry_after,
    )


def speaking(plan: Plan, language: str) -> Plan:
    """Return the candidates that speak a language, or do not tell which they speak.

    Raises:
        Unprocessable: There is none; the error lists the languages that there are.
    """

    def speaks(candidate: Candidate) -> bool:
        known = candidate.state.backend.languages
        return not known or words.matching(language, known) is not None

    able = plan.narrowed(speaks)
    if not able.orders:
        states = [candidate.state.backend for candidate in plan.candidates]
        known = sorted({code for state in states for code, _ in state.languages})
        raise Unprocessable(
            f"language: {language!r} is not known; known: {', '.join(known)}",
            param="language",
            code="unknown_language",
        )
    return able
