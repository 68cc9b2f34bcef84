"""Anthropic's and Ollama's APIs by their own clients."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import ollama
import pytest
from conformance.suite.gateway import CHAT, EMBEDDINGS, QUESTION
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

OPTIONS = {"temperature": 0, "seed": 1, "num_predict": 8}


@pytest.fixture
def model(gateway: Gateway) -> str:
    return gateway.model(CHAT)


@line("api.messages", "Anthropic's client gets a message, a stream, and a count of tokens")
def test_anthropics_client(gateway: Gateway, model: str) -> None:
    gateway.need("/v1/messages")
    try:
        answer = gateway.anthropic.messages.create(model=model, messages=QUESTION, max_tokens=16)
    except anthropic.APIStatusError as error:
        if error.status_code in (400, 404, 501):
            raise NotSupported(f"{model}: {error.message}") from None
        raise
    assert answer.content[0].type == "text"
    assert answer.usage.output_tokens > 0
    with gateway.anthropic.messages.stream(model=model, messages=QUESTION, max_tokens=8) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert pieces
    assert final.stop_reason in ("end_turn", "max_tokens")
    if "/v1/messages/count_tokens" in gateway.paths:
        count = gateway.anthropic.messages.count_tokens(model=model, messages=QUESTION)
        assert count.input_tokens > 0


@line("api.messages.errors", "Anthropic's client gets its own kinds of error")
def test_anthropics_errors(gateway: Gateway) -> None:
    gateway.need("/v1/messages")
    with pytest.raises(anthropic.NotFoundError) as caught:
        gateway.anthropic.messages.create(model="no-such", messages=QUESTION, max_tokens=1)
    body: Any = caught.value.body
    assert body["type"] == "error"


@line("api.ollama.catalog", "Ollama's client lists, describes and looks at what is loaded")
def test_ollamas_catalogue(gateway: Gateway, model: str, evidence: Evidence) -> None:
    gateway.need("/api/tags")
    names = {entry.model for entry in gateway.ollama.list().models}
    assert model in names
    assert "completion" in (gateway.ollama.show(model).capabilities or [])
    gateway.ollama.ps()
    version = gateway.get("/api/version")["version"]
    assert version
    evidence("version", version)


@line("api.ollama.chat", "Ollama's client chats, and a stream is the whole in pieces")
def test_ollamas_chat(gateway: Gateway, model: str, evidence: Evidence) -> None:
    gateway.need("/api/chat")
    whole, again = (gateway.ollama.chat(model, QUESTION, options=OPTIONS) for _ in range(2))
    *pieces, last = gateway.ollama.chat(model, QUESTION, options=OPTIONS, stream=True)
    text = "".join(piece.message.content or "" for piece in [*pieces, last])
    assert whole.message.content
    assert last.done
    assert last.done_reason in ("stop", "length")
    assert (last.eval_count or 0) > 0
    assert not any(piece.done for piece in pieces), "done comes before the end"
    if whole.message.content == again.message.content:
        assert text == whole.message.content
    evidence("text", repr(text))


@line("api.ollama.generate", "Ollama's client continues a prompt, whole and streamed")
def test_ollamas_generate(gateway: Gateway, model: str) -> None:
    gateway.need("/api/generate")
    whole = gateway.ollama.generate(model, "The sky is", options=OPTIONS)
    assert whole.done
    assert whole.response
    *_, last = gateway.ollama.generate(model, "The sky is", options=OPTIONS, stream=True)
    assert last.done


@line("api.ollama.embed", "Ollama's client gets vectors, by the new and by the old call")
def test_ollamas_embeddings(gateway: Gateway) -> None:
    gateway.need("/api/embed")
    model = gateway.model(EMBEDDINGS)
    one, other = gateway.ollama.embed(model, ["a river", "a tax return"]).embeddings
    assert len(one) == len(other) > 1
    old = gateway.ollama.embeddings(model, "a river").embedding
    assert len(old) == len(one)


@line("api.ollama.errors", "Ollama's client gets an error with a sentence")
def test_ollamas_errors(gateway: Gateway) -> None:
    gateway.need("/api/chat")
    with pytest.raises(ollama.ResponseError) as caught:
        gateway.ollama.chat("no-such", QUESTION)
    assert caught.value.status_code == 404
    answer = gateway.http.post("/api/chat", json={"model": 7, "messages": []})
    assert answer.status_code == 400
    assert isinstance(json.loads(answer.text)["error"], str)
