from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway.ollama_api import (
    OllamaRequestError,
    OnlyOllamaCan,
    Reply,
    Translated,
    to_openai,
    unknown_model,
)
from synapse_gateway.ollama_api.durations import parse_keep_alive
from synapse_gateway.ollama_api.requests import as_go_reads
from tests.exchanges.wire import load

PATHS = [reply.value for reply in Reply]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"


def openai(path: str, body: dict[str, Any]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(to_openai(path, json.dumps(body).encode()).body)
    return result


def chat(**body: Any) -> dict[str, Any]:
    return openai(
        "/api/chat", {"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}
    )


def generate(**body: Any) -> dict[str, Any]:
    return openai("/api/generate", {"model": "m", "prompt": "hi", **body})


def refusal(path: str, body: Any) -> OllamaRequestError:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(OllamaRequestError) as caught:
        to_openai(path, data)
    return caught.value


def test_chat_streams_and_asks_for_usage_unless_told_otherwise() -> None:
    assert chat()["stream"] is True
    assert chat()["stream_options"] == {"include_usage": True}
    assert chat(stream=None)["stream"] is True
    assert "stream" not in chat(stream=False)
    assert "stream_options" not in chat(stream=False)


def test_a_recorded_request_becomes_the_openai_request_that_means_the_same() -> None:
    exchange = load("ollama", "chat")
    translated = to_openai(exchange.path, exchange.request.encode())
    assert translated.path == "/v1/chat/completions"
    assert translated.model == "smollm2"
    assert json.loads(translated.body) == {
        "model": "smollm2",
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
        "temperature": 0,
        "seed": 1,
        "max_tokens": 12,
    }


def test_options_become_sampling_fields() -> None:
    options = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40.0,
        "min_p": 0.1,
        "typical_p": 0.7,
        "seed": 42,
        "num_predict": 100,
        "stop": ["\n"],
        "repeat_penalty": 1.2,
        "repeat_last_n": 33,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
        "num_ctx": 1024,
        "use_mmap": True,
        "colour": "ignored",
    }
    body = chat(options=options, stream=False)
    del body["model"], body["messages"]
    assert body == {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "typical_p": 0.7,
        "seed": 42,
        "max_tokens": 100,
        "stop": ["\n"],
        "repeat_penalty": 1.2,
        "repetition_penalty": 1.2,
        "repeat_last_n": 33,
        "presence_penalty": 1.5,
        "frequency_penalty": 1.0,
    }


@pytest.mark.parametrize("limit", [0, -1, -2, None])
def test_no_limit_is_left_out(limit: int | None) -> None:
    assert "max_tokens" not in chat(options={"num_predict": limit})


def test_a_random_seed_and_an_empty_stop_are_left_out() -> None:
    body = chat(options={"seed": -1, "stop": []})
    assert "seed" not in body
    assert "stop" not in body


def test_format_becomes_a_response_format() -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    assert chat(format="json")["response_format"] == {"type": "json_object"}
    assert chat(format=schema)["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "format", "schema": schema},
    }
    for nothing in ("", None):
        assert "response_format" not in chat(format=nothing)


def test_think_becomes_what_engines_call_it() -> None:
    assert chat(think=True)["chat_template_kwargs"] == {"enable_thinking": True}
    assert chat(think=False)["chat_template_kwargs"] == {"enable_thinking": False}
    assert chat(think="high")["reasoning_effort"] == "high"
    assert "chat_template_kwargs" not in chat(think="high")


def test_logprobs_are_asked_for_as_each_path_takes_them() -> None:
    assert chat(logprobs=True, top_logprobs=2)["top_logprobs"] == 2
    assert chat(logprobs=True)["logprobs"] is True
    assert "top_logprobs" not in chat(logprobs=True)
    assert "top_logprobs" not in chat(top_logprobs=2)
    assert generate(logprobs=True, top_logprobs=3, raw=True)["logprobs"] == 3
    assert generate(logprobs=True, raw=True)["logprobs"] == 0


def test_images_become_content_parts() -> None:
    messages = [
        {"role": "user", "content": "What is this?", "images": [PNG, "/9j/4AAQ", "AAAA"]},
        {"role": "user", "content": "", "images": [PNG[:20] + "\n" + PNG[20:]]},
    ]
    with_text, without = chat(messages=messages)["messages"]
    urls = [part["image_url"]["url"] for part in with_text["content"][1:]]
    assert with_text["content"][0] == {"type": "text", "text": "What is this?"}
    assert urls == [
        f"data:image/png;base64,{PNG}",
        "data:image/jpeg;base64,/9j/4AAQ",
        "data:image/jpeg;base64,AAAA",
    ]
    assert [part["type"] for part in without["content"]] == ["image_url"]
    assert without["content"][0]["image_url"]["url"] == urls[0]


def test_tools_pass_unchanged_and_an_empty_list_is_left_out() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"$defs": {"é": 1}}}}
    assert chat(tools=[tool])["tools"] == [tool]
    assert "tools" not in chat(tools=[])


def test_a_tool_result_finds_its_call_by_name() -> None:
    call = {"function": {"name": "weather", "arguments": {"city": "Köln"}}}
    other = {"function": {"name": "time", "arguments": {}}}
    messages = [
        {"role": "user", "content": "?"},
        {"role": "Assistant", "tool_calls": [call, other], "thinking": "hm"},
        {"role": "tool", "content": "noon", "tool_name": "time"},
        {"role": "tool", "content": "11 degrees", "tool_name": "weather"},
    ]
    _, asked, time, weather = chat(messages=messages)["messages"]
    assert asked["role"] == "assistant"
    assert asked["content"] == ""
    assert asked["reasoning_content"] == "hm"
    first, second = asked["tool_calls"]
    assert first["type"] == "function"
    assert json.loads(first["function"]["arguments"]) == {"city": "Köln"}
    assert (time["tool_call_id"], weather["tool_call_id"]) == (second["id"], first["id"])
    assert weather["name"] == "weather"


def test_a_tool_result_keeps_the_id_that_it_names() -> None:
    call = {"id": "call_x", "function": {"name": "f", "arguments": {}}}
    unnamed = {"function": {"name": "g"}}
    messages = [
        {"role": "assistant", "tool_calls": [unnamed, call]},
        {"role": "tool", "content": "1", "tool_call_id": "call_x"},
        {"role": "tool", "content": "2", "tool_call_id": "call_of_long_ago"},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "4"},
    ]
    asked, *results = chat(messages=messages)["messages"]
    assert [result["tool_call_id"] for result in results] == [
        "call_x",
        "call_of_long_ago",
        asked["tool_calls"][0]["id"],
        "call_unknown",
    ]


def test_generate_becomes_a_chat_with_its_system_message_first() -> None:
    translated = to_openai(
        "/api/generate", b'{"model": "m", "prompt": "hi", "system": "Be kind.", "images": []}'
    )
    assert translated.path == "/v1/chat/completions"
    assert translated.reply is Reply.GENERATE
    assert json.loads(translated.body)["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "hi"},
    ]
    assert generate(images=[PNG])["messages"][0]["content"][1]["type"] == "image_url"


def test_raw_generate_becomes_a_completion() -> None:
    exchange = load("ollama", "generate_raw")
    translated = to_openai(exchange.path, exchange.request.encode())
    assert translated.path == "/v1/completions"
    body = json.loads(translated.body)
    assert body["prompt"] == "The sky is"
    assert "messages" not in body


def test_raw_generate_says_its_schema_in_both_words() -> None:
    schema = {"type": "object", "required": ["a"]}
    body = generate(raw=True, format=schema)
    assert body["json_schema"] == schema
    assert body["response_format"]["json_schema"]["schema"] == schema
    assert generate(raw=True, format="json")["json_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"template": "{{ .Prompt }}"}, "template"),
        ({"context": [1, 2]}, "context"),
        ({"suffix": "b"}, "suffix"),
        ({"raw": True, "images": [PNG]}, "images"),
    ],
)
def test_what_would_be_lost_is_refused_as_what_only_ollama_can(
    body: dict[str, Any], field: str
) -> None:
    error = refusal(
        "/api/generate", {"model": "m", "prompt": "a", "keep_alive": 3, "stream": False, **body}
    )
    assert (error.field, error.status) == (field, 400)
    assert isinstance(error, OnlyOllamaCan)
    assert error.request == Translated("", b"", "m", False, Reply.GENERATE)


@pytest.mark.parametrize(
    ("name", "immediate"),
    [
        ("chat_load", "load"),
        ("chat_unload", "unload"),
        ("generate_load", "load"),
        ("generate_unload", "unload"),
        ("embed_empty", "load"),
        ("embeddings_empty", "load"),
    ],
)
def test_a_recorded_load_or_unload_needs_no_openai_request(name: str, immediate: str) -> None:
    exchange = load("ollama", name)
    translated = to_openai(exchange.path, exchange.request.encode())
    assert translated.immediate == immediate
    assert translated.path == ""
    assert not translated.stream


def test_embeddings_never_unload() -> None:
    for path in ("/api/embed", "/api/embeddings"):
        assert to_openai(path, b'{"model": "m", "keep_alive": 0}').immediate == "load"


def test_embed_takes_one_text_or_many() -> None:
    assert openai("/api/embed", {"model": "m", "input": "a"}) == {
        "model": "m",
        "input": "a",
        "encoding_format": "float",
    }
    assert openai("/api/embed", {"model": "m", "input": ["a", "b"]})["input"] == ["a", "b"]
    assert openai("/api/embeddings", {"model": "m", "prompt": "a"})["input"] == "a"


def test_embed_cuts_vectors_itself_and_inputs_only_on_demand() -> None:
    translated = to_openai("/api/embed", b'{"model": "m", "input": "a", "dimensions": 4}')
    assert translated.dimensions == 4
    assert b"dimensions" not in translated.body
    assert (
        openai("/api/embed", {"model": "m", "input": "a", "truncate": True})[
            "truncate_prompt_tokens"
        ]
        == -1
    )
    assert "truncate_prompt_tokens" not in openai(
        "/api/embed", {"model": "m", "input": "a", "truncate": False}
    )
    assert (
        to_openai("/api/embed", b'{"model": "m", "input": "a", "dimensions": -1}').dimensions == 0
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (300, 300),
        (0, 0),
        (1.5, 1.5),
        (-1, math.inf),
        ("5m", 300),
        ("1h30m", 5400),
        ("-1s", math.inf),
        ("+2s", 2),
        ("0", 0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("2ms", 0.002),
        ("3µs", 3e-6),
    ],
)
def test_keep_alive_is_read_as_go_reads_durations(value: Any, seconds: float) -> None:
    assert parse_keep_alive(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["soon", "5", "", "--1s", "1s2", "+-0"])
def test_what_is_no_duration_is_refused(value: str) -> None:
    for path in PATHS:
        error = refusal(path, {"model": "m", "keep_alive": value})
        assert error.field == "keep_alive"
        assert f'time: invalid duration "{value}"' in error.sentence


@pytest.mark.parametrize(
    "name",
    [
        "chat_no_body",
        "chat_no_model",
        "generate_no_model",
        "embeddings_no_model",
        "generate_raw_with_system",
        "chat_bad_top_logprobs",
    ],
)
def test_a_recorded_refusal_is_repeated_word_for_word(name: str) -> None:
    exchange = load("ollama", name)
    error = refusal(exchange.path, exchange.request.encode())
    assert error.status == exchange.status
    assert error.body == exchange.body


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("chat_bad_json", ""),
        ("chat_not_an_object", ""),
        ("chat_wrong_type", "messages"),
        ("chat_bad_think", "think"),
        ("chat_bad_keep_alive", "keep_alive"),
        ("chat_images_not_base64", "messages[0].images[0]"),
        ("embed_bad_input", "input"),
        ("embed_bad_item", "input[1]"),
    ],
)
def test_what_ollama_refuses_is_refused_with_its_status_and_the_field(
    name: str, field: str
) -> None:
    exchange = load("ollama", name)
    error = refusal(exchange.path, exchange.request.encode())
    assert error.status == exchange.status
    assert error.field == field
    assert field in error.sentence


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("chat_bad_option", "options.temperature"),
        ("chat_bad_format", "format"),
        ("embed_no_model", "model"),
    ],
)
def test_the_callers_fault_is_400_even_where_ollama_says_500(name: str, field: str) -> None:
    exchange = load("ollama", name)
    assert exchange.status == 500
    error = refusal(exchange.path, exchange.request.encode())
    assert (error.status, error.field) == (400, field)


def test_a_wrong_type_is_told_in_the_words_of_json() -> None:
    error = refusal("/api/chat", {"model": 3})
    assert error.sentence == "model: expected string, got integer"
    assert refusal("/api/chat", [1]).sentence == "request body: expected object, got array"
    assert refusal("/api/embed", {"model": "m"} | {"input": 3}).field == "input"


def test_arguments_of_a_call_must_be_an_object() -> None:
    messages = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": []}}]}]
    error = refusal("/api/chat", {"model": "m", "messages": messages})
    assert error.field == "messages[0].tool_calls[0].function.arguments"


def test_arguments_that_are_null_are_none() -> None:
    call = {"function": {"name": "f", "arguments": None}}
    messages = [{"role": "assistant", "tool_calls": [call]}]
    sent = openai("/api/chat", {"model": "m", "messages": messages})
    assert sent["messages"][0]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_a_message_without_a_role_is_for_a_template_to_read() -> None:
    for message in ({"content": "hi"}, {"role": None, "content": "hi"}):
        error = refusal("/api/chat", {"model": "m", "messages": [message]})
        assert isinstance(error, OnlyOllamaCan)
        assert error.field == "messages[0].role"
        assert error.request == Translated("", b"", "m", True, Reply.CHAT)


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b'{"model":"m"} trailing', {"model": "m"}),
        (b' {"model":"m"}{"model":"n"}', {"model": "m"}),
        (b'{"Model":"m","STREAM":false}', {"model": "m", "stream": False}),
        (b'{"MODEL":"m","model":"n"}', {"model": "n"}),
    ],
)
def test_a_body_is_read_as_go_reads_it(body: bytes, read: Any) -> None:
    assert json.loads(as_go_reads(body)) == read


@pytest.mark.parametrize("body", [b"", b"[1]x", b"{", b'{"a":"\xff"}', b"[" * 100_000])
def test_what_go_does_not_read_stays_as_it_is(body: bytes) -> None:
    assert as_go_reads(body) is body


@pytest.mark.parametrize(
    "body", [b'{"x":' + b"[" * 100_000, b'{"model":"\xff"}', b'{"a":1}x', b" "]
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    assert refusal("/api/chat", body).status == 400


@pytest.mark.parametrize(
    "name",
    [
        "chat_unknown_model",
        "generate_unknown_model",
        "embed_unknown_model",
        "embeddings_unknown_model",
        "show_unknown_model",
    ],
)
def test_an_unknown_model_gets_the_recorded_answer(name: str) -> None:
    exchange = load("ollama", name)
    error = unknown_model(exchange.path, "nope")
    assert (error.status, error.body) == (exchange.status, exchange.body)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = [
    "messages",
    "prompt",
    "input",
    "options",
    "format",
    "tools",
    "think",
    "keep_alive",
    "stream",
    "raw",
    "images",
    "logprobs",
    "top_logprobs",
    "dimensions",
    "truncate",
    "context",
    "system",
]
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]) | ANYTHING},
        optional={
            "content": st.text() | ANYTHING,
            "images": st.lists(st.sampled_from([PNG, "?", "AAAA"])) | ANYTHING,
            "tool_calls": st.lists(
                st.fixed_dictionaries({"function": st.fixed_dictionaries({"arguments": ANYTHING})})
            ),
            "tool_name": st.text(max_size=3),
            "tool_call_id": st.text(max_size=3),
        },
    ),
    max_size=3,
)


@given(
    path=st.sampled_from(PATHS),
    body=st.dictionaries(st.sampled_from(FIELDS), ANYTHING),
    messages=MESSAGES | st.none(),
    prompt=st.text() | st.none(),
)
def test_any_json_is_translated_to_json_or_refused_with_a_sentence(
    path: str, body: dict[str, Any], messages: Any, prompt: str | None
) -> None:
    body = {"model": "m", **body}
    if messages is not None:
        body["messages"] = messages
    if prompt is not None:
        body["prompt"] = body["input"] = prompt
    _translate_or_refuse(path, json.dumps(body).encode())


@given(path=st.sampled_from(PATHS), body=st.binary() | st.text().map(str.encode))
def test_any_bytes_are_translated_or_refused_with_a_sentence(path: str, body: bytes) -> None:
    _translate_or_refuse(path, body)


def _translate_or_refuse(path: str, data: bytes) -> None:
    translated: Translated | OllamaRequestError
    try:
        translated = to_openai(path, data)
    except OllamaRequestError as error:
        translated = error
    if isinstance(translated, Translated):
        assert translated.immediate or isinstance(json.loads(translated.body), dict)
        return
    assert translated.sentence
    assert json.loads(translated.body) == {"error": translated.sentence}
    assert translated.status in {400, 404}
