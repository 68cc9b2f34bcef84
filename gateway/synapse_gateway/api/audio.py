"""The contract's routes that take recordings: /stt/*, /speakers/* and /audio/*.

A server that has the route itself is asked as it is; in front of one that speaks OpenAI's audio API
/stt/* is translated. Either way the caller's form is made anew from its known fields.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from synapse_gateway.api.multipart import Field, Form, encode, new_boundary
from synapse_gateway.api.prepare import forwarded, session_affinity
from synapse_gateway.audio_api import transcripts
from synapse_gateway.audio_api.refusals import refusal
from synapse_gateway.backends.base import Capability
from synapse_gateway.errors import Unprocessable
from synapse_gateway.proxy.dialects import AudioDialect, SegmentDialect
from synapse_gateway.proxy.events import EventCutter
from synapse_gateway.proxy.readers import StreamReader, TranslatingReader
from synapse_gateway.proxy.request import Form as Asked
from synapse_gateway.proxy.request import ProxyRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_gateway.api.multipart import File
    from synapse_gateway.api.prepare import Resolver
    from synapse_gateway.auth.keys import Caller
    from synapse_gateway.proxy.body import Joined
    from synapse_gateway.proxy.dialects import Dialect
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.telemetry.record import RequestRecord

MAX_SPEAKERS = 100
"""More than any diarisation tells apart."""
SOUND = (b"audio/", b"application/ogg", b"application/octet-stream")
"""How sound is declared."""
WHOLE = sys.maxsize
"""Holds an answer back for as long as the limits allow."""


CONVERSIONS = ("wav", "mp3", "flac", "ogg")
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})


class Rule(NamedTuple):
    """What a field may be."""

    read: Callable[[str], str | None]
    """Returns the value as backends get it; None if it cannot be."""
    wish: str
    """What it must be."""
    schema: dict[str, Any]
    """The same for the API's description."""


def _matching(pattern: str, wish: str) -> Rule:
    expression = re.compile(pattern)
    return Rule(
        lambda value: value if expression.fullmatch(value) else None,
        wish,
        {"type": "string", "pattern": f"^{pattern}$"},
    )


def _number(least: int, most: int) -> Rule:
    def read(value: str) -> str | None:
        right = re.fullmatch("[0-9]{1,9}", value) and least <= int(value) <= most
        return value if right else None

    schema = {"type": "integer", "minimum": least, "maximum": most}
    return Rule(read, f"a whole number from {least} to {most}", schema)


def _flag(value: str) -> str | None:
    lower = value.lower()
    return "true" if lower in _TRUE else "false" if lower in _FALSE else None


_LANGUAGE = _matching("[A-Za-z]{2,20}([-_][A-Za-z0-9]{1,8})*", "a language's code, such as en")
_FLAG = Rule(_flag, "true or false", {"type": "string", "enum": ["true", "false"]})
_SPEAKERS = _number(1, MAX_SPEAKERS)
_RATE = _number(8000, 192_000)
_BITRATE = _matching("[1-9][0-9]{0,6}[kK]?", "a bit rate, such as 128k")
_FORMAT = Rule(
    lambda value: value if value in CONVERSIONS else None,
    f"one of {', '.join(CONVERSIONS)}",
    {"type": "string", "enum": list(CONVERSIONS)},
)


class AudioRoute(NamedTuple):
    """A route of the contract that takes recordings."""

    path: str
    capability: Capability
    files: tuple[str, ...]
    """Fields that are files, all of them required."""
    fields: dict[str, Rule]
    """Other fields."""
    summary: str
    required: tuple[str, ...] = ()
    stream: bool = False
    answers: str = "application/json"
    """Media type of the answer, for the API's description."""


_FILE = ("file",)
AUDIO_ROUTES = {
    route.path: route
    for route in (
        AudioRoute(
            "/stt/transcribe",
            Capability.TRANSCRIPTIONS,
            _FILE,
            {"language": _LANGUAGE, "word_timestamps": _FLAG},
            "Write down what is said in a recording, with times.",
        ),
        AudioRoute(
            "/stt/detect-language",
            Capability.TRANSCRIPTIONS,
            _FILE,
            {},
            "Tell the language that is spoken in a recording.",
        ),
        AudioRoute(
            "/stt/stream",
            Capability.TRANSCRIPTIONS,
            _FILE,
            {"language": _LANGUAGE},
            "Write down what is said in a recording, an event a segment.",
            stream=True,
            answers="text/event-stream",
        ),
        AudioRoute(
            "/speakers/diarize",
            Capability.DIARIZATION,
            _FILE,
            {"num_speakers": _SPEAKERS, "min_speakers": _SPEAKERS, "max_speakers": _SPEAKERS},
            "Tell who speaks when in a recording.",
        ),
        AudioRoute(
            "/speakers/verify",
            Capability.VERIFICATION,
            ("file1", "file2"),
            {},
            "Tell whether two recordings are of the same speaker.",
        ),
        AudioRoute(
            "/audio/denoise",
            Capability.DENOISING,
            _FILE,
            {},
            "Take the noise out of a recording.",
            answers="audio/wav",
        ),
        AudioRoute(
            "/audio/convert",
            Capability.CONVERSION,
            _FILE,
            {"output_format": _FORMAT, "sample_rate": _RATE, "bitrate": _BITRATE},
            "Convert a recording to another format.",
            required=("output_format",),
            answers="audio/*",
        ),
    )
}
"""By path."""


def prepare_audio(
    route: AudioRoute,
    form: Form,
    headers: dict[bytes, bytes],
    resolver: Resolver,
    caller: Caller,
    record: RequestRecord,
) -> ProxyRequest:
    """Make the request of a route that takes recordings.

    Raises:
        RequestError: The caller's mistake, or nothing here can do it.
    """
    files = [_the_file(form, name) for name in route.files]
    fields = _checked(route, form)
    model = resolver.service(route.path, route.capability)
    record.stream = route.stream
    boundary = new_boundary()
    own = _own_form(route, files, fields, boundary)
    translated = own
    if route.capability is Capability.TRANSCRIPTIONS:
        translated = _translated_form(route, files, fields, boundary)
    affinity = session_affinity(headers)

    def choose_form(backend: BackendState) -> Asked:
        if route.capability is not Capability.TRANSCRIPTIONS:
            return own
        return own if Capability.TRANSCRIBE in backend.adapter.capabilities else translated

    return ProxyRequest(
        record=record,
        capability=route.capability,
        route=model,
        form=own,
        choose_form=choose_form,
        headers=forwarded(headers, b"multipart/form-data; boundary=" + boundary),
        stream=route.stream,
        deadline=record.started + model.plan(route.capability).overall,
        priority=caller.priority,
        affinity=affinity,
        session=affinity is not None,
    )


def _the_file(form: Form, name: str) -> File:
    """Return the one file of a field.

    Raises:
        Unprocessable: There is none, or there are several.
    """
    files = form.files(name)
    if len(files) == 1:
        return files[0]
    problem = "is there more than once" if files else "is required, as a file"
    raise Unprocessable(f"{name}: {problem}", param=name, code=None if files else "missing_field")


def _checked(route: AudioRoute, form: Form) -> dict[str, str]:
    """Return the known fields that are given; an empty one is as good as none.

    Raises:
        Unprocessable: One has a value that cannot be.
    """
    fields: dict[str, str] = {}
    for name, rule in route.fields.items():
        given = form.fields.get(name)
        if not given:
            continue
        value = rule.read(given)
        if value is None:
            raise Unprocessable(f"{name}: must be {rule.wish} (got {given[:40]!r})", param=name)
        fields[name] = value
    for name in route.required:
        if name not in fields:
            raise Unprocessable(f"{name}: is required", param=name, code="missing_field")
    least, most = fields.get("min_speakers"), fields.get("max_speakers")
    if least is not None and most is not None and int(least) > int(most):
        raise Unprocessable(
            f"min_speakers: must be at most max_speakers ({most})", param="min_speakers"
        )
    return fields


def _own_form(
    route: AudioRoute, files: Iterable[File], fields: dict[str, str], boundary: bytes
) -> Asked:
    parts: list[Field | File] = [*files]
    parts.extend(Field(name, value) for name, value in fields.items())
    return Asked(
        path=route.path,
        body_for=lambda _: encode(parts, boundary),
        dialect=SegmentDialect if route.stream else None,
        expects_json=route.answers == "application/json",
        hold=WHOLE,
        media=SOUND if route.answers.startswith("audio/") else (),
        refused=lambda _, body: refusal(body, {}),
    )


def _translated_form(
    route: AudioRoute, files: list[File], fields: dict[str, str], boundary: bytes
) -> Asked:
    """Ask a server that speaks OpenAI's audio API for what the contract's route gives."""
    asked = fields.get("language")
    words = fields.get("word_timestamps") == "true"
    parts: list[Field | File] = [*files]
    if asked is not None:
        parts.append(Field("language", asked))
    if route.stream:
        parts.append(Field("stream", "true"))
    else:
        parts.append(Field("response_format", "verbose_json"))
        wanted = ("segment", "word") if words else ("segment",)
        parts.extend(Field("timestamp_granularities[]", each) for each in wanted)

    def body_for(model: str) -> Joined:
        named = [Field("model", model)] if model else []
        return encode([*parts, *named], boundary)

    def reader(dialect: Dialect, largest: int) -> StreamReader:
        return TranslatingReader(
            EventCutter(largest), dialect, transcripts.SegmentTranslator(asked)
        )

    whole = None
    if route.path == "/stt/transcribe":
        whole = _transcription(asked, words=words)
    elif not route.stream:
        whole = transcripts.detection
    return Asked(
        path="/v1/audio/transcriptions",
        body_for=body_for,
        dialect=AudioDialect if route.stream else None,
        expects_json=not route.stream,
        reader=reader,
        whole=whole,
        hold=WHOLE,
        refused=lambda _, body: refusal(body, {}),
        error_event=SegmentDialect().error_event,
    )


def _transcription(asked: str | None, *, words: bool) -> Callable[[bytes], bytes]:
    return lambda body: transcripts.transcription(body, asked=asked, words=words)
