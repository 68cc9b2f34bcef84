"""A right gateway to look at, and ones that are wrong in one way each.

The right one is the project's own, as a process, in front of an upstream that answers at once. A
wrong one is a relay in front of it that spoils what passes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import http.client
import json
import struct
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from synapse_gateway.testing import FaultyUpstream, Request, scripts
from synapse_gateway.testing.answers import compact
from synapse_gateway.testing.scripts import LAST_CHUNK, Send, chunk, sized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from synapse_gateway.testing.scripts import Step

WORDS = ("Paris", "is", "the", "capital", "of", "France")
INTERVAL = 0.01
"""Seconds between the words of a stream."""
LARGEST = 10**9


# -- what stands behind the gateway


def answer(request: Request) -> Iterable[Step]:
    """Answer as a good engine with a chat and an embedding model does."""
    if request.path == "/v1/embeddings":
        if request.model == "chat":
            return [Send(_refusal("this model has no embeddings"))]
        return [Send(sized(200, compact(_embeddings(request)).encode()))]
    if request.model == "vectors":
        return [Send(_refusal("this model does not chat"))]
    body = request.json()
    if len(request.body) > 100_000:
        return scripts.context_exceeded()(request)
    if body.get("response_format"):
        return scripts.answer(['{"capital":"Paris"}'])(request)
    if body.get("tools"):
        return [Send(sized(200, compact(_tool_call(request)).encode()))]
    return scripts.answer(WORDS, interval=INTERVAL)(request)


def _refusal(message: str) -> bytes:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    return sized(400, compact({"error": error}).encode())


def _embeddings(request: Request) -> dict[str, Any]:
    body = request.json()
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = []
    for index, text in enumerate(texts):
        vector: Any = [byte / 256 for byte in hashlib.sha256(str(text).encode()).digest()[:8]]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack("<8f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return {"object": "list", "data": data, "model": request.model, "usage": usage}


def _tool_call(request: Request) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": '{"city": "Tokyo"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": request.model,
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


# -- what stands in front of it


@dataclass
class Passing:
    """An answer on its way through a relay.

    Attributes:
        method: Of the request.
        path: Of the request, without its query.
        asked: Headers of the request.
        body: Of the request.
        status: Of the answer.
        headers: Of the answer, names in lower case.
        pieces: Its body, as it arrives.
    """

    method: str
    path: str
    asked: Mapping[str, str]
    body: bytes
    status: int
    headers: dict[str, str]
    pieces: Iterable[bytes]

    @property
    def streams(self) -> bool:
        """Whether it is an event stream."""
        return self.headers.get("content-type", "").startswith("text/event-stream")

    def whole(self) -> bytes:
        """Read all of the body, which is then no longer a stream."""
        body = b"".join(self.pieces)
        self.pieces = [body]
        return body

    def change(self, spoil: Callable[[Any], Any]) -> None:
        """Replace a JSON body."""
        self.pieces = [json.dumps(spoil(json.loads(self.whole()))).encode()]

    def replace(self, old: bytes, new: bytes) -> None:
        """Replace bytes in each piece."""
        pieces = self.pieces
        self.pieces = (piece.replace(old, new) for piece in pieces)


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Nagle's algorithm would keep a piece back until the one before is acknowledged, and the kernel
    # acknowledges late: the pieces of a stream would arrive together.
    disable_nagle_algorithm = True
    to: str
    spoil: Callable[[Passing], None]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _pass(self) -> None:
        length = int(self.headers.get("content-length", 0))
        # a body that is announced to be too large is not waited for, as the gateway does not
        body = self.rfile.read(length) if length < LARGEST else b""
        connection = http.client.HTTPConnection(urlsplit(self.to).netloc, timeout=60)
        fields = {name.lower(): value for name, value in self.headers.items()}
        fields.pop("connection", None)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in fields.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        with closing(connection), connection.getresponse() as got:
            self._answer(got, fields, body)
        self.close_connection = length >= LARGEST

    def _answer(self, got: http.client.HTTPResponse, fields: dict[str, str], body: bytes) -> None:
        headers = {name.lower(): value for name, value in got.getheaders()}
        for name in ("transfer-encoding", "content-length", "connection"):
            headers.pop(name, None)
        pieces = iter(lambda: got.read1(65536), b"")
        path = urlsplit(self.path).path
        passing = Passing(self.command, path, fields, body, got.status, headers, pieces)
        type(self).spoil(passing)
        self.send_response_only(passing.status)
        for name, value in passing.headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for piece in passing.pieces:
            if piece:
                self.wfile.write(chunk(piece))
        self.wfile.write(LAST_CHUNK)

    do_GET = do_POST = do_DELETE = _pass  # noqa: N815 - http.server's names


@contextmanager
def relayed(to: str, spoil: Callable[[Passing], None]) -> Iterator[str]:
    """Give the URL of a relay to `to` that spoils what passes."""
    handler = type("Relay", (_Relay,), {"to": to, "spoil": staticmethod(spoil)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Engine:
    """An upstream in a thread of its own."""

    def __init__(self, script: scripts.Script) -> None:
        self._script = script
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.url = ""
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with FaultyUpstream() as upstream:
            upstream.script = self._script
            upstream.probes["/v1/models"] = scripts.models("chat", "vectors")
            self.url = upstream.url
            self._ready.set()
            await self._stop.wait()

    def start(self) -> None:
        """Listen."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()


@contextmanager
def engine() -> Iterator[str]:
    """Give the URL of an engine with a chat and an embedding model."""
    server = _Engine(answer)
    server.start()
    try:
        yield server.url
    finally:
        server.stop()
