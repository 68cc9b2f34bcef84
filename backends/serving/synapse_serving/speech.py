"""What servers that speak have in common: OpenAI's speech request, its checks, and its answers."""

import base64
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from .admission import Admission
from .audio_output import FORMATS, available_formats, encode
from .errors import BadRequest, UnprocessableField
from .streams import event, from_thread, stream_response

# OpenAI's voices. A client must name one, and here they all mean the standard voice; the response
# header x-synapse-voice tells which spoke.
OPENAI_VOICES = frozenset(
    {"alloy", "ash", "ballad", "cedar", "coral", "echo", "fable"}
    | {"marin", "nova", "onyx", "sage", "shimmer", "verse"}
)


class SpeechRequest(BaseModel):
    """Body of OpenAI's ``POST /v1/audio/speech``, and ``language``, which OpenAI has not."""

    model_config = ConfigDict(extra="ignore")

    model: str = "tts-1"
    input: Annotated[str, Field(min_length=1)]
    voice: str | dict[str, str] = "default"
    response_format: str = "mp3"
    speed: Annotated[float, Field(ge=0.25, le=4.0)] = 1.0
    stream_format: Literal["audio", "sse"] = "audio"
    language: str | None = None

    @property
    def voice_name(self) -> str:
        """The voice, of which OpenAI has two spellings."""
        return self.voice.get("id", "") if isinstance(self.voice, dict) else self.voice


@dataclass(frozen=True, slots=True)
class Language:
    """A language that can be spoken: the code without its region, and the English name."""

    code: str
    name: str


def check_text(text: str, most: int, field: str) -> str:
    """The text, if it can be spoken and has at most ``most`` characters.

    Raises:
        BadRequest: It is neither.
    """
    if len(text) > most:
        raise BadRequest(f"{field}: {len(text)} characters, at most {most}", param=field)
    if "\0" in text:  # espeak-ng takes C strings
        raise BadRequest(f"{field}: must not hold the character U+0000", param=field)
    if not any(letter.isalnum() for letter in text):
        raise BadRequest(f"{field}: there is nothing to speak in it", param=field)
    return text


def check_language(asked: str | None, known: Sequence[Language], who: str) -> Language:
    """The language asked for by its code, a locale or its name; the first one if none is.

    Raises:
        UnprocessableField: ``who`` does not speak it.
    """
    if not asked:
        return known[0]
    wanted = asked.strip().lower().replace("_", "-")
    for language in known:
        if wanted.split("-", 1)[0] == language.code or wanted == language.name.lower():
            return language
    spoken = ", ".join(f"{language.code} ({language.name})" for language in known)
    raise UnprocessableField(
        f"language: {who} does not speak {asked!r}; it speaks {spoken}", param="language"
    )


def check_speed(speed: float) -> float:
    """The speed, if it can be had here.

    Raises:
        UnprocessableField: It cannot: what stretches speech is not installed.
    """
    if speed != 1 and len(available_formats()) == 1:
        raise UnprocessableField("speed: only 1.0 can be had here", param="speed")
    return speed


def check_format(name: str) -> str:
    """The format, if it can be made here.

    Raises:
        UnprocessableField: It cannot.
    """
    known = available_formats()
    if name not in known:
        raise UnprocessableField(
            f"response_format: {name!r} cannot be made here; known: {', '.join(known)}",
            param="response_format",
        )
    return name


async def _as_events(audio: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """OpenAI's speech events: base64 deltas, then one that says it is done."""
    try:
        async for part in audio:
            text = base64.b64encode(part).decode()
            yield event({"type": "speech.audio.delta", "audio": text})
        yield event({"type": "speech.audio.done", "usage": None})
    finally:
        await audio.aclose()


async def spoken_response(
    admission: Admission,
    said: Iterator[Any],
    rate: int,
    form: str,
    *,
    voice: str,
    events: bool = False,
) -> Response:
    """Speech as it is made, in a checked format.

    Args:
        admission: Holds the slot.
        said: 16-bit mono samples, an array a sentence; blocking.
        rate: Samples a second.
        form: A name that ``check_format`` has let through.
        voice: Who speaks, for the header ``x-synapse-voice``.
        events: As OpenAI's events instead of bytes.
    """

    async def make() -> AsyncGenerator[bytes, None]:
        audio = from_thread(admission, encode(said, rate, form))
        return _as_events(audio) if events else audio

    media_type = "text/event-stream" if events else FORMATS[form].media_type
    headers = {"x-synapse-voice": voice}
    return await stream_response(admission, make, media_type=media_type, headers=headers)
