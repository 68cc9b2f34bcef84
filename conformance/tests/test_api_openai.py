"""OpenAI's API by OpenAI's own client."""

from __future__ import annotations

import base64
import json
import struct
import time
from typing import TYPE_CHECKING, Any

import openai
import pytest
from conformance.suite.gateway import CHAT, EMBEDDINGS, QUESTION, chat_body, deltas, model_path, sse
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

ENOUGH = 24
"""Tokens that take long enough for a stream to be seen coming."""
APART = 0.002
"""Seconds between arrivals that are not of one burst."""


@pytest.fixture
def model(gateway: Gateway) -> str:
    return gateway.model(CHAT)


# -- models


@line("api.models.list", "GET /v1/models lists every model once")
def test_models_are_listed_once(gateway: Gateway, evidence: Evidence) -> None:
    names = [model.id for model in gateway.openai.models.list()]
    assert len(names) == len(set(names)), f"listed twice: {names}"
    evidence("models", len(names))


@line(
    "api.models.retrieve",
    "Each model, and each alias, is found by its name, with / and : as they are",
)
def test_each_model_is_found(gateway: Gateway, evidence: Evidence) -> None:
    asked = 0
    for model in gateway.models:
        for name in (model["id"], *model.get("aliases", [])):
            assert gateway.openai.models.retrieve(name).id == model["id"]
            assert gateway.get(model_path(name))["id"] == model["id"]
            asked += 1
    evidence("names", asked)


@line("api.models.unknown", "A model that is not there is a 404 with the code model_not_found")
def test_an_unknown_model_is_not_found(gateway: Gateway) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        gateway.openai.models.retrieve("no/such:model")
    assert caught.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError) as caught:
        gateway.openai.chat.completions.create(model="no/such:model", messages=QUESTION)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


# -- chat


@line("api.chat", "Every chat model answers, and says why it ended and what it used")
def test_every_chat_model_answers(gateway: Gateway, model: str, evidence: Evidence) -> None:
    del model
    for name in gateway.capable[CHAT]:
        begun = time.monotonic()
        answer = gateway.openai.chat.completions.create(
            model=name, messages=QUESTION, max_tokens=16, temperature=0
        )
        choice = answer.choices[0]
        assert choice.message.content, f"{name} says nothing"
        assert choice.finish_reason in ("stop", "length"), f"{name}: {choice.finish_reason}"
        assert answer.usage is not None, f"{name} does not say what it used"
        used = answer.usage
        assert used.total_tokens == used.prompt_tokens + used.completion_tokens
        assert used.completion_tokens > 0
        evidence(name, f"{choice.message.content.strip()!r} in {time.monotonic() - begun:.2f} s")


@line("api.chat.stream", "A streamed chat says the same in pieces and ends once, with [DONE]")
def test_a_stream_is_the_whole_in_pieces(gateway: Gateway, model: str, evidence: Evidence) -> None:
    body = chat_body(model)
    whole, again = (
        gateway.openai.chat.completions.create(**body).choices[0].message.content for _ in range(2)
    )
    raw = gateway.http.post("/v1/chat/completions", json={**body, "stream": True})
    assert raw.status_code == 200, raw.text
    assert raw.headers["content-type"].startswith("text/event-stream")
    events = sse(raw.text)
    assert events, "no event at all"
    assert events[-1] == "[DONE]", f"the last event is {events[-1][:200]!r}"
    assert events.count("[DONE]") == 1, "[DONE] comes more than once"
    assert raw.text.rstrip().endswith("[DONE]"), "something follows [DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert len({chunk["id"] for chunk in chunks}) == 1, "the id changes within the stream"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    reasons = [
        c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c.get("finish_reason")
    ]
    assert len(reasons) == 1, f"finish_reason comes {len(reasons)} times"
    text = deltas(events)
    evidence("text", repr(text))
    evidence("pieces", len(chunks))
    if whole == again:
        assert text == whole, f"streamed {text!r}, whole {whole!r}"
    else:
        evidence("compared", "no: the engine itself answers the same question in two ways")


@line("api.chat.stream.live", "Pieces of a stream arrive as they are made")
def test_a_stream_comes_as_it_is_made(gateway: Gateway, model: str, evidence: Evidence) -> None:
    story: Any = [{"role": "user", "content": "Write a long story about a river."}]
    body = chat_body(model, messages=story, max_tokens=ENOUGH, stream=True)
    arrivals: list[float] = []
    tokens = 0
    with gateway.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for data in answer.iter_raw():
            now = time.monotonic()
            tokens += data.count(b'"content"')
            # Pieces that wait together are read together, however late the reader comes.
            if not arrivals or now - arrivals[-1] > APART:
                arrivals.append(now)
    if tokens < 4:
        raise NotSupported(f"the answer has {tokens} pieces: too few to tell")
    evidence("arrivals", f"{len(arrivals)}, over {arrivals[-1] - arrivals[0]:.2f} s")
    assert len(arrivals) > 2, "all pieces came at once: something on the way collects them"


@line("api.chat.usage", "A stream tells its usage at the end, if it is asked to, and only then")
def test_usage_at_the_end_of_a_stream(gateway: Gateway, model: str) -> None:
    body = chat_body(model, max_tokens=3, stream=True)
    with gateway.openai.chat.completions.create(**body) as stream:
        assert all(chunk.usage is None for chunk in stream), "usage came unasked"
    asked: Any = {"stream_options": {"include_usage": True}}
    with gateway.openai.chat.completions.create(**body, **asked) as stream:
        *_, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens > 0


@line(
    "api.chat.headers", "Headers say which backend answered, which model, and in how many attempts"
)
def test_the_headers_say_who_answered(gateway: Gateway, model: str, evidence: Evidence) -> None:
    raw = gateway.openai.chat.completions.with_raw_response.create(
        **chat_body(model, max_tokens=1), extra_headers={"x-request-id": "conformance-1"}
    )
    assert raw.headers["x-request-id"] == "conformance-1"
    assert raw.headers["x-synapse-backend"] in gateway.health["backends"]
    assert raw.headers["x-synapse-model"] == model
    assert int(raw.headers["x-synapse-attempts"]) >= 1
    evidence("answered by", raw.headers["x-synapse-backend"])


@line("api.chat.auto", "Without a model the gateway chooses one, and says which")
def test_the_gateway_chooses_a_model(gateway: Gateway, model: str, evidence: Evidence) -> None:
    del model
    chosen = []
    for name in ("auto", "", None):
        body = chat_body("", max_tokens=1)
        if name is None:
            del body["model"]
        else:
            body["model"] = name
        answer = gateway.http.post("/v1/chat/completions", json=body)
        if answer.status_code in (400, 404) and "auto" in answer.text:
            raise NotSupported(answer.json()["error"]["message"])
        assert answer.status_code == 200, answer.text
        chosen.append(answer.headers["x-synapse-model"])
    assert len(set(chosen)) == 1, f"three times the same question, three models: {chosen}"
    evidence("chose", chosen[0])


@line("api.chat.json", "An answer can be held to a JSON schema")
def test_an_answer_by_a_schema(gateway: Gateway, model: str, evidence: Evidence) -> None:
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 12}},
        "required": ["capital"],
        "additionalProperties": False,
    }
    answer = gateway.http.post(
        "/v1/chat/completions",
        json=chat_body(
            model,
            max_tokens=40,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "capital", "schema": schema, "strict": True},
            },
        ),
    )
    if answer.status_code in (400, 501):
        raise NotSupported(f"{model}: {answer.json()['error']['message']}")
    assert answer.status_code == 200, answer.text
    content = answer.json()["choices"][0]["message"]["content"]
    evidence("answer", content)
    try:
        found = json.loads(content)
    except ValueError:
        raise NotSupported(
            f"{model} takes the schema and does not keep to it: {content!r}"
        ) from None
    assert isinstance(found.get("capital"), str)


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@line("api.chat.tools", "A model can call a tool")
def test_a_tool_is_called(gateway: Gateway, evidence: Evidence) -> None:
    gateway.model(CHAT)
    said = []
    for name in gateway.capable[CHAT]:
        answer = gateway.http.post(
            "/v1/chat/completions",
            json={
                "model": name,
                "messages": [{"role": "user", "content": "How is the weather in Tokyo?"}],
                "tools": [TOOL],
                "tool_choice": "required",
                "max_tokens": 60,
                "temperature": 0,
            },
        )
        assert answer.status_code in (200, 400, 501), answer.text
        if answer.status_code != 200:
            said.append(f"{name}: {answer.json()['error']['message'][:80]}")
            continue
        message = answer.json()["choices"][0]["message"]
        if not message.get("tool_calls"):
            said.append(f"{name} answers in prose")
            continue
        call = message["tool_calls"][0]["function"]
        assert call["name"] == "get_weather"
        assert "city" in json.loads(call["arguments"])
        evidence(name, f"{call['name']}({call['arguments']})")
        return
    raise NotSupported("; ".join(said))


# -- completions, embeddings, responses


@line("api.completions", "A text is continued, whole and streamed")
def test_a_text_is_continued(gateway: Gateway, model: str) -> None:
    gateway.need("/v1/completions")
    body: Any = {"model": model, "prompt": "The sky is", "max_tokens": 6, "temperature": 0}
    try:
        whole = gateway.openai.completions.create(**body)
    except (openai.BadRequestError, openai.InternalServerError) as error:
        if error.status_code in (400, 501):
            raise NotSupported(f"{model}: {error.message}") from None
        raise
    assert whole.choices[0].finish_reason in ("stop", "length")
    with gateway.openai.completions.create(**body, stream=True) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]


@line("api.embeddings", "Every embedding model gives vectors, in order, as numbers and as base64")
def test_embeddings(gateway: Gateway, evidence: Evidence) -> None:
    gateway.model(EMBEDDINGS)
    for name in gateway.capable[EMBEDDINGS]:
        texts = ["a river", "a tax return", "a river"]
        # the client itself asks for base64, and decodes it
        answer = gateway.openai.embeddings.create(model=name, input=texts)
        assert [entry.index for entry in answer.data] == [0, 1, 2]
        river, tax, again = (entry.embedding for entry in answer.data)
        assert len(river) == len(tax) > 1
        assert max(abs(a - b) for a, b in zip(river, again, strict=True)) < 1e-3
        assert river != tax, f"{name} gives every text the same vector"
        plain = gateway.openai.embeddings.create(
            model=name, input="a river", encoding_format="float"
        )
        assert max(abs(a - b) for a, b in zip(river, plain.data[0].embedding, strict=True)) < 1e-2
        raw = gateway.http.post(
            "/v1/embeddings", json={"model": name, "input": "a river", "encoding_format": "base64"}
        ).json()["data"][0]["embedding"]
        if isinstance(raw, str):
            decoded = base64.b64decode(raw)
            assert len(struct.unpack(f"<{len(decoded) // 4}f", decoded)) == len(river)
        evidence(name, f"{len(river)} numbers")


@line("api.responses", "The Responses API answers, whole and streamed")
def test_responses(gateway: Gateway, model: str) -> None:
    gateway.need("/v1/responses")
    try:
        answer = gateway.openai.responses.create(
            model=model, input="Say hello.", max_output_tokens=16
        )
    except openai.APIStatusError as error:
        if error.status_code in (400, 404, 501):
            raise NotSupported(f"{model}: {error.message}") from None
        raise
    assert answer.output_text
    with gateway.openai.responses.create(
        model=model, input="Say hello.", max_output_tokens=16, stream=True
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[0] == "response.created"
    assert "response.output_text.delta" in kinds
    assert kinds[-1] in ("response.completed", "response.incomplete")


@line("api.rerank", "Documents are ordered by how well they fit a query")
def test_rerank(gateway: Gateway) -> None:
    gateway.need("/v1/rerank")
    reasons = []
    for model in gateway.models:
        answer = gateway.http.post(
            "/v1/rerank",
            json={"model": model["id"], "query": "a river", "documents": ["water", "tax"]},
        )
        if answer.status_code == 200:
            assert len(answer.json()["results"]) == 2
            return
        assert answer.status_code in (400, 404, 501), f"{model['id']}: {answer.text}"
        reasons.append(f"{model['id']}: {answer.status_code}")
    raise NotSupported(f"no model reranks ({', '.join(reasons)})")
