"""Cuts a streamed body into events without changing a byte of it.

`EventCutter` follows the event stream format of the HTML standard (section 9.2): events end with an
empty line, lines end with LF, CRLF or CR. `LineCutter` does the same for newline-delimited JSON.
What is given back for sending are whole events only, so a stream that breaks off never leaves half
an event at the caller.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"
FIELD_BYTES = len(b"data: \n\n")
"""What an event of one line of data has besides that."""


class EventTooLarge(Exception):
    """An event is longer than the limit."""


class Event(NamedTuple):
    """One server-sent event."""

    raw: bytes
    """As it came, with the empty line that ends it."""
    name: bytes
    """Value of its `event` field; empty if it has none."""
    data: bytes | None
    """Its `data` lines, joined by line feeds; None if that is nothing (a comment, for one), which
    the standard has clients ignore."""


class EventCutter:
    """Splits a `text/event-stream` body.

    Args:
        max_event_bytes: Largest event that is taken for one.
    """

    __slots__ = ("_max", "rest")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self.rest = b""
        """Bytes behind the last whole event."""

    def alone(self, data: bytes) -> bytes | None:
        """Return the data of an event that these bytes are, no more and no less; None if they are
        not, or may not be.

        One event a read, its data on one line, is the rule: this tells it without taking it apart.
        """
        if (
            self.rest
            or not data.startswith(b"data: ")
            or data.find(b"\n") != len(data) - 2
            or not data.endswith(b"\n")
            or b"\r" in data
        ):
            return None
        return data[6:-2] or None

    def feed(self, data: bytes) -> list[Event]:
        """Return the events that these bytes complete.

        Raises:
            EventTooLarge: There is no end of an event within the limit.
        """
        if self.rest:
            data = self.rest + data
        if b"\r" not in data:
            parts = data.split(b"\n\n")
            self.rest = parts.pop()
            events = [_parse_lf(part + b"\n\n") for part in parts]
        else:
            events = self._feed_any(data)
        if len(self.rest) > self._max:
            raise EventTooLarge
        return events

    def _feed_any(self, data: bytes) -> list[Event]:
        """Cut where lines may end in CR; an end that the next byte may prolong waits for it."""
        events = []
        start = 0
        for match in _END.finditer(data):
            end = match.end()
            if end == len(data) and data.endswith(b"\r"):
                break
            events.append(parse_event(data[start:end]))
            start = end
        self.rest = data[start:]
        return events

    def last(self) -> Event:
        """Return what is left at the end of the body as if an empty line followed."""
        return parse_event(self.rest)


def framed_event(read: bytes) -> bytes | None:
    """Return the data of an event that is all of an HTTP chunk that is all of a read.

    An engine sends one token so, which makes this the shape of nearly every read of a stream. It is
    what taking apart first the chunk (RFC 9112, 7.1) and then the event comes to.

    Args:
        read: What begins at the beginning of a chunk.

    Returns:
        The event's only line of data; None if the read is anything else, or may be.
    """
    at = read.find(b"\r\ndata: ")
    last = len(read) - 4
    if (
        read[:at] == b"%x" % (last - at)
        and read.endswith(b"\n\n\r\n")
        and read.find(b"\n", at + 2) == last
        and read.find(b"\r", at + 1) == last + 2
    ):
        return read[at + 8 : last] or None
    return None


def _parse_lf(raw: bytes) -> Event:
    """Read an event without any CR; most have a single line."""
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:
        return Event(raw, b"", raw[6:-2] or None)
    return parse_event(raw)


def parse_event(raw: bytes) -> Event:
    """Read one event's fields."""
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        field, colon, value = line.partition(b":")
        if not colon and not field:
            continue
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(raw, name, b"\n".join(data) or None)


class LineCutter:
    """Splits an `application/x-ndjson` body.

    Args:
        max_event_bytes: Longest line that is taken for one.
    """

    __slots__ = ("_max", "rest")

    def __init__(self, max_event_bytes: int) -> None:
        self._max = max_event_bytes
        self.rest = b""

    def alone(self, data: bytes) -> bytes | None:
        """Return the line that these bytes are, no more and no less; None if they are not."""
        if self.rest or data.find(b"\n") != len(data) - 1:
            return None
        return data.strip() or None

    def feed(self, data: bytes) -> list[Event]:
        """Return the lines that these bytes complete, as events without a name.

        Raises:
            EventTooLarge: There is no end of a line within the limit.
        """
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        if len(self.rest) > self._max:
            raise EventTooLarge
        return [Event(line + b"\n", b"", line.strip() or None) for line in lines]

    def last(self) -> Event:
        """Return what is left at the end of the body as if a line feed followed."""
        return Event(self.rest, b"", self.rest.strip() or None)
