from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.proxy.connection import whole_chunks
from synapse_gateway.proxy.events import (
    Event,
    EventCutter,
    EventTooLarge,
    LineCutter,
    framed_event,
    parse_event,
)
from tests.proxy.support import chunk

if TYPE_CHECKING:
    from collections.abc import Sequence

LIMIT = 1 << 20
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def cut(data: bytes, cuts: Sequence[int] = (), cutter: Any = None) -> tuple[list[Event], bytes]:
    """Return the events and what is left."""
    cutter = cutter or EventCutter(LIMIT)
    events = [event for piece in pieces(data, cuts) for event in cutter.feed(piece)]
    return events, cutter.rest


def by_the_standard(data: bytes) -> list[tuple[bytes, bytes]]:
    """Read a stream as the HTML standard (9.2.6) has it, line by line: (event, data)."""
    found: list[tuple[bytes, bytes]] = []
    lines = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))[:-1]
    name, values = b"", list[bytes]()
    for line in lines:
        if not line:
            if b"\n".join(values):
                found.append((name, b"\n".join(values)))
            name, values = b"", []
            continue
        field, _, value = line.partition(b":")
        if field == b"data":
            values.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return found


ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
FIELDS = st.sampled_from(
    [
        b"data: alpha",
        b"data:beta",
        b"data:  two spaces",
        b"data",
        b"data:",
        "data: grüße 日本 😀".encode(),
        b'data: {"a": "b: c"}',
        b"data: [DONE]",
        b": a comment",
        b":",
        b"event: error",
        b"event:x",
        b"id: 7",
        b"retry: 10",
        b"database: no",
        b"",
        b"",
    ]
)
ONE_ENDING = st.builds(
    lambda lines, end: end.join([*lines, b"data: last", b"", b""]), st.lists(FIELDS), ENDS
)
ANY_ENDINGS = st.lists(st.tuples(FIELDS, ENDS)).map(
    lambda lines: b"".join(line + end for line, end in lines) + b"data: last\n\n"
)
STREAMS = st.one_of(ONE_ENDING, ANY_ENDINGS)


@given(data=STREAMS, cuts=CUTS)
def test_events_do_not_depend_on_how_they_arrive(data: bytes, cuts: list[int]) -> None:
    assert cut(data, cuts) == cut(data)


@given(data=st.binary(max_size=200), cuts=CUTS)
def test_no_byte_is_lost_or_made_up(data: bytes, cuts: list[int]) -> None:
    events, rest = cut(data, cuts)
    assert b"".join(event.raw for event in events) + rest == data


@given(data=ANY_ENDINGS, cuts=CUTS)
def test_events_are_those_of_the_standard(data: bytes, cuts: list[int]) -> None:
    events, rest = cut(data, cuts)
    assert rest == b""
    assert [(e.name, e.data) for e in events if e.data is not None] == by_the_standard(data)


@given(data=STREAMS)
def test_a_byte_at_a_time_is_enough(data: bytes) -> None:
    assert cut(data, range(len(data))) == cut(data)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_an_event_is_there_as_soon_as_its_last_byte_is(end: bytes) -> None:
    cutter = EventCutter(LIMIT)
    raw = b"data: a" + end + end
    assert cutter.feed(raw[:-1]) == []
    assert [event.raw for event in cutter.feed(raw[-1:])] == [raw]


def test_a_lone_cr_waits_for_what_follows_it() -> None:
    cutter = EventCutter(LIMIT)
    assert cutter.feed(b"data: a\r\r") == []
    assert [event.raw for event in cutter.feed(b"\ndata: b\r\r\n")] == [
        b"data: a\r\r\n",
        b"data: b\r\r\n",
    ]


@pytest.mark.parametrize(
    ("raw", "name", "data"),
    [
        pytest.param(b"data: x\n\n", b"", b"x", id="one-line"),
        pytest.param(b"data:x\n\n", b"", b"x", id="no-space"),
        pytest.param(b"data:  x\n\n", b"", b" x", id="two-spaces"),
        pytest.param(b"data: a\ndata: b\n\n", b"", b"a\nb", id="two-lines"),
        pytest.param(b"event: error\ndata: x\n\n", b"error", b"x", id="named"),
        pytest.param(b"data: x\r\nevent: e\r\n\r\n", b"e", b"x", id="crlf"),
        pytest.param(b"data: x\r\n\n", b"", b"x", id="mixed"),
        pytest.param(b"\xef\xbb\xbfdata: x\n\n", b"", b"x", id="byte-order-mark"),
        pytest.param(b": ping\n\n", b"", None, id="comment"),
        pytest.param(b"id: 1\nretry: 5\n\n", b"", None, id="no-data"),
        pytest.param(b"data:\n\n", b"", None, id="empty-data"),
        pytest.param(b"data: \n\n", b"", None, id="blank-data"),
        pytest.param(b"data\ndata\n\n", b"", b"\n", id="bare-fields"),
        pytest.param(b"\n\n", b"", None, id="nothing"),
    ],
)
def test_an_events_fields(raw: bytes, name: bytes, data: bytes | None) -> None:
    assert parse_event(raw) == Event(raw, name, data)
    assert cut(raw) == ([Event(raw, name, data)], b"")


@given(data=st.one_of(STREAMS, st.binary(max_size=40).map(lambda data: b"data: " + data + b"\n\n")))
def test_an_event_alone_is_the_only_one(data: bytes) -> None:
    alone = EventCutter(LIMIT).alone(data)
    if alone is not None:
        assert cut(data) == ([Event(data, b"", alone)], b"")


@pytest.mark.parametrize(
    ("data", "alone"),
    [
        (b'data: {"a":1}\n\n', b'{"a":1}'),
        (b"data: a\n\ndata: b\n\n", None),
        (b"data: a\ndata: b\n\n", None),
        (b"data: a\n", None),
        (b"data: a\rb\n\n", None),
        (b"data: \n\n", None),
        (b"\n\n", None),
        (b": ping\n\n", None),
    ],
)
def test_the_plainest_events_are_told_at_once(data: bytes, alone: bytes | None) -> None:
    assert EventCutter(LIMIT).alone(data) == alone


def chunk_and_event(read: bytes) -> bytes | None:
    """Return what taking apart first the chunk and then the event comes to."""
    chunks = whole_chunks(read)
    return EventCutter(LIMIT).alone(chunks[0]) if chunks and len(chunks) == 1 else None


ALONE = st.one_of(
    st.binary(max_size=40),
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\ndata: ", b" "]), max_size=5).map(b"".join),
).map(lambda line: chunk(b"data: " + line + b"\n\n"))


@given(read=st.one_of(ALONE, STREAMS.filter(bool).map(chunk), st.lists(ALONE).map(b"".join)))
def test_an_event_in_a_chunk_of_its_own_is_told_in_one_step(read: bytes) -> None:
    assert framed_event(read) == chunk_and_event(read)


FRAMED = chunk(b'data: {"a":1}\n\n')


@pytest.mark.parametrize(
    "read",
    [
        pytest.param(FRAMED[:-1], id="cut"),
        pytest.param(FRAMED + b"\r\n", id="and-an-empty-line"),
        pytest.param(FRAMED + FRAMED, id="two"),
        pytest.param(b"0\r\n\r\n", id="the-last-chunk"),
        pytest.param(FRAMED.replace(b"f", b"F", 1), id="size-in-upper-case"),
        pytest.param(b"0" + FRAMED, id="a-zero-before-the-size"),
        pytest.param(FRAMED.replace(b"\r\n", b";a=b\r\n", 1), id="an-extension"),
        pytest.param(FRAMED.replace(b"f", b"e", 1), id="another-size"),
        pytest.param(chunk(b"data:1\n\n"), id="no-blank"),
        pytest.param(chunk(b": ping\n\n"), id="a-comment"),
        pytest.param(chunk(b"event: a\ndata: b\n\n"), id="a-name"),
        pytest.param(b"", id="nothing"),
    ],
)
def test_anything_else_is_no_event_in_a_chunk_of_its_own(read: bytes) -> None:
    assert FRAMED.startswith(b"f\r\n")
    assert framed_event(FRAMED) == b'{"a":1}'
    assert framed_event(read) is None


def test_an_event_behind_half_of_another_is_not_alone() -> None:
    cutter = EventCutter(LIMIT)
    cutter.feed(b"data: a")
    assert cutter.alone(b"data: b\n\n") is None


def test_what_is_left_at_the_end_reads_as_an_event() -> None:
    cutter = EventCutter(LIMIT)
    cutter.feed(b"data: a\n\ndata: [DONE]\n")
    assert cutter.last() == Event(b"data: [DONE]\n", b"", b"[DONE]")


def test_an_event_without_end_is_given_up_at_the_limit() -> None:
    cutter = EventCutter(100)
    assert cutter.feed(b"data: " + b"x" * 94) == []
    with pytest.raises(EventTooLarge):
        cutter.feed(b"x")


def test_many_events_in_one_read_may_be_more_than_the_limit() -> None:
    events, _ = cut(b"data: x\n\n" * 100, cutter=EventCutter(100))
    assert len(events) == 100


# -- lines


LINES = st.lists(
    st.sampled_from([b'{"done":false}', b"", b"  ", "grüße".encode(), b'{"a":1}\r'])
).map(lambda lines: b"".join(line + b"\n" for line in lines))


@given(data=LINES, cuts=CUTS)
def test_lines_do_not_depend_on_how_they_arrive(data: bytes, cuts: list[int]) -> None:
    events, rest = cut(data, cuts, LineCutter(LIMIT))
    assert (events, rest) == cut(data, cutter=LineCutter(LIMIT))
    assert b"".join(event.raw for event in events) + rest == data


def test_a_line_is_an_event_without_a_name() -> None:
    events, rest = cut(b'{"a":1}\r\n\n{"b', cutter=LineCutter(LIMIT))
    assert events == [Event(b'{"a":1}\r\n', b"", b'{"a":1}'), Event(b"\n", b"", None)]
    assert rest == b'{"b'


@pytest.mark.parametrize(
    ("data", "alone"),
    [(b'{"a":1}\r\n', b'{"a":1}'), (b"a\nb\n", None), (b"a", None), (b"\n", None), (b"", None)],
)
def test_a_line_alone_is_told_at_once(data: bytes, alone: bytes | None) -> None:
    cutter = LineCutter(LIMIT)
    assert cutter.alone(data) == alone
    cutter.feed(b"half")
    assert cutter.alone(data) is None


def test_the_last_line_needs_no_end() -> None:
    cutter = LineCutter(LIMIT)
    cutter.feed(b'{"a":1}\n{"b":2} ')
    assert cutter.last() == Event(b'{"b":2} ', b"", b'{"b":2}')
    assert LineCutter(LIMIT).last().data is None


def test_a_line_without_end_is_given_up_at_the_limit() -> None:
    cutter = LineCutter(10)
    assert cutter.feed(b"x" * 10) == []
    with pytest.raises(EventTooLarge):
        cutter.feed(b"x")
