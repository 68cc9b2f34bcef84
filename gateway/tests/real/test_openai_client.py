"""The official `openai` client against the gateway in front of real model servers."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import TYPE_CHECKING, Any

import openai
import pytest

if TYPE_CHECKING:
    from tests.real.stack import Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

QUESTION: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALLED = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tokyo"}}\n</tool_call>'
ASKED: Any = {"role": "user", "content": "weather in Tokyo"}
# Two calls in the history make this small model write a third.
WEATHER: list[Any] = [
    ASKED,
    {"role": "assistant", "content": CALLED},
    ASKED,
    {"role": "assistant", "content": CALLED},
    ASKED,
]


def test_a_chat_is_answered_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2", messages=QUESTION, temperature=0, max_tokens=16
    )
    assert len(answer.choices[0].message.content or "") > 10
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_a_streamed_chat_says_the_same_in_pieces(client: openai.OpenAI) -> None:
    same: Any = {"model": "smollm2", "messages": QUESTION, "temperature": 0, "max_tokens": 8}
    whole = client.chat.completions.create(**same)
    with client.chat.completions.create(**same, stream=True) as stream:
        chunks = list(stream)
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == whole.choices[0].message.content
    assert sum(bool(piece) for piece in pieces) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks[-2:]] == [None, "length"]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_comes_at_the_end_of_a_stream_when_it_is_asked_for(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        max_tokens=3,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        *_, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 3


def test_the_headers_say_who_answered(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=QUESTION,
        max_tokens=1,
        extra_headers={"x-request-id": "my-own-id"},
    )
    assert raw.headers["x-synapse-backend"] == "chat-a"
    assert raw.headers["x-synapse-model"] == "smollm2"
    assert raw.headers["x-synapse-attempts"] == "1"
    assert raw.headers["x-request-id"] == "my-own-id"
    assert raw.parse().model == "smollm2"


def test_auto_chooses_a_model_and_says_why(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=QUESTION, max_tokens=1
    )
    assert raw.headers["x-synapse-model"] == "smollm2"
    assert raw.headers["x-synapse-route"] == "auto:default"


def test_a_model_calls_a_tool(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="smollm2-tools", messages=WEATHER, tools=[TOOL], temperature=0, max_tokens=60
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Tokyo"}


def test_a_streamed_tool_call_arrives_whole(client: openai.OpenAI) -> None:
    with client.chat.completions.create(
        model="smollm2-tools",
        messages=WEATHER,
        tools=[TOOL],
        temperature=0,
        max_tokens=60,
        stream=True,
    ) as stream:
        deltas = [chunk.choices[0] for chunk in stream]
    parts = [call.function for d in deltas for call in d.delta.tool_calls or [] if call.function]
    assert "".join(part.name or "" for part in parts) == "get_weather"
    assert json.loads("".join(part.arguments or "" for part in parts)) == {"city": "Tokyo"}
    assert deltas[-1].finish_reason == "tool_calls"


def test_a_tools_result_is_read(client: openai.OpenAI) -> None:
    call = {"name": "get_weather", "arguments": '{"city": "Tokyo"}'}
    history: list[Any] = [
        ASKED,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "11 degrees"},
    ]
    answer = client.chat.completions.create(
        model="smollm2-tools", messages=history, tools=[TOOL], max_tokens=8
    )
    assert answer.choices[0].message.content


def test_a_schema_shapes_the_answer(client: openai.OpenAI) -> None:
    schema: Any = {
        "type": "object",
        "properties": {"river": {"type": "boolean"}},
        "required": ["river"],
    }
    answer = client.chat.completions.create(
        model="smollm2",
        messages=QUESTION,
        max_tokens=24,
        response_format={"type": "json_schema", "json_schema": {"name": "r", "schema": schema}},
    )
    assert isinstance(json.loads(answer.choices[0].message.content or "")["river"], bool)


def test_a_text_is_continued(client: openai.OpenAI) -> None:
    same: Any = {"model": "smollm2", "prompt": "1, 2, 3, 4,", "temperature": 0, "max_tokens": 4}
    whole = client.completions.create(**same)
    with client.completions.create(**same, stream=True) as stream:
        pieces = [chunk.choices[0].text for chunk in stream]
    assert "5" in whole.choices[0].text
    assert "".join(pieces) == whole.choices[0].text


def test_texts_become_vectors_of_length_one(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(
        model="all-minilm", input=["a river", "a stream", "a tax form"], encoding_format="float"
    )
    river, stream, form = (item.embedding for item in answer.data)
    assert [len(river), math.hypot(*river)] == [384, pytest.approx(1, abs=1e-3)]
    assert _dot(river, stream) > _dot(river, form)
    encoded = client.embeddings.with_raw_response.create(
        model="all-minilm", input="a river", encoding_format="base64"
    )
    raw = json.loads(encoded.text)["data"][0]["embedding"]
    assert struct.unpack("<384f", base64.b64decode(raw)) == pytest.approx(river, abs=1e-3)


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_the_responses_api_is_passed_through(client: openai.OpenAI) -> None:
    answer = client.responses.create(model="smollm2", input="Say hello.", max_output_tokens=4)
    assert answer.output_text
    with client.responses.create(
        model="smollm2", input="Say hello.", max_output_tokens=4, stream=True
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] == "response.completed"


def test_the_models_are_listed_and_described(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"smollm2", "all-minilm", "piper", "whisper", "acme/smollm2:135m"} <= set(names)
    assert len(names) == len(set(names))
    assert client.models.retrieve("acme/smollm2:135m").id == "acme/smollm2:135m"
    assert client.models.retrieve("gpt-4o-mini").id == "smollm2"


def test_a_name_with_slash_and_colon_serves_and_stays_in_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="acme/smollm2:135m", messages=QUESTION, max_tokens=1
    )
    assert answer.model == "acme/smollm2:135m"


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "'gpt-9'" in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"n": 10**9}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "hi"}]}, "messages[0]"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_bad_field_is_a_bad_request_that_names_it(
    client: openai.OpenAI, change: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            **{"model": "smollm2", "messages": QUESTION, "max_tokens": 1, **change}
        )
    assert caught.value.param == param
    assert param in caught.value.message


def test_a_prompt_that_is_too_long_is_a_bad_request(client: openai.OpenAI) -> None:
    long: list[Any] = [{"role": "user", "content": "word " * 5000}]
    with pytest.raises(openai.BadRequestError, match="exceeds the available context size"):
        client.chat.completions.create(model="smollm2", messages=long, max_tokens=1)


def test_a_wrong_key_is_an_authentication_error(stack: Stack) -> None:
    key = "sk-nobody"
    with (
        openai.OpenAI(base_url=f"{stack.url}/v1", api_key=key, max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.models.list()
    assert caught.value.code == "invalid_api_key"
    assert caught.value.response.headers["www-authenticate"] == "Bearer"
    assert key not in caught.value.message


def test_a_backend_that_is_gone_is_a_503_with_a_time_to_come_back(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="gone", messages=QUESTION)
    assert caught.value.status_code == 503
    assert caught.value.type == "service_unavailable_error"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert "127.0.0.1" not in caught.value.response.text


def test_a_model_that_cannot_chat_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="all-minilm", messages=QUESTION)
    assert caught.value.code == "model_not_capable"
