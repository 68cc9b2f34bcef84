from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.audio_api.wav import Format
from synapse_gateway.proxy.dialects import ChatDialect, OllamaDialect
from synapse_gateway.proxy.events import EventCutter, LineCutter
from synapse_gateway.proxy.readers import (
    SoundReader,
    StreamReader,
    TranslatingReader,
    WholeBody,
)
from synapse_gateway.routing.outcome import Outcome
from tests.proxy.support import DONE, FINISH, WORDS
from tests.proxy.test_events import CUTS, pieces

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 1 << 16
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
UMLAUT = 'data: {"choices":[{"index":0,"delta":{"content":"grüße 😀"}}]}\r\n\r\n'.encode()
PING = b": ping\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
ERROR = b'data: {"error":{"message":"no"}}\n\n'
HALF = b'data: {"choices":[{"del\n\n'
GOOD = ROLE + PING + WORDS + UMLAUT + FINISH + USAGE + DONE


def chat(
    *, strip_usage: bool = False, rewrite: Callable[[bytes], bytes] | None = None
) -> StreamReader:
    return StreamReader(EventCutter(LIMIT), ChatDialect(), strip_usage=strip_usage, rewrite=rewrite)


def through(reader: StreamReader | SoundReader, data: bytes, cuts: list[int]) -> bytes:
    """Return what a caller gets of a body, its end included."""
    out = b""
    for piece in pieces(data, cuts):
        out += reader.feed(piece)
        if reader.failure is not None:
            return out
    return out + reader.end()


@given(cuts=CUTS)
def test_a_good_stream_passes_byte_for_byte(cuts: list[int]) -> None:
    reader = chat()
    assert through(reader, GOOD, cuts) == GOOD
    assert (reader.failure, reader.content) == (None, True)
    assert (reader.dialect.tokens_in, reader.dialect.tokens_out) == (9, 4)


@given(cuts=CUTS)
def test_only_the_usage_that_nobody_asked_for_is_taken_out(cuts: list[int]) -> None:
    reader = chat(strip_usage=True)
    assert through(reader, GOOD, cuts) == GOOD.replace(USAGE, b"")
    assert reader.dialect.tokens_out == 4


@given(cuts=CUTS)
def test_every_event_can_be_rewritten(cuts: list[int]) -> None:
    reader = chat(rewrite=bytes.upper)
    assert through(reader, GOOD, cuts) == GOOD.upper()


@pytest.mark.parametrize(
    ("fault", "outcome"), [(ERROR, Outcome.ERROR_EVENT), (HALF, Outcome.MALFORMED_EVENT)]
)
@given(cuts=CUTS)
def test_a_failing_event_and_all_behind_it_are_kept_back(
    fault: bytes, outcome: Outcome, cuts: list[int]
) -> None:
    reader = chat()
    assert through(reader, ROLE + WORDS + fault + WORDS + DONE, cuts) == ROLE + WORDS
    assert reader.failure is outcome


@given(cuts=CUTS, kept=st.integers(0, len(GOOD) - len(FINISH + USAGE + DONE)))
def test_a_stream_that_breaks_off_never_leaves_half_an_event(cuts: list[int], kept: int) -> None:
    reader = chat()
    out = through(reader, GOOD[:kept], cuts)
    assert reader.failure is Outcome.CUT
    assert GOOD.startswith(out)
    assert not out or out.endswith((b"\n\n", b"\r\n\r\n"))


def test_content_begins_with_the_first_word() -> None:
    reader = chat()
    reader.feed(ROLE + PING)
    assert not reader.content
    reader.feed(WORDS)
    assert reader.content


def test_a_proper_end_without_a_word_is_content_enough() -> None:
    reader = chat()
    reader.feed(FINISH)
    reader.feed(DONE)
    assert reader.content


def test_the_end_of_nothing_is_no_content() -> None:
    reader = chat()
    reader.feed(DONE)
    assert not reader.content
    assert reader.end() == b""
    assert reader.failure is Outcome.CUT


def test_an_event_without_end_is_malformed() -> None:
    reader = chat()
    assert reader.feed(b"data: " + b"x" * LIMIT) == b""
    assert reader.failure is Outcome.MALFORMED_EVENT


@pytest.mark.parametrize(
    "end", [b"", b"\n", b"\r\n", b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r"]
)
def test_a_last_line_without_its_empty_line_is_passed_on(end: bytes) -> None:
    reader = chat()
    assert through(reader, WORDS + FINISH + end, []) == WORDS + FINISH + end
    assert reader.failure is None


def test_a_done_that_ends_the_body_ends_the_stream() -> None:
    reader = chat()
    assert through(reader, WORDS + b"data: [DONE]\n", []) == WORDS + b"data: [DONE]\n"
    assert reader.failure is None


@pytest.mark.parametrize("rest", [b"data: [DO", b"data: {", b": pi", WORDS[:-1]])
def test_half_an_event_behind_the_end_is_dropped(rest: bytes) -> None:
    reader = chat()
    assert through(reader, WORDS + FINISH + DONE + rest, []) == WORDS + FINISH + DONE
    assert reader.failure is None


def test_lines_of_ollama_pass_and_the_last_one_needs_no_end() -> None:
    body = b'{"response":"a"}\n{"response":"","done":true}'
    reader = StreamReader(LineCutter(LIMIT), OllamaDialect(), strip_usage=False)
    assert through(reader, body, [5, 20]) == body
    assert reader.failure is None


def test_a_stream_of_ollama_without_its_last_line_is_cut() -> None:
    reader = StreamReader(LineCutter(LIMIT), OllamaDialect(), strip_usage=False)
    assert through(reader, b'{"response":"a"}\n{"done":tr', []) == b'{"response":"a"}\n'
    assert reader.failure is Outcome.CUT


# -- translating


class Shout:
    """Translates by upper case; what holds `bad` cannot be translated."""

    def feed(self, event: bytes) -> bytes:
        if b"bad" in event:
            raise ValueError
        return event.upper() + b"\n"

    def finish(self) -> bytes:
        return b"END\n"


def shouting() -> TranslatingReader:
    return TranslatingReader(EventCutter(LIMIT), ChatDialect(), Shout())


@given(cuts=CUTS)
def test_every_event_is_translated_and_the_end_added(cuts: list[int]) -> None:
    reader = shouting()
    body = PING + WORDS + FINISH + DONE
    data = [part[6:-2].upper() + b"\n" for part in (WORDS, FINISH)]
    assert through(reader, body, cuts) == b"".join(data) + b"END\n"
    assert reader.content


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param(ERROR, Outcome.ERROR_EVENT, id="error"),
        pytest.param(HALF, Outcome.MALFORMED_EVENT, id="malformed"),
        pytest.param(WORDS.replace(b"word", b"bad"), Outcome.MALFORMED_EVENT, id="translator"),
        pytest.param(b"x" * (LIMIT + 1), Outcome.MALFORMED_EVENT, id="too-large"),
    ],
)
def test_a_translated_stream_fails_as_any_other(fault: bytes, outcome: Outcome) -> None:
    reader = shouting()
    before = reader.feed(WORDS)
    assert before
    assert reader.feed(fault) == b""
    assert reader.failure is outcome


def test_a_translated_stream_that_is_cut_gets_no_end() -> None:
    reader = shouting()
    reader.feed(WORDS)
    assert reader.end() == b""
    assert reader.failure is Outcome.CUT


# -- whole answers


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        pytest.param(b'{"choices":[]}', None, id="good"),
        pytest.param(b'{"error":null}', None, id="null-error"),
        pytest.param(b'{"error":{"message":"no"}}', Outcome.ERROR_FIRST, id="error"),
        pytest.param(b'{"error":"no"}', Outcome.ERROR_FIRST, id="error-text"),
        pytest.param(b"[1,2]", None, id="list"),
        pytest.param(b'{"usage":"odd"}', None, id="odd-usage"),
        pytest.param(b'{"choices":[', Outcome.MALFORMED, id="half"),
        pytest.param(b'{"usage":"odd"', Outcome.MALFORMED, id="odd-and-half"),
        pytest.param(b"[1,", Outcome.MALFORMED, id="half-a-list"),
        pytest.param(b"<html>", Outcome.MALFORMED, id="html"),
        pytest.param(b"", Outcome.MALFORMED, id="nothing"),
    ],
)
def test_what_a_whole_answer_is(body: bytes, failure: Outcome | None) -> None:
    assert WholeBody(body).failure is failure


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        (b'{"usage":{"prompt_tokens":3,"completion_tokens":4}}', (3, 4)),
        (b'{"usage":{"input_tokens":3,"output_tokens":4}}', (3, 4)),
        (b'{"usage":{"prompt_tokens":3,"total_tokens":3}}', (3, 0)),
        (b'{"usage":{"total_tokens":5}}', (5, 0)),
        (b'{"usage":{}}', (0, 0)),
        (b'{"prompt_eval_count":3,"eval_count":4}', (3, 4)),
        (b"{}", (0, 0)),
    ],
)
def test_what_a_whole_answer_cost(body: bytes, tokens: tuple[int, int]) -> None:
    whole = WholeBody(body)
    assert (whole.tokens_in, whole.tokens_out) == tokens


# -- sound

FORMAT = Format(coding=1, channels=1, rate=16000, bits=16)
OTHER = FORMAT._replace(rate=22050)


@given(cuts=CUTS, samples=st.binary(min_size=1, max_size=50).map(lambda half: half * 2))
def test_samples_are_given_however_they_arrive(cuts: list[int], samples: bytes) -> None:
    for head in (FORMAT.head(None), FORMAT.head(len(samples))):
        reader = SoundReader(lambda found: found == FORMAT, 0)
        assert through(reader, head + samples, cuts) == samples
        assert (reader.failure, reader.content, reader.format) == (None, True, FORMAT)


def test_a_sound_of_another_format_is_not_taken() -> None:
    reader = SoundReader(lambda found: found == FORMAT, 0)
    assert through(reader, OTHER.head(2) + b"12", []) == b""
    assert reader.failure is Outcome.MALFORMED_EVENT


def test_a_sound_is_content_once_more_is_there_than_was_to_be_held() -> None:
    reader = SoundReader(lambda _: True, 4)
    reader.feed(FORMAT.head(None) + b"1234")
    assert not reader.content
    reader.feed(b"5")
    assert reader.content
