"""Takes uploads in: from a caller's connection, by way of the form, into the spool."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from synapse_gateway.api.multipart import FormReader
from synapse_gateway.audio_api.sniff import audio_format, describe
from synapse_gateway.errors import InvalidRequest, RequestTimeout, TooLarge, UnsupportedMedia

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import Request

    from synapse_gateway.api.call import Call
    from synapse_gateway.api.multipart import Form
    from synapse_gateway.config.settings import Limits
    from synapse_gateway.proxy.deadlines import Deadlines
    from synapse_gateway.proxy.spool import Spool, SpoolRoom


def check_recording(name: str, head: bytes) -> None:
    """Refuse a file that is no recording by its first bytes.

    Args:
        name: Of its field.
        head: Its first bytes.

    Raises:
        InvalidRequest: It is empty.
        UnsupportedMedia: It is something else.
    """
    if not head:
        raise InvalidRequest(f"{name}: the file is empty.", param=name, code="empty_file")
    if audio_format(head) is None:
        raise UnsupportedMedia(
            f"{name}: must be an audio file (WAV, MP3, FLAC, Ogg, MP4, WebM ...); this is "
            f"{describe(head)}.",
            param=name,
        )


class _Watch:
    """Ends an upload whose caller sends nothing (`proxy.deadlines.Bounded`)."""

    def __init__(self, call: Call, spool: Spool, seconds: float) -> None:
        self._call = call
        self._spool = spool
        self._seconds = seconds
        self._seen = -1
        self._since = 0.0

    def check(self, now: float) -> None:
        """Refuse what has stalled."""
        if self._call.received != self._seen or self._spool.congested:
            self._seen = self._call.received
            self._since = now
        elif now - self._since > self._seconds:
            self._call.refuse_body(
                RequestTimeout(f"Nothing came for {self._seconds:g} s within the upload.")
            )


async def receive(
    call: Call,
    room: SpoolRoom,
    limits: Limits,
    deadlines: Deadlines,
    check: Callable[[str, bytes], None] = check_recording,
) -> tuple[Form, Spool]:
    """Read the form that a call uploads.

    Returns:
        The form, and the spool that its files are in, which is the caller's to close.

    Raises:
        RequestError: It cannot be taken.
    """
    declared = int(call.headers.get(b"content-length", b"0"))
    spool = room.open(declared, limits.spool)
    watch = _Watch(call, spool, limits.spool.stall)
    try:
        reader = FormReader(call.headers.get(b"content-type", b""), spool, check)

        def take(data: bytes) -> None:
            reader.feed(data)
            if spool.congested:
                call.pause_body()

        spool.on_drained = call.resume_body
        spool.on_failed = call.refuse_body
        deadlines.add(watch)
        await call.receive(take)
        form = reader.finish()
        await spool.flush()
    except BaseException:
        spool.close()
        raise
    finally:
        deadlines.discard(watch)
        spool.on_drained = _nothing
    return form, spool


async def read_stream(
    request: Request,
    room: SpoolRoom,
    limits: Limits,
    check: Callable[[str, bytes], None],
    max_file_bytes: int,
) -> tuple[Form, Spool]:
    """Read the form of a route that is not hot.

    Returns:
        The form, and the spool that its files are in, which is the caller's to close.

    Raises:
        RequestError: It cannot be taken.
    """
    headers = request.headers
    declared = int(headers.get("content-length", "0"))
    _bound(declared, limits)
    spool = room.open(declared, limits.spool)
    try:
        kind = headers.get("content-type", "").encode("latin-1")
        reader = FormReader(kind, spool, check, max_file_bytes)
        drained = asyncio.Event()
        spool.on_drained = drained.set
        spool.on_failed = lambda _: drained.set()
        parts = request.stream()
        received = 0
        while part := await _next(parts, limits.spool.stall):
            received += len(part)
            _bound(received, limits)
            reader.feed(part)
            if spool.congested:
                drained.clear()
                await drained.wait()
        form = reader.finish()
        await spool.flush()
    except BaseException:
        spool.close()
        raise
    return form, spool


async def _next(parts: AsyncGenerator[bytes, None], stall: float) -> bytes:
    """Return the next part of a body, empty at its end."""
    try:
        async with asyncio.timeout(stall):
            return await anext(parts, b"")
    except TimeoutError:
        raise RequestTimeout(f"Nothing came for {stall:g} s within the upload.") from None


def _bound(size: int, limits: Limits) -> None:
    if size > limits.max_upload_bytes:
        raise TooLarge(f"The body is larger than {limits.max_upload_bytes} bytes.")


def _nothing() -> None:
    pass
