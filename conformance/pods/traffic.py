"""Calls a gateway as applications do, for as long as it is let, and writes down what came back.

    traffic.py FOLDER

`FOLDER/plan.json` says what to call (`conformance.suite.traffic.Plan`). Every answer is a line of
`FOLDER/answers.jsonl`. It ends when `FOLDER/stop` is there, or after `seconds`, and lets what was
begun end first.

Nothing is ever sent twice. A request is lost when its status is 500 or more or no 200, when the
connection breaks, when a stream ends without its finish reason or its `[DONE]` (Ollama: `done`), or
when the answer is another than the one that this backend gives to this request.

The standard library of Python 3.11 is all that it needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Headers = dict[str, str]
Shape = dict[str, Any]
"""A request: `kind`, `path`, `body`."""
Record = dict[str, Any]
Said = str | list[float]
"""What an answer says: a text or a vector."""

GIVE_UP = 150.0
"""Seconds after which nothing more is expected of a request."""
CLOSE_ENOUGH = 0.99
"""Cosine of two vectors of the same text: engines round differently."""


class Broken(Exception):
    """The connection ended before the answer did."""


class Connection:
    """One connection of HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.reusable = True

    @property
    def usable(self) -> bool:
        """Whether the server has not said goodbye meanwhile."""
        return self.reusable and not self.reader.at_eof() and not self.writer.is_closing()

    def close(self) -> None:
        """Close it, at once."""
        self.writer.transport.abort()

    async def send(self, data: bytes) -> tuple[int, Headers, AsyncIterator[bytes]]:
        """Send a request, and return status, headers and the pieces of the answer."""
        try:
            self.writer.write(data)
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Broken(f"no answer: {type(error).__name__}") from None
        first, *lines = head.rstrip("\r\n").split("\r\n")
        fields = (line.partition(":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        if headers.get("connection", "").lower() == "close":
            self.reusable = False
        return int(first.split(" ", 2)[1]), headers, self.pieces(headers)

    async def pieces(self, headers: Headers) -> AsyncIterator[bytes]:
        """Give the body as it comes."""
        try:
            if headers.get("transfer-encoding", "").lower() == "chunked":
                while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
                    data = await self.reader.readexactly(size + 2)
                    yield data[:-2]
                while await self.reader.readuntil(b"\r\n") != b"\r\n":
                    pass
            else:
                yield await self.reader.readexactly(int(headers.get("content-length", 0)))
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self.reusable = False
            raise Broken(f"cut: {type(error).__name__}") from None


class Caller:
    """Sends requests to one address.

    Connections are kept and used again, as clients' libraries do; one that the server has closed is
    not used. New ones are made as needed.
    """

    def __init__(self, plan: Shape) -> None:
        self.parts = urlsplit(plan["url"])
        self.key = plan["key"]
        self.idle = plan["idle"]
        self.kept: list[Connection] = []

    async def connection(self) -> Connection:
        """Return a connection that can be used."""
        while self.kept:
            found = self.kept.pop()
            if found.usable:
                return found
            found.close()
        try:
            return Connection(
                *await asyncio.open_connection(self.parts.hostname, self.parts.port or 80)
            )
        except OSError as error:
            raise Broken(f"no connection: {error.strerror or error}") from None

    def keep(self, connection: Connection) -> None:
        """Take a connection back after its answer."""
        if connection.usable and len(self.kept) < self.idle:
            self.kept.append(connection)
        else:
            connection.close()

    def encode(self, path: str, body: object) -> bytes:
        """Return a request as bytes."""
        data = json.dumps(body).encode()
        lines = [
            f"POST {path} HTTP/1.1",
            f"host: {self.parts.netloc}",
            "content-type: application/json",
            f"content-length: {len(data)}",
        ]
        if self.key:
            lines.append(f"authorization: Bearer {self.key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + data


# -- what an answer says


def sse(text: str) -> list[str]:
    """Return the data of every event."""
    return [
        block[6:] for block in text.replace("\r\n", "\n").split("\n\n") if block[:6] == "data: "
    ]


def read_chat_stream(text: str) -> tuple[str, str]:
    """Return (text, why it is lost) of a streamed chat."""
    events = sse(text)
    said, finished = "", False
    for event in events:
        if event == "[DONE]":
            continue
        chunk = json.loads(event)
        if chunk.get("error"):
            if events[-1] == "[DONE]":
                return said, "[DONE] after an error"
            return said, f"error in the stream: {chunk['error'].get('code')}"
        for choice in chunk.get("choices", []):
            said += (choice.get("delta") or {}).get("content") or ""
            finished = finished or bool(choice.get("finish_reason"))
    if not finished:
        return said, "no finish_reason"
    return said, "" if events[-1] == "[DONE]" else "no [DONE]"


def read_chat(text: str) -> tuple[str, str]:
    """Return the same of a whole one."""
    choice = json.loads(text)["choices"][0]
    return choice["message"]["content"], "" if choice["finish_reason"] else "no finish_reason"


def read_ollama_stream(text: str) -> tuple[str, str]:
    """Return the same of a chat of Ollama's API."""
    said, last = "", Shape()
    for line in text.splitlines():
        last = json.loads(line)
        if last.get("error"):
            return said, f"error in the stream: {last['error']}"
        said += last.get("message", {}).get("content", "")
    return said, "" if last.get("done") else "no done"


def read_embedding(text: str) -> tuple[list[float], str]:
    """Return the vector of an embedding."""
    return json.loads(text)["data"][0]["embedding"], ""


def read_ollama_embedding(text: str) -> tuple[list[float], str]:
    """Return the same of Ollama's API."""
    return json.loads(text)["embeddings"][0], ""


READERS: dict[str, Callable[[str], tuple[Said, str]]] = {
    "chat-stream": read_chat_stream,
    "chat": read_chat,
    "embedding": read_embedding,
    "ollama-stream": read_ollama_stream,
    "ollama-embedding": read_ollama_embedding,
}


def same(one: Said, other: Said) -> bool:
    """Whether two answers are the same text, or vectors of the same text."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    if len(one) != len(other):
        return False
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    length = math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))
    return dot >= CLOSE_ENOUGH * length


class Known:
    """The answer of each backend to each request: given, or the first that was seen."""

    def __init__(self, given: dict[str, dict[str, Said]]) -> None:
        self.answers = given

    def differs(self, kind: str, backend: str, said: Said) -> str:
        """Say how an answer differs from the known one; empty if it does not."""
        known = self.answers.setdefault(kind, {}).setdefault(backend, said)
        if same(known, said):
            return ""
        return f"another text: {said[:60]!r}" if isinstance(said, str) else "another vector"


# -- calling


async def call(caller: Caller, shape: Shape, known: Known) -> Record:
    """Send a request, and return what came back."""
    record: Record = {
        "kind": shape["kind"],
        "t": time.time(),
        "status": 0,
        "lost": "",
        "begun": False,
    }
    connection = None
    text = b""
    try:
        async with asyncio.timeout(GIVE_UP):
            connection = await caller.connection()
            sent = caller.encode(shape["path"], shape["body"])
            record["status"], headers, pieces = await connection.send(sent)
            record |= {
                name: headers.get(f"x-synapse-{name}", "")
                for name in ("backend", "fallback", "attempts")
            }
            async for piece in pieces:
                if not record["begun"]:
                    record |= {"begun": True, "first": time.time() - record["t"]}
                text += piece
        record["lost"] = judge(record, text.decode(errors="replace"), known)
        caller.keep(connection)
        connection = None
    except Broken as error:
        record["lost"] = str(error)
    except TimeoutError:
        record["lost"] = f"nothing for {GIVE_UP:.0f} s"
    finally:
        if connection is not None:
            connection.close()
    record["seconds"] = time.time() - record["t"]
    return record


def judge(record: Record, text: str, known: Known) -> str:
    """Say why an answer is lost; empty if it is not."""
    if record["status"] != 200:
        return f"status {record['status']}: {text[:100]}"
    try:
        said, lost = READERS[record["kind"]](text)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"not readable: {type(error).__name__}: {text[:100]!r}"
    return lost or known.differs(record["kind"], record["backend"], said)


class Run:
    """All callers of one run."""

    def __init__(self, folder: Path, plan: Shape) -> None:
        self.folder = folder
        self.plan = plan
        self.known = Known(plan["known"])
        self.file = (folder / "answers.jsonl").open("a", encoding="utf-8", buffering=1)
        self.deadline = time.time() + plan["seconds"]
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def over(self) -> bool:
        """Whether no more is to be sent."""
        return time.time() > self.deadline or (self.folder / "stop").exists()

    async def one(self, caller: Caller, shape: Shape) -> None:
        """Send one request, and write down what came back."""
        self.file.write(json.dumps(await call(caller, shape, self.known)) + "\n")

    async def stream(self, number: int) -> None:
        """Stream after stream."""
        caller = Caller(self.plan)
        shapes = self.plan["streams"]
        while not self.over:
            await self.one(caller, shapes[number % len(shapes)])

    async def arrivals(self) -> None:
        """Requests at a steady rate, whatever becomes of those before.

        Those that find `pending` others without an answer are not sent: they would only wait.
        """
        caller = Caller(self.plan)
        shapes, begun, count = self.plan["requests"], time.time(), 0
        while shapes and not self.over:
            if len(self.tasks) < self.plan.get("pending", math.inf):
                task = asyncio.create_task(self.one(caller, shapes[count % len(shapes)]))
                self.tasks.add(task)
                task.add_done_callback(self.tasks.discard)
            count += 1
            await asyncio.sleep(max(0.0, begun + count / self.plan["rate"] - time.time()))

    async def go(self) -> None:
        """Run until it is over, and until what was begun has ended."""
        streams = [self.stream(number) for number in range(self.plan["concurrent"])]
        await asyncio.gather(self.arrivals(), *streams)
        await asyncio.gather(*self.tasks)


def main() -> None:
    """Carry the plan out."""
    folder = Path(sys.argv[1])
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(Run(folder, plan).go())


if __name__ == "__main__":
    main()
