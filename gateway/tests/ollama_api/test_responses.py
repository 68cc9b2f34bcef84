from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import ollama
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.ollama_api import (
    OllamaRequestError,
    StreamTranslator,
    Translated,
    UntranslatableReply,
    error_body,
    error_from_openai,
    from_openai,
    immediate_reply,
    to_openai,
)
from synapse_gateway.ollama_api.replies import timestamp
from tests.exchanges.wire import load

if TYPE_CHECKING:
    from tests.ollama_api.conftest import SteppingClock

MODELS: dict[str, Any] = {
    "/api/chat": ollama.ChatResponse,
    "/api/generate": ollama.GenerateResponse,
    "/api/embed": ollama.EmbedResponse,
    "/api/embeddings": ollama.EmbeddingsResponse,
}


def asked(path: str, **body: Any) -> Translated:
    defaults: dict[str, dict[str, Any]] = {
        "/api/chat": {"messages": [{"role": "user", "content": "hi"}]},
        "/api/generate": {"prompt": "hi"},
        "/api/embed": {"input": "a"},
        "/api/embeddings": {"prompt": "a"},
    }
    return to_openai(path, json.dumps({"model": "m", **defaults[path], **body}).encode())


def whole(path: str, body: Any, clock: SteppingClock, **request: Any) -> dict[str, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = from_openai(asked(path, stream=False, **request), data, started_ns=0, clock=clock)
    MODELS[path].model_validate_json(answer)
    result: dict[str, Any] = json.loads(answer)
    return result


def stream(
    path: str, events: list[Any], clock: SteppingClock, *, finish: bool = True
) -> list[dict[str, Any]]:
    translator = StreamTranslator(asked(path), started_ns=0, clock=clock)
    data = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    out = b"".join(translator.feed(event) for event in data)
    if finish:
        out += translator.finish()
        assert translator.finish() == b""
    assert not out or out.endswith(b"\n")
    lines = [json.loads(line) for line in out.splitlines()]
    for line in lines:
        if "error" not in line:
            MODELS[path].model_validate(line)
    return lines


def delta(finish_reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def text_of(lines: list[dict[str, Any]]) -> str:
    return "".join(line["message"]["content"] for line in lines)


def shape(value: Any) -> Any:
    """Names and types, without the values."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return type(value)


def test_a_whole_chat_of_llamacpp_reads_like_one_of_ollama(clock: SteppingClock) -> None:
    recorded = load("llamacpp", "v1_chat")
    answer = whole("/api/chat", recorded.body, clock)
    content = recorded.json()["choices"][0]["message"]["content"]
    timings = recorded.json()["timings"]
    assert answer == {
        "model": "m",
        "created_at": "2026-11-21T10:39:59.37988301Z",
        "message": {"role": "assistant", "content": content},
        "done": True,
        "done_reason": "length",
        "total_duration": 1_000_000,
        "prompt_eval_count": 37,
        "prompt_eval_duration": round(timings["prompt_ms"] * 1e6),
        "eval_count": 8,
        "eval_duration": round(timings["predicted_ms"] * 1e6),
    }
    real = shape(load("ollama", "chat").json())
    del real["load_duration"]
    assert shape(answer) == real


def test_a_streamed_chat_of_llamacpp_reads_like_one_of_ollama(clock: SteppingClock) -> None:
    recorded = load("llamacpp", "v1_chat_stream_usage")
    lines = stream("/api/chat", recorded.events(), clock)
    real = load("ollama", "chat_stream").lines()
    assert [shape(line) for line in lines[:-1]] == [shape(real[0])] * (len(lines) - 1)
    last = shape(real[-1])
    del last["load_duration"]
    assert shape(lines[-1]) == last
    assert text_of(lines) == load("llamacpp", "v1_chat").json()["choices"][0]["message"]["content"]
    assert lines[-1]["done_reason"] == "length"
    assert (lines[-1]["prompt_eval_count"], lines[-1]["eval_count"]) == (37, 8)


def test_ollamas_own_openai_stream_translates_back_to_its_native_one(clock: SteppingClock) -> None:
    lines = stream("/api/chat", load("ollama", "v1_chat_stream_usage").events(), clock)
    native = load("ollama", "chat_stream").lines()
    assert text_of(lines) == text_of(native)
    for figure in ("done_reason", "prompt_eval_count", "eval_count"):
        assert lines[-1][figure] == native[-1][figure]


def test_a_raw_completion_becomes_a_generate_answer(clock: SteppingClock) -> None:
    answer = whole("/api/generate", load("llamacpp", "v1_completions").body, clock, raw=True)
    assert answer["response"] == load("llamacpp", "v1_completions").json()["choices"][0]["text"]
    assert answer["eval_count"] == 3
    lines = stream("/api/generate", load("llamacpp", "v1_completions_stream_usage").events(), clock)
    assert "".join(line["response"] for line in lines) == answer["response"]
    real = shape(load("ollama", "generate_raw").json())
    del real["load_duration"]
    assert shape(answer) == real


def test_logprobs_come_as_ollama_writes_them(clock: SteppingClock) -> None:
    answer = whole("/api/chat", load("llamacpp", "v1_chat_logprobs").body, clock)
    real = load("ollama", "chat_logprobs").json()
    assert [shape(item) for item in answer["logprobs"]] == [
        shape(item) for item in real["logprobs"]
    ]
    raw = whole("/api/generate", load("llamacpp", "v1_completions_logprobs").body, clock)
    assert [item["token"] for item in raw["logprobs"]] == [" a", " canvas", " of"]


def test_logprobs_in_lists_are_turned(clock: SteppingClock) -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [-1.0, -2.0], "top_logprobs": [{"c": -3.0}]}
    body = {"choices": [{"text": "ab", "finish_reason": "stop", "logprobs": logprobs}]}
    assert whole("/api/generate", body, clock)["logprobs"] == [
        {"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "c", "logprob": -3.0}]},
        {"token": "b", "logprob": -2.0},
    ]


def test_logprobs_without_text_still_come(clock: SteppingClock) -> None:
    chunk = delta()
    chunk["choices"][0]["logprobs"] = {"content": [{"token": "a", "logprob": -1.0}]}
    first, _ = stream("/api/chat", [chunk, delta("stop")], clock)
    assert first["logprobs"] == [{"token": "a", "logprob": -1.0}]


def test_a_recorded_tool_call_comes_whole(clock: SteppingClock) -> None:
    answer = whole("/api/chat", load("llamacpp", "v1_chat_tools").body, clock)
    lines = stream("/api/chat", load("llamacpp", "v1_chat_tools_stream").events(), clock)
    real = load("ollama", "chat_tools").json()
    for message in (answer["message"], lines[0]["message"]):
        assert shape(message) == shape(real["message"])
        assert message["tool_calls"][0]["function"]["arguments"] == {"city": "Tokyo"}
    assert [line["done"] for line in lines] == [False, True]
    assert (answer["done_reason"], lines[-1]["done_reason"]) == ("stop", "stop")


def test_ollamas_own_tool_call_translates_back(clock: SteppingClock) -> None:
    lines = stream("/api/chat", load("ollama", "v1_chat_tools_stream").events(), clock)
    native = load("ollama", "chat_tools_stream").lines()
    got, wanted = (some[0]["message"]["tool_calls"][0]["function"] for some in (lines, native))
    assert got == wanted


def test_pieces_of_several_tool_calls_are_put_together(clock: SteppingClock) -> None:
    pieces = [
        {"index": 0, "id": "call_a", "function": {"name": "f", "arguments": '{"x"'}},
        {"index": 1, "id": "call_b", "function": {"name": "g"}},
        {"index": 0, "function": {"arguments": ":1}"}},
        {"index": 1},
    ]
    events = [*(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls")]
    first, last = stream("/api/chat", events, clock)
    assert first["message"]["tool_calls"] == [
        {"id": "call_a", "function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
        {"id": "call_b", "function": {"index": 1, "name": "g", "arguments": {}}},
    ]
    assert last["done"]


def test_pieces_without_an_index_follow_each_other(clock: SteppingClock) -> None:
    pieces = [
        {"function": {"arguments": ""}},
        {"function": {"name": "f", "arguments": "{"}},
        {"function": {"arguments": "}"}},
        {"function": {"name": "g", "arguments": "{}"}},
    ]
    events = [*(delta(tool_calls=[piece]) for piece in pieces), delta("tool_calls")]
    names = [
        call["function"]["name"]
        for call in stream("/api/chat", events, clock)[0]["message"]["tool_calls"]
    ]
    assert names == ["", "f", "g"]


@pytest.mark.parametrize("arguments", ['{"city": "Par', "[1]", "3", "[" * 100_000])
def test_a_call_whose_arguments_are_no_object_is_text(arguments: str, clock: SteppingClock) -> None:
    call = {"index": 0, "function": {"name": "f", "arguments": arguments}}
    good = {"index": 1, "function": {"name": "g", "arguments": "{}"}}
    text = f'{{"name": "f", "arguments": {arguments}'
    calls = [{"function": {"index": 0, "name": "g", "arguments": {}}}]
    lines = stream("/api/chat", [delta("length", tool_calls=[call, good])], clock)
    assert lines[0]["message"] == {"role": "assistant", "content": text, "tool_calls": calls}
    assert (lines[-1]["done"], lines[-1]["done_reason"]) == (True, "length")
    message = {"content": "So: ", "tool_calls": [call, good]}
    body = {"choices": [{"message": message, "finish_reason": "length"}]}
    answer = whole("/api/chat", body, clock)
    assert answer["message"] == {
        "role": "assistant",
        "content": f"So: {text}",
        "tool_calls": calls,
    }
    assert answer["done_reason"] == "length"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_becomes_thinking(name: str, clock: SteppingClock) -> None:
    first, second, _ = stream(
        "/api/chat", [delta(**{name: "Hm."}), delta(content="Yes."), delta("stop")], clock
    )
    assert first["message"] == {"role": "assistant", "content": "", "thinking": "Hm."}
    assert second["message"] == {"role": "assistant", "content": "Yes."}
    body = {"choices": [{"message": {"content": "Yes.", name: "Hm."}, "finish_reason": "stop"}]}
    assert whole("/api/chat", body, clock)["message"]["thinking"] == "Hm."
    assert whole("/api/generate", body, clock)["thinking"] == "Hm."


@pytest.mark.parametrize(
    ("openai", "native"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "stop")],
)
def test_a_finish_reason_becomes_one_that_ollama_knows(
    openai: str, native: str, clock: SteppingClock
) -> None:
    assert stream("/api/chat", [delta(openai)], clock)[-1]["done_reason"] == native


def test_time_to_the_first_piece_counts_as_prompt_and_the_rest_as_generation(
    clock: SteppingClock,
) -> None:
    *_, last = stream("/api/chat", [delta(content="a"), delta(content="b"), delta("stop")], clock)
    assert last["prompt_eval_duration"] == 1_000_000
    assert last["total_duration"] == 2_000_000
    assert last["eval_duration"] == 1_000_000
    assert "eval_count" not in last


def test_only_the_first_choice_is_translated(clock: SteppingClock) -> None:
    chunk = delta(content="a")
    chunk["choices"].append({"index": 1, "delta": {"content": "b"}, "finish_reason": "stop"})
    assert text_of(stream("/api/chat", [chunk], clock, finish=False)) == "a"


@pytest.mark.parametrize(
    ("server", "name"),
    [("llamacpp", "v1_chat_stream_killed"), ("ollama", "v1_chat_stream_runner_killed")],
)
def test_a_recorded_cut_stream_never_ends_as_done(
    server: str, name: str, clock: SteppingClock
) -> None:
    lines = stream("/api/chat", load(server, name).events(), clock)
    assert lines[-1] == {"error": "the model's answer ended before it was complete"}
    assert not any(line.get("done") for line in lines)
    assert shape(lines[-1]) == shape(load("ollama", "chat_stream_runner_killed").lines()[-1])


def test_an_error_event_ends_the_stream_for_good(clock: SteppingClock) -> None:
    events = [delta(content="a"), {"error": {"message": "out of memory"}}, delta("stop"), b"[DONE]"]
    lines = stream("/api/chat", events, clock)
    assert lines[1:] == [{"error": "out of memory"}]


def test_a_fault_seen_by_the_gateway_ends_the_stream_once(clock: SteppingClock) -> None:
    translator = StreamTranslator(asked("/api/chat"), started_ns=0, clock=clock)
    assert json.loads(translator.fail("stalled")) == {"error": "stalled"}
    assert translator.fail("again") == b""
    assert translator.feed(json.dumps(delta(content="late")).encode()) == b""


@pytest.mark.parametrize(
    "event", [b"", b"{", b"[]", b'{"choices": 3}', b'{"choices": [{"delta": 3}]}']
)
def test_an_event_that_is_none_of_openais_is_told(event: bytes, clock: SteppingClock) -> None:
    with pytest.raises(UntranslatableReply):
        stream("/api/chat", [event], clock)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices": []}', b"[" * 100_000])
def test_an_answer_without_a_choice_is_told(body: bytes, clock: SteppingClock) -> None:
    with pytest.raises(UntranslatableReply):
        whole("/api/chat", body, clock)


def test_recorded_embeddings_come_back_in_both_shapes(clock: SteppingClock) -> None:
    recorded = load("llamacpp", "v1_embeddings")
    vector = recorded.json()["data"][0]["embedding"]
    many = whole("/api/embed", recorded.body, clock)
    assert many["embeddings"] == [vector]
    assert many["prompt_eval_count"] == 3
    assert whole("/api/embeddings", recorded.body, clock) == {"embedding": vector}
    real = shape(load("ollama", "embed").json())
    del real["load_duration"]
    assert shape(many) == real


def test_embeddings_are_cut_and_brought_to_length_one_as_ollama_does(clock: SteppingClock) -> None:
    """The engine's full vector, cut here, is what it answers when asked for four dimensions."""
    vector = load("ollama", "embeddings").json()["embedding"]
    cut = load("ollama", "embed_many").json()["embeddings"][0]
    body = {"data": [{"embedding": vector}], "usage": {"prompt_tokens": 3}}
    got = whole("/api/embed", body, clock, dimensions=4)["embeddings"][0]
    assert got == pytest.approx(cut, abs=1e-5)


def test_embeddings_are_sorted_and_zero_vectors_stay(clock: SteppingClock) -> None:
    body = {"data": [{"index": 1, "embedding": [0.0, 0.0]}, {"index": 0, "embedding": [3.0, 4.0]}]}
    assert whole("/api/embed", body, clock)["embeddings"] == [[0.6, 0.8], [0.0, 0.0]]


def test_one_prompt_must_get_one_embedding(clock: SteppingClock) -> None:
    with pytest.raises(UntranslatableReply):
        whole("/api/embeddings", {"data": []}, clock)


@pytest.mark.parametrize(
    "name",
    [
        "chat_load",
        "chat_unload",
        "generate_load",
        "generate_unload",
        "embed_empty",
        "embeddings_empty",
    ],
)
def test_loading_and_unloading_answer_as_recorded(name: str, clock: SteppingClock) -> None:
    recorded = load("ollama", name)
    request = to_openai(recorded.path, recorded.request.encode())
    answer = json.loads(immediate_reply(request, clock))
    wanted = recorded.json()
    for body in (answer, wanted):
        body.pop("created_at", None)
    assert answer == wanted


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "too long"),
        (b'{"error": "plain"}', "plain"),
        (b'{"error": {"code": 3}}', "the model failed to answer"),
        (b"[]", "the model failed to answer"),
        (b"<html>", "the model failed to answer"),
        (b"[" * 100_000, "the model failed to answer"),
    ],
)
def test_an_openai_error_becomes_ollamas(body: bytes, message: str) -> None:
    assert error_from_openai(body) == error_body(message)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_500_000_000, "1970-01-01T00:00:01.5Z"),
        (10_000_000_001, "1970-01-01T00:00:10.000000001Z"),
    ],
)
def test_times_are_written_as_go_writes_them(nanoseconds: int, text: str) -> None:
    assert timestamp(nanoseconds) == text


def test_the_module_time_is_a_clock() -> None:
    answer = json.loads(immediate_reply(asked("/api/chat", messages=[]), time))
    assert answer["created_at"].endswith("Z")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)
PIECES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "index": st.integers(0, 2) | ANYTHING,
            "id": st.text(max_size=3) | ANYTHING,
            "function": st.fixed_dictionaries(
                {},
                optional={
                    "name": st.text(max_size=3),
                    "arguments": st.sampled_from(["{", "}", "{}"]),
                },
            )
            | ANYTHING,
        },
    ),
    max_size=2,
)
DELTAS = st.fixed_dictionaries(
    {}, optional={"content": st.text() | ANYTHING, "tool_calls": PIECES, "reasoning": st.text()}
)
LOGPROBS = st.dictionaries(
    st.sampled_from(["content", "tokens", "token_logprobs", "top_logprobs"]), ANYTHING
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "choices": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "index": st.integers(0, 1),
                    "delta": DELTAS,
                    "message": DELTAS,
                    "text": st.text(),
                    "finish_reason": st.sampled_from(["stop", "length", "tool_calls"]) | st.none(),
                    "logprobs": LOGPROBS | st.none(),
                },
            ),
            max_size=2,
        ),
        "usage": st.fixed_dictionaries({"prompt_tokens": st.integers() | st.none()}) | ANYTHING,
        "timings": st.fixed_dictionaries({"prompt_ms": st.floats(0, 1e9)}) | ANYTHING,
        "data": st.lists(st.fixed_dictionaries({"embedding": st.lists(st.floats(-1, 1))})),
        "error": st.none() | ANYTHING,
    },
)


class Fixed:
    def monotonic_ns(self) -> int:
        return 5

    def time_ns(self) -> int:
        return 7


@given(
    events=st.lists(EVENTS | ANYTHING, max_size=5),
    path=st.sampled_from(["/api/chat", "/api/generate"]),
)
def test_any_stream_becomes_lines_that_the_official_client_reads(
    events: list[Any], path: str
) -> None:
    translator = StreamTranslator(asked(path), started_ns=0, clock=Fixed())
    out = b""
    try:
        for event in events:
            out += translator.feed(json.dumps(event).encode())
    except UntranslatableReply as error:
        out += translator.fail(str(error))
    out += translator.finish()
    lines = [json.loads(line) for line in out.splitlines()]
    assert [bool(line.get("done") or "error" in line) for line in lines] == [False] * (
        len(lines) - 1
    ) + [True]
    for line in lines:
        if "error" not in line:
            MODELS[path].model_validate({**line, "logprobs": None})


@given(body=EVENTS | ANYTHING, path=st.sampled_from(sorted(MODELS)))
def test_any_answer_is_translated_for_the_official_client_or_told(body: Any, path: str) -> None:
    try:
        answer = from_openai(asked(path), json.dumps(body).encode(), started_ns=0, clock=Fixed())
    except UntranslatableReply:
        return
    MODELS[path].model_validate({**json.loads(answer), "logprobs": None})


def test_the_errors_of_the_package_are_value_errors() -> None:
    assert issubclass(OllamaRequestError, ValueError)
    assert issubclass(UntranslatableReply, ValueError)
