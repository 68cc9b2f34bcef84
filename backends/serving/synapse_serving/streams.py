"""Answers that leave while the model still works."""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import IO, Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .admission import Admission
from .errors import CallerLeft

T = TypeVar("T")

_END = object()
_BLOCK = 1 << 18


def event(data: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2) with ``data`` as JSON."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def from_thread(admission: Admission, items: Iterator[T]) -> AsyncGenerator[T, None]:
    """The items of a blocking iterator, each made in a thread when the one before was taken."""
    try:
        while True:
            item = await admission.in_thread(next, items, _END)
            if item is _END:
                return
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


class _HeldStream(StreamingResponse):
    """A stream that runs ``release`` at its end, also when it was never begun."""

    release: Callable[[], Awaitable[None]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self.release()


async def stream_response(
    admission: Admission,
    make: Callable[[], Awaitable[AsyncGenerator[bytes, None]]],
    *,
    media_type: str,
    headers: dict[str, str] | None = None,
) -> StreamingResponse:
    """A response that holds a slot until its last byte is sent or the caller has left.

    ``make`` is called once a slot is held, and the first bytes are awaited before the head is
    sent, so that an error up to then still has its status. An error after it cuts the connection:
    the caller sees an unfinished chunked body, never a clean end.
    """
    await admission.acquire()
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        chunks = await make()
        first = await anext(chunks, b"")
    except BaseException:
        admission.release()
        raise

    async def body() -> AsyncGenerator[bytes, None]:
        yield first
        async for chunk in chunks:
            yield chunk

    async def release() -> None:
        await chunks.aclose()
        admission.release(loop.time() - begun)

    response = _HeldStream(body(), media_type=media_type, headers=headers)
    response.release = release
    return response


def file_response(
    file: IO[bytes], *, media_type: str, headers: dict[str, str] | None = None
) -> StreamingResponse:
    """The whole of an open file, of known length; it is closed at the end or with the caller."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)

    async def body() -> AsyncGenerator[bytes, None]:
        while block := await anyio.to_thread.run_sync(file.read, _BLOCK):
            yield block

    async def release() -> None:
        file.close()

    response = _HeldStream(
        body(), media_type=media_type, headers={"content-length": str(size)} | (headers or {})
    )
    response.release = release
    return response


async def stay(caller: Request) -> None:
    """Go on only while somebody waits for the answer.

    Raises:
        CallerLeft: The connection is closed.
    """
    if await caller.is_disconnected():
        raise CallerLeft
