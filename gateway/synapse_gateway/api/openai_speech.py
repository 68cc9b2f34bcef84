"""/v1/audio/speech where a body does not just pass on: a voice of the library, or a Chatterbox.

The gateway encodes nothing. Chatterbox makes WAV, Opus and MP3; PCM is its WAV without the head;
FLAC is made of its WAV by the deployment's converter, if it has one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from synapse_gateway.api import bodies
from synapse_gateway.api.audio import SOUND
from synapse_gateway.api.cloning import Cast
from synapse_gateway.api.multipart import Attachment, Field, encode, new_boundary
from synapse_gateway.api.speaking import Sound
from synapse_gateway.api.speech import OURS, allows_standard, cast_plan, standard_voice
from synapse_gateway.audio_api import speech as words
from synapse_gateway.audio_api.refusals import refusal
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import BackendType
from synapse_gateway.errors import NotSupported
from synapse_gateway.proxy.readers import SoundReader
from synapse_gateway.proxy.request import Form, ProxyRequest

if TYPE_CHECKING:
    from synapse_gateway.api.multipart import File
    from synapse_gateway.api.prepare import Resolver
    from synapse_gateway.api.speech import Desk
    from synapse_gateway.proxy.body import Part
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.table import Candidate, ModelRoute

PATH = "/v1/audio/speech"
DEFAULT_FORMAT = "mp3"
"""Of OpenAI's API."""
HOLD = 1024
"""Bytes of sound that are held back: the head of a file is no content yet."""
_CHATTERBOX_FORMATS = frozenset({"wav", "opus", "mp3"})
_PCM = b"audio/pcm"
_FIELDS = {"text": "input", "reference_audio_filename": "voice", "predefined_voice_id": "voice"}


class Spoken(NamedTuple):
    """How a request for speech is served."""

    request: ProxyRequest
    sound: Sound | None = None
    """What the answer becomes, where it is to be converted."""


async def openai_speech(
    request: ProxyRequest, body: bytes, headers: dict[bytes, bytes], resolver: Resolver, desk: Desk
) -> Spoken:
    """Have a request for speech served in the voice, and in the words, that it needs.

    Args:
        request: As it passes on.
        body: The caller's.
        headers: The caller's.
        resolver: Finds who can clone.
        desk: What speech in the voices of the library needs.

    Raises:
        RequestError: The caller's mistake, or nothing here can do it.
    """
    request.form.hold = HOLD
    request.form.media = (*SOUND, b"text/event-stream")
    asked = bodies.parse(bodies.Speech, body)
    name = _voice_of(asked)
    voice = await desk.shelf.find(name) if name else None
    plan = request.route.plan(Capability.SPEECH)
    cast = None
    if voice is not None:
        cast = Cast([(voice, 1.0)])
        allowed = allows_standard(headers, desk)
        able = any(cast.is_for(candidate.state.backend) for candidate in plan.candidates)
        if not able and not (allowed and not resolver.can(PATH, Capability.CLONING)):
            request.route = resolver.service(PATH, Capability.CLONING)
            others = plan.orders if allowed else ()
            plan = request.route.plan(Capability.CLONING)
            plan = plan._replace(orders=plan.orders + others)
        plan = cast_plan(plan, cast, allowed=allowed)
        request.provide = partial(desk.cloning.provide, cast=cast, upstreams=desk.upstreams)
        request.particular = not allowed
    chatterbox = any(_is_chatterbox(candidate.state.backend) for candidate in plan.candidates)
    if voice is None and not chatterbox:
        return Spoken(request)
    form = asked.response_format or DEFAULT_FORMAT
    convert = (
        form == "flac" and chatterbox and resolver.can("/audio/convert", Capability.CONVERSION)
    )
    made = "wav" if convert else form
    request.plan = plan.narrowed(partial(_makes, form=made, events=request.stream))
    if not request.plan.orders:
        what = "events" if request.stream else repr(form[:40])
        raise NotSupported(
            f"response_format: no backend that can speak so gives {what}; WAV, MP3, Opus and PCM "
            "can be had.",
            param="response_format",
        )
    sound = Sound() if convert else None
    own = _Words(request.form, body, asked, cast, made, sound)
    request.choose_form = own.form
    return Spoken(request, sound)


def _voice_of(asked: bodies.Speech) -> str:
    """Return the name or id in `voice`, which newer clients send as an object."""
    if not isinstance(asked.voice, msgspec.Raw):
        return ""
    value = msgspec.json.decode(asked.voice)
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else ""


def _is_chatterbox(backend: BackendState) -> bool:
    return backend.config.type is BackendType.CHATTERBOX


def _makes(candidate: Candidate, form: str, *, events: bool) -> bool:
    """Say whether a candidate gives a format, as far as its kind tells."""
    if not _is_chatterbox(candidate.state.backend):
        return True
    return not events and (form in _CHATTERBOX_FORMATS or form == "pcm")


class _Words:
    """How each backend is asked.

    Args:
        passing: The form that passes the caller's body on.
        body: That body.
        asked: What is in it.
        cast: The voice of the library, if one is named.
        made: Format that is asked for.
        sound: What the answer becomes, where it is to be converted.
    """

    def __init__(
        self,
        passing: Form,
        body: bytes,
        asked: bodies.Speech,
        cast: Cast | None,
        made: str,
        sound: Sound | None,
    ) -> None:
        self._passing = passing
        self._body = body
        self._asked = asked
        self._cast = cast
        self._made = made
        self._sound = sound

    def form(self, backend: BackendState) -> Form:
        """Return how a backend is asked."""
        cast = self._cast
        if cast is not None and not cast.is_for(backend):
            cast = None
        own = self._chatterbox if _is_chatterbox(backend) else self._openai
        form = own(backend, cast)
        if self._sound is not None:
            form.sound = self._sound.reader
        return form

    def _openai(self, backend: BackendState, cast: Cast | None) -> Form:
        fields: dict[str, str] = {}
        if self._made != (self._asked.response_format or DEFAULT_FORMAT):
            fields["response_format"] = self._made
        if cast is not None:
            fields["voice"] = cast.parts[0][0].digest
        elif self._cast is not None:
            # it knows nothing of the library
            ours = backend.config.type in OURS
            fields["voice"] = words.STANDARD_VOICE if ours else words.OPENAI_VOICE
        form = msgspec.structs.replace(self._passing)
        if fields:
            form.body_for = lambda model: bodies.with_fields(
                self._body, {**fields, **({"model": model} if model else {})}
            )
        if cast is not None:
            form.voice = cast.header
        return form

    def _chatterbox(self, backend: BackendState, cast: Cast | None) -> Form:
        voice = cast.file if cast is not None else standard_voice(backend)
        asked = self._asked
        pcm = self._made == "pcm"
        ask = words.Ask(str(asked.input), "en", asked.speed or 1.0, "wav" if pcm else self._made)
        body = words.chatterbox(ask, voice=voice, cloned=cast is not None, split=True)
        return Form(
            path=words.CHATTERBOX_PATH,
            body_for=lambda _: body,
            dialect=None,
            expects_json=False,
            sound=_sixteen_bits if pcm else None,
            content_type=_PCM if pcm else None,
            hold=HOLD,
            media=SOUND,
            voice=cast.header if cast is not None else voice.encode(),
            refused=lambda _, body: refusal(body, _FIELDS),
        )


def _sixteen_bits(hold: int) -> SoundReader:
    return SoundReader(lambda found: (found.coding, found.bits) == (1, 16), hold)


def conversion(
    spoken: ProxyRequest, route: ModelRoute, wav: tuple[Part, ...], voice: bytes | None
) -> ProxyRequest:
    """Return the request that makes FLAC of what was spoken.

    Args:
        spoken: The request by which it was.
        route: Who can convert.
        wav: The file.
        voice: Who spoke.
    """
    boundary = new_boundary()
    parts: list[Field | File | Attachment] = [
        Attachment("file", "speech.wav", "audio/wav", wav),
        Field("output_format", "flac"),
    ]
    return ProxyRequest(
        record=spoken.record,
        capability=Capability.CONVERSION,
        route=route,
        form=Form(
            path="/audio/convert",
            body_for=lambda _: encode(parts, boundary),
            dialect=None,
            expects_json=False,
            hold=HOLD,
            media=SOUND,
            voice=voice,
        ),
        headers=b"content-type: multipart/form-data; boundary=%b\r\n" % boundary,
        stream=False,
        deadline=spoken.deadline,
        priority=spoken.priority,
    )
