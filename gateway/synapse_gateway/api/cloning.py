"""Gives backends that clone the voices of the library: each is sent once, and kept by content.

A backend is asked for a voice by the digest of its recordings and says when it does not have it
(any more); only then are they sent, and the request is repeated. However many requests ask for a
voice at once, it is sent to a backend once.

`backends/openvoice` takes all recordings of a voice. Chatterbox (`server.py`, `/upload_reference`)
takes one of at most 30 s, so it gets the longest one, cut to that. Where several voices are to be
blended it gets one made of all, in the ratio of the weights: it conditions on what it hears.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.api.multipart import Attachment, encode, new_boundary
from synapse_gateway.audio_api.refusals import message_of
from synapse_gateway.backends.base import Capability, Refusal
from synapse_gateway.config.settings import BackendType
from synapse_gateway.errors import Unprocessable
from synapse_gateway.proxy.body import Stored
from synapse_gateway.proxy.fetch import BackendHttp
from synapse_gateway.proxy.pool import ConnectFailed
from synapse_gateway.routing.outcome import Outcome, of_status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from synapse_gateway.audio_api.wav import Format
    from synapse_gateway.backends.base import Reply
    from synapse_gateway.proxy.body import Part
    from synapse_gateway.proxy.upstream import Upstreams
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.table import Candidate
    from synapse_gateway.voices.library import Reference, Voice

CHATTERBOX_SECONDS = 30.0
"""Longest recording that Chatterbox takes (`audio_output.max_reference_duration_sec`)."""
UPLOAD_TIMEOUT = 60.0
"""Seconds until a backend must have taken a voice."""


class Cast:
    """Who is to be heard: a voice of the library, or several in the ratio of their weights.

    Args:
        parts: The voices with their weights, which sum up to 1.
    """

    def __init__(self, parts: Sequence[tuple[Voice, float]]) -> None:
        self.parts = parts
        self.excerpt = _excerpt(parts)
        """What a single recording of it is made of; None if the voices have none of one format."""

    @property
    def header(self) -> bytes:
        """Value of `x-synapse-voice`."""
        if len(self.parts) == 1:
            return self.parts[0][0].id.encode()
        return ", ".join(f"{voice.id}={weight:g}" for voice, weight in self.parts).encode()

    @property
    def name(self) -> str:
        """Who it is, for people."""
        return " and ".join(repr(voice.name) for voice, _ in self.parts)

    @property
    def file(self) -> str:
        """Name of the recording at a backend that keeps files."""
        whole = hashlib.sha256()
        for voice, weight in self.parts:
            whole.update(f"{voice.digest}={weight:g};".encode())
        return f"synapse-{whole.hexdigest()[:40]}.wav"

    def is_for(self, backend: BackendState) -> bool:
        """Say whether a backend can speak in it."""
        if backend.config.type is BackendType.CHATTERBOX and self.excerpt is None:
            return False
        return Capability.CLONING in backend.adapter.capabilities


class Excerpt(NamedTuple):
    """Samples of one format out of several recordings."""

    format: Format
    parts: list[tuple[Voice, Reference, int]]
    """Each with the bytes of samples that are taken, from its beginning."""


def _excerpt(cast: Sequence[tuple[Voice, float]]) -> Excerpt | None:
    """Return what a recording of a cast is made of, as long as it can be, at most 30 s."""
    longest = [_longest(voice) for voice, _ in cast]
    form = next((form for form in longest[0] if all(form in each for each in longest)), None)
    if form is None:
        return None
    chosen = [each[form] for each in longest]
    whole = sum(weight for _, weight in cast)
    seconds = CHATTERBOX_SECONDS
    for reference, (_, weight) in zip(chosen, cast, strict=True):
        seconds = min(seconds, reference.looked.seconds * whole / weight)
    parts = []
    for reference, (voice, weight) in zip(chosen, cast, strict=True):
        size = int(seconds * weight / whole * form.rate) * form.frame_bytes
        parts.append((voice, reference, min(size, reference.looked.data_bytes)))
    return Excerpt(form, parts)


def _longest(voice: Voice) -> dict[Format, Reference]:
    """Return the longest recording of each format."""
    longest: dict[Format, Reference] = {}
    for reference in voice.references:
        known = longest.get(reference.looked.format)
        if known is None or reference.looked.seconds > known.looked.seconds:
            longest[reference.looked.format] = reference
    return longest


class Cloning:
    """Sends voices.

    Args:
        run: Runs something that blocks.
    """

    def __init__(self, run: Callable[..., Awaitable[bytes]]) -> None:
        self._run = run
        self._under_way: dict[tuple[str, str], asyncio.Task[Outcome]] = {}

    async def provide(self, candidate: Candidate, cast: Cast, upstreams: Upstreams) -> Outcome:
        """Have a backend know a cast.

        Returns:
            `OK`, or what went wrong there.

        Raises:
            Unprocessable: It takes the recordings for unusable.
        """
        http = BackendHttp(upstreams.of(candidate.state.backend.name))
        if candidate.state.backend.config.type is BackendType.CHATTERBOX:
            return await self._once(candidate, http, cast.file, self._chatterbox(cast))
        for voice, _ in cast.parts:
            sent = [
                Attachment("files", f"{ref.id}.wav", "audio/wav", (self._whole(voice, ref),))
                for ref in voice.references
            ]
            upload = _Upload("PUT", f"/voices/{voice.digest}", sent)
            outcome = await self._once(candidate, http, voice.digest, upload)
            if outcome is not Outcome.OK:
                return outcome
        return Outcome.OK

    def _chatterbox(self, cast: Cast) -> _Upload:
        made = cast.excerpt
        assert made is not None  # noqa: S101 - else it is not asked
        pieces: list[Part] = [made.format.head(sum(size for _, _, size in made.parts))]
        for voice, reference, size in made.parts:
            path, start = voice.path(reference), reference.looked.data_start
            pieces.append(Stored(path, start, size, self._run))
        sent = [Attachment("files", cast.file, "audio/wav", tuple(pieces))]
        return _Upload("POST", "/upload_reference", sent)

    def _whole(self, voice: Voice, reference: Reference) -> Stored:
        return Stored(voice.path(reference), 0, reference.looked.bytes, self._run)

    async def _once(
        self, candidate: Candidate, http: BackendHttp, key: str, upload: _Upload
    ) -> Outcome:
        """Send something, or wait for who sends it already.

        A task of its own does it, so that a caller who leaves takes it away from nobody.
        """
        place = (candidate.state.backend.name, key)
        task = self._under_way.get(place)
        if task is None:
            task = asyncio.create_task(_send(candidate, http, upload))
            self._under_way[place] = task
            task.add_done_callback(lambda done: self._ended(place, done))
        return await asyncio.shield(task)

    def _ended(self, place: tuple[str, str], task: asyncio.Task[Outcome]) -> None:
        del self._under_way[place]
        if not task.cancelled():
            # everybody may have left: then nobody else asks how it ended
            task.exception()


class _Upload(NamedTuple):
    method: str
    path: str
    files: Iterable[Attachment]


async def _send(candidate: Candidate, http: BackendHttp, upload: _Upload) -> Outcome:
    boundary = new_boundary()
    try:
        reply = await http.upload(
            upload.method,
            upload.path,
            body=encode(upload.files, boundary),
            content_type=b"multipart/form-data; boundary=" + boundary,
            timeout=UPLOAD_TIMEOUT,
        )
    except TimeoutError:
        return Outcome.FIRST_TOKEN_TIMEOUT
    except OSError as error:
        cause = error.__cause__
        return cause.outcome if isinstance(cause, ConnectFailed) else Outcome.RESET
    return _outcome_of(candidate, reply)


def _outcome_of(candidate: Candidate, reply: Reply) -> Outcome:
    if reply.status < 300:
        return Outcome.OK
    refusal = candidate.state.backend.adapter.refusal(reply.status, reply.body)
    if refusal is Refusal.OVERLOADED:
        return Outcome.THROTTLED
    outcome = of_status(reply.status)
    if outcome is Outcome.CLIENT_ERROR:
        said = message_of(reply.body)
        raise Unprocessable(
            f"voice_id: the recordings of this voice cannot be used: {said}", param="voice_id"
        )
    return outcome
