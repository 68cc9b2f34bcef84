from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.errors import BadGateway
from synapse_gateway.proxy.dialects import (
    AudioDialect,
    ChatDialect,
    Meaning,
    MessagesDialect,
    OllamaDialect,
    ResponsesDialect,
    SegmentDialect,
)
from synapse_gateway.proxy.events import EventCutter, LineCutter

if TYPE_CHECKING:
    from synapse_gateway.proxy.dialects import Dialect

CONTENT, OTHER, END = Meaning.CONTENT, Meaning.OTHER, Meaning.END
USAGE, ERROR, MALFORMED = Meaning.USAGE, Meaning.ERROR, Meaning.MALFORMED


def read(dialect: Dialect, value: Any, name: bytes = b"") -> Meaning:
    """Let a dialect read an event; a value that is no bytes is sent as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return dialect.read(data, name)


def choice(index: int = 0, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


# -- chat


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param(choice(role="assistant"), OTHER, id="role"),
        pytest.param(choice(role="assistant", content=""), OTHER, id="role-and-nothing"),
        pytest.param(choice(content="hi"), CONTENT, id="content"),
        pytest.param(choice(tool_calls=[{"index": 0}]), CONTENT, id="tool-call"),
        pytest.param(choice(reasoning_content="hm"), CONTENT, id="reasoning-content"),
        pytest.param(choice(reasoning="hm"), CONTENT, id="reasoning"),
        pytest.param(choice(refusal="no"), CONTENT, id="refusal"),
        pytest.param(choice(function_call={"name": "f"}), CONTENT, id="function-call"),
        pytest.param(choice(audio={"data": "AA"}), CONTENT, id="audio"),
        pytest.param(choice(finish="stop"), CONTENT, id="finish"),
        pytest.param(choice(finish="", content=""), OTHER, id="no-reason-yet"),
        pytest.param({"choices": [{"index": 0, "text": "hi"}]}, CONTENT, id="completion"),
        pytest.param({"choices": [{"index": 0, "text": ""}]}, OTHER, id="completion-of-nothing"),
        pytest.param({"choices": []}, OTHER, id="no-choices"),
        pytest.param({"choices": [], "usage": {"prompt_tokens": 1}}, USAGE, id="usage"),
        pytest.param({"choices": [], "usage": None}, OTHER, id="null-usage"),
        pytest.param({"object": "ping"}, OTHER, id="something-else"),
        pytest.param({"error": {"message": "no"}}, ERROR, id="error"),
        pytest.param({"error": "no"}, ERROR, id="error-text"),
        pytest.param({"error": None, "choices": []}, OTHER, id="null-error"),
        pytest.param({"object": "error", "message": "no"}, ERROR, id="error-object"),
        pytest.param(b"[DONE]", OTHER, id="end-of-nothing"),
        pytest.param(b'{"choices": [{"del', MALFORMED, id="half"),
        pytest.param(b"hello", MALFORMED, id="text"),
        pytest.param(b'{"choices": [{"delta": {"content": "\xff"}}]}', MALFORMED, id="not-utf-8"),
        pytest.param([1], MALFORMED, id="list"),
        pytest.param(b"7", MALFORMED, id="number"),
        pytest.param({"choices": "odd"}, CONTENT, id="unusual"),
        pytest.param({"choices": "odd", "error": {"message": "no"}}, ERROR, id="unusual-error"),
        pytest.param({"choices": "odd", "error": None}, CONTENT, id="unusual-null-error"),
        pytest.param(b'{"choices": 7, "a": "\xff"}', MALFORMED, id="unusual-not-utf-8"),
    ],
)
def test_what_a_chunk_is(value: Any, meaning: Meaning) -> None:
    assert read(ChatDialect(), value) is meaning


PLAIN = (
    choice(content="a"),
    choice(content=[{"type": "text"}]),
    choice(7, content="a", role="assistant"),
    choice(reasoning_content="hm"),
    choice(tool_calls=[{"index": 0}]),
    {"choices": [{"index": 0, "text": "a"}]},
)
NOT_PLAIN: tuple[Any, ...] = (
    choice(content=""),
    choice(role="assistant"),
    choice(content="a", finish="stop"),
    {"choices": [*choice(0, content="a")["choices"], *choice(1, finish="stop")["choices"]]},
    choice(content="a") | {"usage": {"prompt_tokens": 9}},
    choice(content="a") | {"error": {"message": "no"}},
    {"choices": []},
    {"choices": [{"index": 0}]},
    {"choices": "odd"},
    b"[DONE]",
    b"{",
    b'{"choices": [{"delta": {"content": "\xff"}}]}',
)


@pytest.mark.parametrize("before", [(), (choice(content="a"), choice(finish="stop"))])
@pytest.mark.parametrize("value", [*PLAIN, *NOT_PLAIN])
def test_a_plain_chunk_is_counted_as_by_reading_it(value: Any, before: tuple[Any, ...]) -> None:
    """And one that is not plain is not counted before it is read."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    dialect, other = ChatDialect(), ChatDialect()
    for chunk in before:
        read(dialect, chunk)
        read(other, chunk)
    plain = dialect.plain(data)
    assert plain is (value in PLAIN)
    meaning = CONTENT if plain else dialect.read(data)
    assert meaning is other.read(data)
    assert state(dialect) == state(other)
    for dialect_ in (dialect, other):
        read(dialect_, choice(finish="stop"))
    assert state(dialect) == state(other)


def state(dialect: Dialect) -> tuple[int, int, int, bool]:
    return dialect.tokens_in, dialect.tokens_out, dialect.content_events, dialect.finished


@pytest.mark.parametrize("dialect", [ResponsesDialect, MessagesDialect, AudioDialect])
def test_of_other_streams_no_event_is_plain(dialect: type[Dialect]) -> None:
    assert not dialect().plain(b'{"type":"speech.audio.delta"}')


def test_an_event_called_error_is_one() -> None:
    assert read(ChatDialect(), {"message": "no"}, b"error") is ERROR


@pytest.mark.parametrize(
    "dialect", [ChatDialect, ResponsesDialect, MessagesDialect, AudioDialect, OllamaDialect]
)
def test_a_comment_means_nothing(dialect: type[Dialect]) -> None:
    assert dialect().read(None) is OTHER


def finished(*chunks: Any) -> bool:
    dialect = ChatDialect()
    for chunk in chunks:
        read(dialect, chunk)
    return dialect.finished


def test_a_choice_is_open_until_it_has_its_reason() -> None:
    assert not finished(choice(role="assistant"))
    assert not finished(choice(content="a"))
    assert finished(choice(content="a"), choice(finish="stop"))
    assert finished(choice(content="a"), b"[DONE]")


def test_all_choices_must_have_their_reason() -> None:
    assert not finished(choice(0, content="a"), choice(1, content="b"), choice(0, finish="stop"))
    assert finished(
        choice(0, content="a"),
        choice(1, content="b"),
        choice(0, finish="stop"),
        choice(1, finish="length"),
    )


def test_a_choice_that_has_only_been_announced_is_open() -> None:
    assert not finished(
        choice(0, role="assistant"), choice(1, role="assistant"), choice(0, finish="stop")
    )


def test_a_choice_that_begins_after_another_ended_opens_the_stream_again() -> None:
    assert not finished(choice(0, content="a", finish="stop"), choice(1, content="b"))


def test_an_empty_chunk_after_the_end_opens_nothing() -> None:
    assert finished(choice(content="a"), choice(finish="stop"), choice())


def test_content_events_are_counted_and_usage_is_kept() -> None:
    dialect = ChatDialect()
    for value in (choice(content="a"), choice(content="b"), choice(finish="stop")):
        read(dialect, value)
    assert dialect.content_events == 2
    read(dialect, {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}})
    assert (dialect.tokens_in, dialect.tokens_out) == (7, 2)
    read(dialect, {"choices": [], "usage": {"completion_tokens": 3}})
    assert (dialect.tokens_in, dialect.tokens_out) == (7, 3)


# -- typed events


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param({"type": "response.created"}, OTHER, id="created"),
        pytest.param({"type": "response.output_text.delta", "delta": "a"}, CONTENT, id="delta"),
        pytest.param({"type": "response.output_text.done"}, OTHER, id="part-done"),
        pytest.param({"type": "response.completed"}, END, id="completed"),
        pytest.param({"type": "response.incomplete"}, END, id="incomplete"),
        pytest.param({"type": "response.failed"}, ERROR, id="failed"),
        pytest.param({"type": "error", "message": "no"}, ERROR, id="error"),
        pytest.param({"error": {"message": "no"}}, ERROR, id="error-object"),
        pytest.param({"type": "response.created", "error": None}, OTHER, id="null-error"),
        pytest.param({"type": 7}, MALFORMED, id="type-is-no-text"),
        pytest.param(b"half {", MALFORMED, id="no-json"),
    ],
)
def test_what_an_event_of_the_responses_api_is(value: Any, meaning: Meaning) -> None:
    dialect = ResponsesDialect()
    assert read(dialect, value) is meaning
    assert dialect.finished is (meaning is END)


def test_an_event_without_a_type_goes_by_its_name() -> None:
    assert read(ResponsesDialect(), {}, b"response.completed") is END


def test_the_responses_api_tells_its_usage_at_the_end() -> None:
    dialect = ResponsesDialect()
    usage = {"input_tokens": 5, "output_tokens": 6}
    read(dialect, {"type": "response.completed", "response": {"usage": usage}})
    assert (dialect.tokens_in, dialect.tokens_out) == (5, 6)


def test_done_ends_typed_events_only_behind_their_own_end() -> None:
    dialect = ResponsesDialect()
    assert read(dialect, b"[DONE]") is OTHER
    read(dialect, {"type": "response.completed"})
    assert read(dialect, b"[DONE]") is END


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param({"type": "message_start", "message": {}}, OTHER, id="start"),
        pytest.param({"type": "message_start", "message": "odd"}, OTHER, id="odd-start"),
        pytest.param({"type": "ping"}, OTHER, id="ping"),
        pytest.param({"type": "content_block_delta", "delta": {}}, CONTENT, id="block-delta"),
        pytest.param({"type": "message_delta", "delta": {}}, CONTENT, id="message-delta"),
        pytest.param({"type": "message_stop"}, END, id="stop"),
        pytest.param({"type": "error", "error": {"type": "overloaded_error"}}, ERROR, id="error"),
    ],
)
def test_what_an_event_of_the_messages_api_is(value: Any, meaning: Meaning) -> None:
    assert read(MessagesDialect(), value) is meaning


def test_the_messages_api_tells_its_usage_in_two_places() -> None:
    dialect = MessagesDialect()
    read(dialect, {"type": "message_start", "message": {"usage": {"input_tokens": 5}}})
    read(dialect, {"type": "message_delta", "usage": {"output_tokens": 6}})
    assert (dialect.tokens_in, dialect.tokens_out) == (5, 6)
    read(dialect, {"type": "message_start", "message": {"usage": {"input_tokens": "many"}}})
    assert dialect.tokens_in == 5


def test_tokens_that_anthropics_cache_takes_or_gives_are_tokens_of_the_prompt() -> None:
    dialect = MessagesDialect()
    usage = {"input_tokens": 1, "cache_read_input_tokens": 44, "cache_creation_input_tokens": 5}
    read(dialect, {"type": "message_start", "message": {"usage": usage}})
    assert dialect.tokens_in == 50


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param({"type": "speech.audio.delta", "audio": "AA"}, CONTENT, id="speech"),
        pytest.param({"type": "speech.audio.done"}, END, id="speech-done"),
        pytest.param({"type": "transcript.text.delta", "delta": "a"}, CONTENT, id="transcript"),
        pytest.param({"type": "transcript.text.done", "text": "a"}, END, id="transcript-done"),
    ],
)
def test_what_an_event_of_the_audio_apis_is(value: Any, meaning: Meaning) -> None:
    assert read(AudioDialect(), value) is meaning


# -- Ollama


@pytest.mark.parametrize(
    ("value", "meaning"),
    [
        pytest.param({"message": {"role": "assistant", "content": ""}}, OTHER, id="nothing"),
        pytest.param({"message": {"content": "a"}}, CONTENT, id="content"),
        pytest.param({"message": {"content": "", "thinking": "a"}}, CONTENT, id="thinking"),
        pytest.param({"message": {"content": "", "tool_calls": [{}]}}, CONTENT, id="tools"),
        pytest.param({"message": "odd"}, OTHER, id="odd-message"),
        pytest.param({"response": "a"}, CONTENT, id="generate"),
        pytest.param({"response": "", "thinking": "a"}, CONTENT, id="generate-thinking"),
        pytest.param({"error": "no"}, ERROR, id="error"),
        pytest.param({"done": True, "prompt_eval_count": 3, "eval_count": 4}, END, id="done"),
        pytest.param(b"half {", MALFORMED, id="no-json"),
    ],
)
def test_what_a_line_of_ollama_is(value: Any, meaning: Meaning) -> None:
    dialect = OllamaDialect()
    assert read(dialect, value) is meaning
    assert dialect.finished is (meaning is END)


def test_ollama_tells_its_usage_at_the_end() -> None:
    dialect = OllamaDialect()
    read(dialect, {"done": True, "prompt_eval_count": 3, "eval_count": 4})
    assert (dialect.tokens_in, dialect.tokens_out) == (3, 4)
    read(dialect, {"done": True})
    assert (dialect.tokens_in, dialect.tokens_out) == (0, 0)


# -- errors in band


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        (
            ChatDialect,
            ("", {"error": {"message": "m", "type": "api_error", "param": None, "code": "c"}}),
        ),
        (
            AudioDialect,
            ("", {"error": {"message": "m", "type": "api_error", "param": None, "code": "c"}}),
        ),
        (
            ResponsesDialect,
            ("error", {"type": "error", "code": "c", "message": "m", "param": None}),
        ),
        (
            MessagesDialect,
            ("error", {"type": "error", "error": {"type": "api_error", "message": "m"}}),
        ),
    ],
)
def test_an_error_in_band_is_an_event_that_the_dialect_itself_takes_for_one(
    dialect: type[Dialect], expected: tuple[str, Any]
) -> None:
    raw = dialect().error_event(BadGateway("m", code="c").as_object())
    [event] = EventCutter(1000).feed(raw)
    assert (event.name.decode(), json.loads(event.data or b"")) == expected
    assert dialect().read(event.data, event.name) is ERROR


def test_an_error_in_a_stream_of_ollama_is_a_line() -> None:
    raw = OllamaDialect().error_event(BadGateway("m").as_object())
    [event] = LineCutter(1000).feed(raw)
    assert raw == b'{"error":"m"}\n'
    assert OllamaDialect().read(event.data, event.name) is ERROR


# -- segments of /stt/stream


@pytest.mark.parametrize(
    ("value", "name", "meaning"),
    [
        pytest.param({"id": 0, "text": "Hello."}, b"", CONTENT, id="segment"),
        pytest.param({"id": 0, "text": ""}, b"", CONTENT, id="empty"),
        pytest.param({"language": "en"}, b"", OTHER, id="else"),
        pytest.param({"segments": 1}, b"done", END, id="done"),
        pytest.param({"message": "no"}, b"error", ERROR, id="named-error"),
        pytest.param({"error": {"message": "no"}}, b"", ERROR, id="error"),
        pytest.param(b"{", b"", MALFORMED, id="half"),
        pytest.param({"text": 5}, b"", MALFORMED, id="number"),
    ],
)
def test_events_of_a_transcription_in_segments(value: Any, name: bytes, meaning: Meaning) -> None:
    dialect = SegmentDialect()
    assert read(dialect, value, name) is meaning
    assert dialect.finished is (meaning is END)
    assert dialect.content_events == (meaning is CONTENT)


def test_a_comment_is_no_segment() -> None:
    assert SegmentDialect().read(None) is OTHER


def test_a_failed_transcription_in_segments_says_so_in_an_event_of_its_own() -> None:
    [event] = EventCutter(1000).feed(SegmentDialect().error_event(BadGateway("broke").as_object()))
    assert event.name == b"error"
    assert json.loads(event.data or b"")["error"]["message"] == "broke"
