"""One attempt, its connection's callbacks called by hand and its clock turned by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.audio_api.wav import Format
from synapse_gateway.config.defaults import ResolvedTimeouts
from synapse_gateway.config.settings import Backend, Limits, Model, Settings, Target
from synapse_gateway.errors import Unavailable
from synapse_gateway.proxy import attempt as module
from synapse_gateway.proxy.attempt import AFTER_END, Attempt
from synapse_gateway.proxy.connection import Broken, whole_chunks
from synapse_gateway.proxy.deadlines import Deadlines
from synapse_gateway.proxy.dialects import OllamaDialect
from synapse_gateway.proxy.events import EventCutter
from synapse_gateway.proxy.readers import SoundReader, StreamReader
from synapse_gateway.routing.outcome import Outcome
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.telemetry.record import AttemptRecord
from tests.proxy.support import (
    DONE,
    EVENT_STREAM,
    FINISH,
    JSON,
    WORDS,
    Clock,
    FakeCaller,
    FakeConnection,
    chat_form,
    chunk,
    request_for,
)
from tests.routing.support import fleet_of

if TYPE_CHECKING:
    from synapse_gateway.proxy.connection import Headers

ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
AUDIO: Headers = [(b"content-type", b"audio/mpeg"), (b"content-length", b"6")]
GOOD = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}'
TIMEOUTS = ResolvedTimeouts(
    connect=1.0, first_token=10.0, first_byte=40.0, between_tokens=5.0, overall=100.0
)


class Trial:
    """An attempt that has been sent."""

    def __init__(
        self, clock: Clock, *, stream: bool = False, limits: Any = None, **form: Any
    ) -> None:
        self.clock = clock
        self.caller = FakeCaller()
        self.connection = FakeConnection()
        settings = Settings(
            backends={"b": Backend(url="http://b")},
            models={"m": Model(targets=(Target(backend="b"),))},
        )
        route = RouteTable(settings, fleet_of(settings)).models["m"]
        self.request = request_for(route, clock.now, stream=stream, deadline=clock.now + 100.0)
        self.record = AttemptRecord(backend="b", model="m", order=1, started=clock.now)
        self.attempt = Attempt(
            self.request,
            chat_form(**form),
            self.caller,
            self.record,
            TIMEOUTS,
            limits or Limits(),
            Deadlines(),
            lambda: [(b"x-request-id", b"r1")],
        )
        connection: Any = self.connection
        self.attempt.begin(connection, b"HEAD", b"BODY")

    def head(self, status: int = 200, headers: Headers = EVENT_STREAM) -> None:
        self.attempt.on_head(status, list(headers))

    def body(self, *parts: bytes) -> None:
        for part in parts:
            self.attempt.on_body(part)

    def chunks(self, *chunks: bytes) -> None:
        self.attempt.on_chunks(b"".join(map(chunk, chunks)), list(chunks))

    def reads(self, *reads: bytes) -> None:
        """Let reads arrive that are whole chunks, as a connection hands them on."""
        for read in reads:
            if not self.attempt.relay(read):
                chunks = whole_chunks(read)
                assert chunks is not None
                self.attempt.on_chunks(read, chunks)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.attempt.check(self.clock.now)

    @property
    def outcome(self) -> Outcome | None:
        return self.attempt.done.result() if self.attempt.done.done() else None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


# -- streams


async def test_the_head_is_held_until_there_is_a_word(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(b": ping\n\n", ROLE)
    assert not trial.caller.status
    clock.now += 2
    trial.body(WORDS)
    assert (trial.caller.status, trial.caller.length) == (200, None)
    assert trial.caller.parts == [b": ping\n\n" + ROLE + WORDS]
    assert trial.record.first_content == trial.request.record.first_content == clock.now


async def test_chunks_pass_one_by_one_and_the_end_is_proper(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(WORDS, WORDS[:20], WORDS[20:], FINISH, DONE)
    trial.attempt.on_end()
    assert trial.caller.parts == [WORDS, WORDS, FINISH, DONE]
    assert (trial.caller.ending, trial.outcome) == ("finished", Outcome.OK)
    assert trial.request.record.bytes_out == len(trial.caller.body)
    assert not trial.connection.left


async def test_whole_chunks_keep_their_framing(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.chunks(ROLE)
    trial.chunks(WORDS)
    clock.now += 2
    trial.chunks(WORDS, FINISH)
    trial.chunks(DONE)
    trial.attempt.on_end()
    assert trial.caller.framed == [chunk(WORDS) + chunk(FINISH), chunk(DONE)]
    assert trial.caller.parts == [ROLE + WORDS, WORDS, FINISH, DONE]
    assert trial.request.record.bytes_out == len(trial.caller.body)
    assert (trial.record.last_byte, trial.outcome) == (clock.now, Outcome.OK)


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'


@pytest.mark.parametrize(
    "events",
    [
        pytest.param((ROLE, WORDS, WORDS, FINISH, USAGE, DONE), id="whole"),
        pytest.param((WORDS, WORDS, FINISH, WORDS, FINISH, DONE, WORDS), id="behind-the-end"),
        pytest.param((WORDS, b": ping\n\n", WORDS, FINISH, DONE), id="comment"),
        pytest.param((WORDS, WORDS[:9], WORDS[9:], WORDS, FINISH, DONE), id="parts"),
        pytest.param((WORDS, WORDS[:9], WORDS, FINISH, DONE), id="half"),
        pytest.param((WORDS, WORDS), id="cut"),
        pytest.param((WORDS, WORDS, b'data: {"error":{"message":"no"}}\n\n'), id="error"),
        pytest.param((WORDS, WORDS, b"data: {\n\n"), id="malformed"),
    ],
)
async def test_a_read_of_one_event_is_relayed_as_all_others_are_passed(
    clock: Clock, events: tuple[bytes, ...]
) -> None:
    relayed, passed = (Trial(clock, stream=True, strip_usage=True) for _ in range(2))
    for trial in (relayed, passed):
        trial.head()
    for event in events:
        clock.now += 1
        relayed.reads(chunk(event))
        passed.chunks(event)
    for trial in (relayed, passed):
        if trial.outcome is None:
            trial.attempt.on_end()
    assert relayed.caller.parts == passed.caller.parts
    assert relayed.caller.framed == passed.caller.framed
    assert relayed.caller.ending == passed.caller.ending
    assert relayed.outcome is passed.outcome
    assert relayed.record == passed.record
    assert relayed.request.record == passed.request.record


async def test_only_what_is_sent_on_as_it_came_is_relayed(clock: Clock) -> None:
    event = chunk(WORDS)
    trial = Trial(clock, stream=True)
    assert not trial.attempt.relay(event)
    trial.head()
    assert not trial.attempt.relay(event)
    trial.chunks(WORDS)
    assert trial.attempt.relay(event)
    assert trial.caller.framed == [event]


async def test_lines_are_not_relayed_as_events(clock: Clock) -> None:
    trial = Trial(clock, stream=True, dialect=OllamaDialect)
    trial.head(headers=[(b"content-type", b"application/x-ndjson")])
    trial.chunks(b'{"response":"a"}\n')
    assert not trial.attempt.relay(chunk(b'{"response":"a"}\n'))
    assert not trial.attempt.relay(chunk(WORDS))


async def test_a_caller_who_gets_no_chunks_is_relayed_none(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.caller.sender = lambda: None  # type: ignore[method-assign]
    trial.head()
    trial.reads(chunk(WORDS), chunk(WORDS))
    assert not trial.attempt.relay(chunk(WORDS))
    assert trial.caller.parts == [WORDS, WORDS]


async def test_a_relayed_event_is_a_sign_of_life(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.reads(chunk(WORDS))
    for _ in range(3):
        trial.wait(TIMEOUTS.between_tokens - 1)
        trial.reads(chunk(WORDS))
    assert trial.outcome is None
    trial.wait(TIMEOUTS.between_tokens)
    assert trial.outcome is Outcome.STALLED


async def test_of_whole_chunks_that_change_the_others_stay_what_they_are(clock: Clock) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}\n\n'
    trial = Trial(clock, stream=True, strip_usage=True)
    trial.head()
    trial.chunks(WORDS)
    trial.chunks(FINISH, usage, DONE)
    assert trial.caller.parts == [WORDS, FINISH, DONE]
    assert trial.caller.framed == []
    assert trial.request.record.bytes_out == len(trial.caller.body)


async def test_whole_chunks_may_hold_parts_of_events(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.chunks(WORDS)
    trial.chunks(WORDS[:9], WORDS[9:], WORDS)
    assert trial.caller.parts == [WORDS, WORDS, WORDS]
    assert trial.caller.framed == []


async def test_whole_chunks_of_anything_else_pass_one_by_one(clock: Clock) -> None:
    trial = Trial(clock, expects_json=False)
    trial.head(headers=[(b"content-type", b"audio/mpeg")])
    trial.chunks(b"ID3", b"abc")
    assert trial.caller.parts == [b"ID3", b"abc"]


async def test_what_stands_behind_the_end_passes_too(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(WORDS + FINISH + b"data: [DONE]\n")
    trial.attempt.on_end()
    assert trial.caller.body == WORDS + FINISH + b"data: [DONE]\n"


async def test_a_stream_of_no_words_that_ends_properly_is_an_answer(clock: Clock) -> None:
    trial = Trial(clock, stream=True, dialect=OllamaDialect)
    trial.head(headers=[(b"content-type", b"application/x-ndjson")])
    trial.body(b'{"done":true}')
    trial.attempt.on_end()
    assert (trial.caller.body, trial.outcome) == (b'{"done":true}', Outcome.OK)


async def test_headers_of_a_backend_that_tell_where_it_is_stay_behind(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head(headers=[*EVENT_STREAM, (b"server", b"uvicorn"), (b"cache-control", b"no-cache")])
    trial.body(WORDS)
    assert trial.caller.headers == [
        (b"x-request-id", b"r1"),
        *EVENT_STREAM,
        (b"cache-control", b"no-cache"),
        (b"x-accel-buffering", b"no"),
    ]


async def test_a_form_may_name_reader_and_content_type(clock: Clock) -> None:
    def reader(dialect: Any, largest: int) -> StreamReader:
        return StreamReader(EventCutter(largest), dialect, strip_usage=False, rewrite=bytes.upper)

    trial = Trial(clock, stream=True, reader=reader, content_type=b"application/x-ndjson")
    trial.head()
    trial.body(WORDS)
    assert trial.caller.body == WORDS.upper()
    assert trial.caller.header(b"content-type") == b"application/x-ndjson"


async def test_a_stream_of_an_unknown_kind_passes_as_it_is(clock: Clock) -> None:
    trial = Trial(clock, stream=True, dialect=None, expects_json=False)
    trial.head()
    trial.body(b"data: hal")
    assert trial.caller.body == b"data: hal"
    trial.attempt.on_end()
    assert (trial.caller.ending, trial.outcome) == ("finished", Outcome.OK)


async def test_a_stream_where_json_was_asked_for_is_malformed(clock: Clock) -> None:
    trial = Trial(clock, dialect=None)
    trial.head()
    trial.body(WORDS + DONE)
    trial.attempt.on_end()
    assert (trial.outcome, trial.caller.status) == (Outcome.MALFORMED, 0)


async def test_a_compressed_answer_passes_as_it_is(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head(headers=[*EVENT_STREAM, (b"content-encoding", b"gzip")])
    trial.body(b"\x1f\x8b")
    assert trial.caller.header(b"content-encoding") == b"gzip"
    identity = Trial(clock, stream=True)
    identity.head(headers=[*EVENT_STREAM, (b"content-encoding", b"Identity")])
    identity.body(ROLE)
    assert not identity.caller.status, "identity is no compression"


async def test_a_compressed_answer_cannot_be_translated(clock: Clock) -> None:
    trial = Trial(clock, stream=True, refused=lambda _status, body: body)
    trial.head(headers=[*EVENT_STREAM, (b"content-encoding", b"gzip")])
    assert (trial.outcome, trial.caller.status) == (Outcome.MALFORMED, 0)


@pytest.mark.parametrize(
    ("sent", "before", "after"),
    [
        pytest.param(
            b'data: {"error":{}}\n\n', Outcome.ERROR_FIRST, Outcome.ERROR_EVENT, id="error"
        ),
        pytest.param(b"data: {half\n\n", Outcome.MALFORMED, Outcome.MALFORMED_EVENT, id="half"),
    ],
)
async def test_a_failing_event_is_never_shown(
    clock: Clock, sent: bytes, before: Outcome, after: Outcome
) -> None:
    unseen, seen = Trial(clock, stream=True), Trial(clock, stream=True)
    unseen.head()
    unseen.body(ROLE, WORDS[:9], WORDS[9:] + sent)
    assert (unseen.outcome, unseen.caller.status) == (before, 0), "though there was a word before"
    seen.head()
    seen.body(WORDS, WORDS + sent)
    assert (seen.outcome, seen.caller.body) == (after, WORDS + WORDS)
    assert seen.caller.ending == "", "how it ends is for the exchange to say"
    assert unseen.connection.left
    assert seen.connection.left


@pytest.mark.parametrize("before", [b"", WORDS])
async def test_nothing_behind_a_failing_event_is_looked_at(clock: Clock, before: bytes) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.chunks(before or ROLE)
    trial.chunks(WORDS, b'data: {"error":{}}\n\n', WORDS, DONE)
    assert trial.outcome in {Outcome.ERROR_EVENT, Outcome.ERROR_FIRST}
    assert trial.caller.parts in ([WORDS, WORDS], [ROLE + WORDS])
    assert trial.connection.left


async def test_a_stream_that_ends_early_is_empty_or_cut(clock: Clock) -> None:
    empty, cut = Trial(clock, stream=True), Trial(clock, stream=True)
    empty.head()
    empty.body(ROLE)
    empty.attempt.on_end()
    cut.head()
    cut.body(WORDS)
    cut.attempt.on_end()
    assert (empty.outcome, cut.outcome) == (Outcome.EMPTY, Outcome.CUT)
    assert (empty.caller.status, cut.caller.ending) == (0, "")


async def test_a_stream_of_nothing_but_comments_is_given_up(clock: Clock) -> None:
    trial = Trial(clock, stream=True, limits=Limits(max_event_bytes=100))
    trial.head()
    trial.body(*[b": ping\n\n"] * 13)
    assert trial.outcome is Outcome.MALFORMED
    assert not trial.caller.status


# -- whole answers


async def test_a_whole_answer_is_sent_when_it_is_whole(clock: Clock) -> None:
    trial = Trial(clock)
    trial.head(headers=JSON)
    trial.body(GOOD[:10], GOOD[10:])
    assert not trial.caller.status
    trial.attempt.on_end()
    assert (trial.caller.status, trial.caller.body, trial.caller.ending) == (200, GOOD, "whole")
    record = trial.request.record
    assert (record.tokens_in, record.tokens_out, record.bytes_out) == (3, 2, len(GOOD))


async def test_a_whole_answer_can_be_changed(clock: Clock) -> None:
    trial = Trial(clock, whole=bytes.upper)
    trial.head(headers=JSON)
    trial.body(GOOD)
    trial.attempt.on_end()
    assert trial.caller.body == GOOD.upper()


async def test_one_that_cannot_be_changed_is_malformed(clock: Clock) -> None:
    def fail(_: bytes) -> bytes:
        raise ValueError

    trial = Trial(clock, whole=fail)
    trial.head(headers=JSON)
    trial.body(GOOD)
    trial.attempt.on_end()
    assert (trial.outcome, trial.caller.status) == (Outcome.MALFORMED, 0)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error":{"message":"no"}}', Outcome.ERROR_FIRST),
        (b'{"choices":[', Outcome.MALFORMED),
        (b"", Outcome.EMPTY),
    ],
)
async def test_a_whole_answer_that_is_none_is_not_shown(
    clock: Clock, body: bytes, outcome: Outcome
) -> None:
    trial = Trial(clock)
    trial.head(headers=JSON)
    if body:
        trial.body(body)
    trial.attempt.on_end()
    assert (trial.outcome, trial.caller.status) == (outcome, 0)


async def test_no_content_is_an_answer(clock: Clock) -> None:
    trial = Trial(clock)
    trial.head(204, [])
    trial.attempt.on_end()
    assert (trial.caller.status, trial.caller.body, trial.outcome) == (204, b"", Outcome.OK)


async def test_an_answer_too_long_to_hold_passes_on_with_its_length(clock: Clock) -> None:
    trial = Trial(clock, limits=Limits(hold_bytes=10))
    trial.head(headers=[*JSON, (b"content-length", b"15")])
    trial.body(b"0123456789")
    assert not trial.caller.status
    trial.body(b"a")
    assert (trial.caller.status, trial.caller.length, trial.caller.body) == (
        200,
        15,
        b"0123456789a",
    )
    trial.body(b"bcde")
    trial.attempt.on_end()
    assert (trial.caller.parts[-1], trial.caller.ending) == (b"bcde", "finished")
    assert trial.request.record.bytes_out == 15


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        pytest.param([b'{"usage":{"prompt_tokens":3},"data":"', b"x" * 9000, b'"}'], 3, id="first"),
        pytest.param(
            [b'{"data":"', b"x" * 9000, b'","usage":{"a":{"b":1},"total_', b'tokens": 7}}'],
            7,
            id="last",
        ),
        pytest.param([b'{"data":"', b"x" * 9000, b'"}'], 0, id="none"),
        pytest.param([b'{"data":"', b"x" * 9000, b'","usage":{"prompt_tokens":"3"}}'], 0, id="odd"),
    ],
)
async def test_tokens_of_an_answer_too_long_to_hold_count_too(
    clock: Clock, body: list[bytes], tokens: int
) -> None:
    trial = Trial(clock, limits=Limits(hold_bytes=1024))
    trial.head(200, JSON)
    trial.body(*body)
    trial.attempt.on_end()
    assert trial.outcome is Outcome.OK
    assert trial.request.record.tokens_in == tokens


async def test_an_answer_that_is_to_be_changed_is_held_however_long(clock: Clock) -> None:
    trial = Trial(clock, limits=Limits(hold_bytes=10), whole=bytes.upper)
    trial.head(headers=JSON)
    trial.body(GOOD)
    assert not trial.caller.status


async def test_audio_passes_as_it_comes(clock: Clock) -> None:
    trial = Trial(clock, expects_json=False)
    trial.head(headers=AUDIO)
    trial.body(b"ID3")
    assert (trial.caller.length, trial.caller.body) == (6, b"ID3")
    trial.body(b"abc")
    trial.attempt.on_end()
    assert (trial.caller.ending, trial.outcome) == ("finished", Outcome.OK)


async def test_json_is_held_though_something_else_was_expected(clock: Clock) -> None:
    trial = Trial(clock, expects_json=False)
    trial.head(headers=JSON)
    trial.body(b'{"error":"no"}')
    trial.attempt.on_end()
    assert trial.outcome is Outcome.ERROR_FIRST


@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"application/x-subrip"])
async def test_audio_of_no_bytes_is_no_answer_but_an_empty_transcript_is(
    clock: Clock, kind: bytes
) -> None:
    audio, text = Trial(clock, expects_json=False), Trial(clock, expects_json=False)
    audio.head(headers=AUDIO)
    audio.attempt.on_end()
    assert (audio.outcome, audio.caller.status) == (Outcome.EMPTY, 0)
    text.head(headers=[(b"content-type", kind)])
    text.attempt.on_end()
    assert (text.outcome, text.caller.ending) == (Outcome.OK, "whole")


# -- refusals


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (302, Outcome.MALFORMED),
        (400, Outcome.CLIENT_ERROR),
        (429, Outcome.THROTTLED),
        (503, Outcome.SERVER_ERROR),
    ],
)
@pytest.mark.parametrize("ending", ["end", "broken", "deadline", "first-byte"])
async def test_a_status_decides_however_its_body_ends(
    clock: Clock, status: int, outcome: Outcome, ending: str
) -> None:
    trial = Trial(clock)
    trial.head(status, JSON)
    trial.body(b'{"error":')
    assert trial.outcome is None
    if ending == "end":
        trial.attempt.on_end()
    elif ending == "broken":
        trial.attempt.on_broken(Broken.CUT)
    else:
        trial.wait(100.0 if ending == "deadline" else 5.0)
    assert trial.outcome is outcome
    assert (trial.attempt.body, trial.caller.status) == (b'{"error":', 0)


async def test_a_long_page_of_an_error_is_not_read_to_its_end(clock: Clock) -> None:
    trial = Trial(clock, limits=Limits(hold_bytes=1024))
    trial.head(500, JSON)
    trial.body(b"x" * 1024)
    assert trial.outcome is None
    trial.body(b"x")
    assert trial.outcome is Outcome.SERVER_ERROR
    assert trial.attempt.oversized
    assert trial.connection.left


# -- behind the end


def ended(clock: Clock, **form: Any) -> Trial:
    """A stream that has said that it is over, but whose body has not ended."""
    trial = Trial(clock, stream=True, **form)
    trial.head()
    trial.body(WORDS, FINISH, DONE)
    assert trial.outcome is None
    return trial


@pytest.mark.parametrize("why", [Broken.CUT, Broken.MALFORMED])
async def test_a_stream_that_has_said_its_end_cannot_break_any_more(
    clock: Clock, why: Broken
) -> None:
    trial = ended(clock)
    trial.attempt.on_broken(why)
    assert trial.outcome is Outcome.OK
    assert (trial.caller.body, trial.caller.ending) == (WORDS + FINISH + DONE, "finished")


async def test_nobody_waits_long_for_a_body_to_end_behind_its_stream(clock: Clock) -> None:
    trial = ended(clock)
    trial.wait(AFTER_END - 0.1)
    assert not trial.outcome
    trial.wait(0.1)
    assert (trial.outcome, trial.caller.ending) == (Outcome.OK, "finished")
    assert trial.connection.left


@pytest.mark.parametrize("more", [b'data: {"error":"late"}\n\n', b"data: {\n\n"])
async def test_what_comes_behind_the_end_is_not_judged(clock: Clock, more: bytes) -> None:
    trial = ended(clock)
    trial.body(more)
    trial.attempt.on_end()
    assert trial.outcome is Outcome.OK
    assert trial.caller.body == WORDS + FINISH + DONE + more


async def test_the_end_of_nothing_is_no_answer(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(DONE)
    trial.attempt.on_end()
    assert (trial.outcome, trial.caller.status) == (Outcome.EMPTY, 0)


# -- breaking


@pytest.mark.parametrize(
    ("why", "outcome", "stale"),
    [
        (Broken.RESET, Outcome.RESET, False),
        (Broken.STALE, Outcome.RESET, True),
        (Broken.MALFORMED, Outcome.MALFORMED, False),
    ],
)
async def test_breaking_before_the_head(
    clock: Clock, why: Broken, outcome: Outcome, *, stale: bool
) -> None:
    trial = Trial(clock)
    trial.attempt.on_broken(why)
    assert (trial.outcome, trial.attempt.stale) == (outcome, stale)


async def test_breaking_behind_the_head_or_the_first_word(clock: Clock) -> None:
    headed, begun = Trial(clock, stream=True), Trial(clock, stream=True)
    for trial in (headed, begun):
        trial.head()
    headed.attempt.on_broken(Broken.CUT)
    begun.body(WORDS)
    begun.attempt.on_broken(Broken.MALFORMED)
    assert (headed.outcome, begun.outcome) == (Outcome.EMPTY, Outcome.CUT)


# -- deadlines


async def test_the_first_word_has_its_time_whatever_comes_before(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.wait(9.0)
    trial.body(ROLE)
    trial.wait(0.9)
    assert trial.outcome is None
    trial.wait(0.1)
    assert trial.outcome is Outcome.FIRST_TOKEN_TIMEOUT
    assert trial.connection.left


async def test_words_may_be_so_far_apart(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    for _ in range(5):
        trial.body(WORDS)
        trial.wait(4.9)
    assert trial.outcome is None
    trial.wait(0.1)
    assert trial.outcome is Outcome.STALLED
    assert trial.record.last_byte == clock.now - 5.0


async def test_comments_are_no_words(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(WORDS)
    for _ in range(4):
        trial.wait(1)
        trial.body(b": ping\n\n")
        trial.chunks(b": ping\n\n")
    trial.body(b'data: {"choices":')
    trial.wait(4)
    assert trial.outcome is None, "a part of an event is a sign of life"
    trial.wait(1)
    assert trial.outcome is Outcome.STALLED


@pytest.mark.parametrize("committed", [False, True])
async def test_a_targets_own_time_is_less_than_the_requests(
    clock: Clock, *, committed: bool
) -> None:
    trial = Trial(clock, stream=True)
    trial.request.deadline += 100
    trial.head()
    if committed:
        trial.body(WORDS)
    for _ in range(24 if committed else 2):
        trial.wait(4)
        trial.body(ROLE)
    assert trial.outcome is None
    trial.wait(4 if committed else 2)
    assert trial.outcome is (Outcome.DEADLINE if committed else Outcome.FIRST_TOKEN_TIMEOUT)


async def test_an_answer_that_is_not_streamed_has_longer_to_begin(clock: Clock) -> None:
    trial = Trial(clock)
    trial.wait(39.9)
    assert trial.outcome is None
    trial.wait(0.1)
    assert trial.outcome is Outcome.FIRST_TOKEN_TIMEOUT


async def test_once_it_has_begun_it_must_go_on(clock: Clock) -> None:
    trial = Trial(clock)
    trial.head(headers=JSON)
    trial.body(b"{")
    trial.wait(5.0)
    assert trial.outcome is Outcome.FIRST_TOKEN_TIMEOUT


@pytest.mark.parametrize("committed", [False, True])
async def test_the_requests_own_time_ends_everything(clock: Clock, *, committed: bool) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    if committed:
        trial.body(WORDS)
    trial.wait(100.0)
    assert trial.outcome is Outcome.DEADLINE


async def test_a_slow_caller_is_no_slow_backend(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.body(WORDS)
    trial.caller.pause()
    trial.caller.pause()
    assert not trial.connection.reading
    trial.wait(60.0)
    assert trial.outcome is None
    trial.caller.resume()
    trial.caller.resume()
    assert trial.connection.reading
    trial.wait(4.9)
    assert trial.outcome is None
    trial.caller.pause()
    trial.wait(40.0)
    assert trial.outcome is Outcome.DEADLINE


# -- ends


async def test_only_the_first_end_counts(clock: Clock) -> None:
    trial = Trial(clock)
    trial.attempt.on_broken(Broken.RESET)
    trial.attempt.on_broken(Broken.MALFORMED)
    trial.caller.pause()
    trial.caller.resume()
    assert trial.outcome is Outcome.RESET
    assert trial.connection.reading


async def test_a_connection_that_answers_as_it_is_asked_needs_no_deadline(clock: Clock) -> None:
    settings = Settings(
        backends={"b": Backend(url="http://b")}, models={"m": Model(targets=(Target(backend="b"),))}
    )
    route = RouteTable(settings, fleet_of(settings)).models["m"]
    deadlines = Deadlines()
    attempt = Attempt(
        request_for(route, clock.now),
        chat_form(),
        FakeCaller(),
        AttemptRecord(backend="b", model="m", order=1, started=clock.now),
        TIMEOUTS,
        Limits(),
        deadlines,
        list,
    )

    class Dead(FakeConnection):
        def send(self, head: bytes, body: bytes, receiver: Any) -> None:
            self.receiver = receiver
            receiver.on_broken(Broken.STALE)

    dead: Any = Dead()
    attempt.begin(dead, b"", b"")
    assert attempt.done.result() is Outcome.RESET
    assert not deadlines._bounded


async def test_abandoning_leaves_the_backend(clock: Clock) -> None:
    trial = Trial(clock, stream=True)
    trial.head()
    trial.attempt.abandon()
    assert trial.connection.left
    assert trial.record.ended == clock.now


async def test_an_attempt_that_was_never_sent_has_nothing_to_leave(clock: Clock) -> None:
    trial = Trial(clock)
    trial.attempt._connection = None
    trial.caller.pause()
    trial.caller.resume()
    trial.attempt.abandon()
    assert not trial.connection.left


# -- sound and uploads

FORMAT = Format(coding=1, channels=1, rate=16000, bits=16)
WAV: Headers = [(b"content-type", b"audio/wav"), (b"x-synapse-voice", b"joe")]


def sound(hold: int) -> SoundReader:
    return SoundReader(lambda _: True, hold)


async def test_the_beginning_of_a_sound_can_be_held_back(clock: Clock) -> None:
    trial = Trial(clock, expects_json=False, hold=4)
    trial.head(headers=AUDIO)
    trial.body(b"ID3a")
    assert not trial.caller.status
    trial.body(b"bc")
    assert (trial.caller.length, trial.caller.body) == (6, b"ID3abc")


async def test_a_sound_that_is_cut_while_it_is_held_was_no_answer(clock: Clock) -> None:
    trial = Trial(clock, expects_json=False, hold=100)
    trial.head(headers=AUDIO)
    trial.body(b"ID3")
    trial.attempt.on_broken(Broken.CUT)
    assert (trial.outcome, trial.caller.status) == (Outcome.EMPTY, 0)


async def test_samples_reach_the_caller_as_they_come(clock: Clock) -> None:
    trial = Trial(clock, stream=True, sound=sound, content_type=b"audio/wav")
    trial.head(headers=WAV)
    trial.body(FORMAT.head(None))
    assert not trial.caller.status
    trial.body(b"12")
    assert (trial.caller.body, trial.caller.length) == (b"12", None)
    assert trial.caller.header(b"x-synapse-voice") == b"joe"
    assert trial.caller.header(b"content-type") == b"audio/wav"
    trial.body(b"34")
    trial.attempt.on_end()
    assert (trial.caller.body, trial.caller.ending, trial.outcome) == (
        b"1234",
        "finished",
        Outcome.OK,
    )
    assert trial.request.record.bytes_out == 4


async def test_samples_that_nobody_streams_are_held_within_the_limit(clock: Clock) -> None:
    trial = Trial(clock, limits=Limits(hold_bytes=4), sound=sound, voice=b"anna")
    trial.head(headers=WAV)
    trial.body(FORMAT.head(None), b"1234")
    assert not trial.caller.status
    trial.body(b"56")
    assert trial.caller.body == b"123456"
    assert trial.caller.header(b"x-synapse-voice") == b"anna"
    assert trial.caller.header(b"x-accel-buffering") is None


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"error": "a page"}', Outcome.MALFORMED),
        (FORMAT.head(None), Outcome.EMPTY),
        (FORMAT.head(8) + b"1234", Outcome.EMPTY),
        (b"RIFF", Outcome.EMPTY),
    ],
    ids=["json", "no-samples", "short", "half-a-head"],
)
async def test_what_is_no_sound_is_no_answer(clock: Clock, body: bytes, outcome: Outcome) -> None:
    trial = Trial(clock, sound=sound)
    trial.head(headers=JSON)
    trial.body(body)
    if not trial.attempt.done.done():
        trial.attempt.on_end()
    assert (trial.outcome, trial.caller.status) == (outcome, 0)


async def test_a_body_that_cannot_be_read_is_our_own_fault(clock: Clock) -> None:
    trial = Trial(clock)
    trial.attempt.on_broken(Broken.UNREADABLE)
    with pytest.raises(Unavailable):
        await trial.attempt.done


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [(b"audio/wav", None), (b"application/json", Outcome.MALFORMED), (b"", Outcome.MALFORMED)],
)
async def test_an_answer_of_another_kind_is_none(
    clock: Clock, kind: bytes, outcome: Outcome | None
) -> None:
    trial = Trial(clock, media=(b"audio/",))
    trial.head(headers=[(b"content-type", kind)])
    assert (trial.outcome if trial.attempt.done.done() else None) is outcome
