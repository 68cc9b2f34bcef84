"""What becomes of a caller's request, over a real gateway and a backend that tells what it got."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from synapse_gateway import app
from synapse_gateway.config.settings import (
    Auto,
    AutoRule,
    Backend,
    BackendType,
    Model,
    Policy,
    Route,
    Target,
)
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.answers import wav
from tests.api.audio_support import Received
from tests.api.support import CHAT, LONG, settings_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.app import Running

MESSAGES = [{"role": "user", "content": "hi"}]
RULES = (
    AutoRule(name="pictures", model="general", images=True),
    AutoRule(name="tools", model="coder", tools=True),
    AutoRule(name="code", model="coder", keywords=("python", "stack trace")),
    AutoRule(name="long", model="coder", min_chars=500),
)


def model(name: str, **more: Any) -> Model:
    return Model(targets=(Target(backend="b", model=name),), timeouts=LONG, **more)


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as running:
        running.probes["/v1/models"] = scripts.models()
        yield running


@pytest.fixture
async def gateway(upstream: FaultyUpstream) -> AsyncIterator[Running]:
    base = settings_for(upstream.url)
    backends = {
        **base.backends,
        "ears": Backend(url=upstream.url, type=BackendType.FASTER_WHISPER, probe_interval=3600.0),
    }
    models = {
        "general": model("general-8b", aliases=("gpt-4o",)),
        "coder": model("coder-7b"),
        "renamed": model("inner", rewrite_model=True),
        "warm": model("warm", policy=Policy.PREFIX_AFFINITY),
        "listener": Model(targets=(Target(backend="ears"),), timeouts=LONG),
    }
    settings = msgspec.structs.replace(
        base,
        backends=backends,
        models=models,
        auto=Auto(default="general", rules=RULES),
        routes={"/v1/embeddings": Route(backend="b")},
    )
    async with app.running(settings) as running:
        yield running


async def ask(gateway: Running, path: str = CHAT, **fields: Any) -> wire.Answer:
    body = {"messages": MESSAGES, **fields} if path == CHAT else fields
    return await wire.post(gateway.url, path, body)


# -- auto


@pytest.mark.parametrize("name", ["auto", "", None, "synapse:auto", "synapse-auto"])
@pytest.mark.parametrize(
    ("fields", "chosen", "rule"),
    [
        ({}, "general", "default"),
        ({"messages": [{"role": "user", "content": "Write Python."}]}, "coder", "code"),
        ({"messages": [{"role": "user", "content": "x" * 500}]}, "coder", "long"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "coder", "tools"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "general",
            "pictures",
        ),
        (
            {"messages": [{"role": "system", "content": "python"}, *MESSAGES]},
            "general",
            "default",
        ),
    ],
    ids=["plain", "code", "long", "tools", "picture", "only-the-user-counts"],
)
async def test_auto_picks_a_model_and_says_why(
    gateway: Running, name: str | None, fields: dict[str, Any], chosen: str, rule: str
) -> None:
    asked = {} if name is None else {"model": name}
    answer = await ask(gateway, **asked, **fields)
    assert answer.header("x-synapse-model") == chosen
    assert answer.header("x-synapse-route") == f"auto:{rule}"


async def test_auto_reads_the_input_of_the_responses_api(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    upstream.queue(scripts.status(200, body=b"{}"))
    answer = await ask(gateway, "/v1/responses", input="Explain this stack trace.")
    assert answer.header("x-synapse-route") == "auto:code"


async def test_what_does_not_chat_takes_the_first_model_that_can(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    answer = await ask(gateway, "/v1/embeddings", input="hi")
    assert (answer.status, answer.header("x-synapse-route")) == (200, None)
    assert upstream.requests[-1].model == "general-8b"


async def test_a_named_model_has_no_route_to_explain(gateway: Running) -> None:
    assert (await ask(gateway, model="coder")).header("x-synapse-route") is None


# -- names


@pytest.mark.parametrize("name", ["general", "gpt-4o", "general:latest"])
async def test_a_backend_is_asked_by_its_own_name(
    gateway: Running, upstream: FaultyUpstream, name: str
) -> None:
    answer = await ask(gateway, model=name)
    assert upstream.requests[-1].model == "general-8b"
    assert answer.json()["model"] == "general-8b", "and its answer stays as it wrote it"
    assert answer.header("x-synapse-model") == "general"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_route_may_say_that_answers_bear_the_callers_name(
    gateway: Running, upstream: FaultyUpstream, *, stream: bool
) -> None:
    answer = await ask(gateway, model="renamed", stream=stream)
    assert upstream.requests[-1].model == "inner"
    datas = answer.events()[:-1] if stream else [answer.body.decode()]
    assert {json.loads(data)["model"] for data in datas} == {"renamed"}
    assert answer.text() == "alpha beta gamma"


async def test_an_odd_event_of_a_renamed_stream_passes(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    chunk = b'data: {"model":"inner","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    upstream.queue(
        scripts.raw(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
            b": ping {x}\n\n: pong\n\n" + chunk + b"data: [DONE]\n\n",
            then=scripts.Close(),
        )
    )
    answer = await ask(gateway, model="renamed", stream=True)
    assert answer.body == b": ping {x}\n\n: pong\n\n" + chunk.replace(b"inner", b"renamed") + (
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize("name", ["nobody", "x\r\nset-cookie: a=b", "größe", "x" * 5000])
async def test_an_unknown_model_is_404(gateway: Running, name: str) -> None:
    answer = await ask(gateway, model=name)
    assert (answer.status, (answer.error() or {})["code"]) == (404, "model_not_found")
    assert (answer.error() or {})["param"] == "model"
    assert answer.header("set-cookie") is None


@pytest.mark.parametrize("name", ["unlisted", "x\r\nset-cookie: a=b", "größe"])
async def test_a_path_serves_models_of_no_table_under_the_callers_name(
    gateway: Running, upstream: FaultyUpstream, name: str
) -> None:
    answer = await ask(gateway, "/v1/embeddings", model=name, input="hi")
    assert answer.status == 200
    assert upstream.requests[-1].model == name
    assert answer.header("x-synapse-model")
    assert answer.header("set-cookie") is None


async def test_a_model_that_cannot_do_it_says_so(gateway: Running) -> None:
    answer = await ask(gateway, model="listener")
    assert (answer.status, (answer.error() or {})["code"]) == (400, "model_not_capable")


# -- bodies


async def test_a_body_that_needs_no_change_passes_byte_for_byte(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    raw = b'{ "model":"warm" ,"messages":[{"role":"user","content":"\\u0068i"}], "x": 1.0e2 }'
    async with wire.send(
        gateway.url, "POST", CHAT, body=raw, headers={"content-type": "application/json"}
    ) as stream:
        await stream.read_rest()
    assert upstream.requests[-1].body == raw


@pytest.mark.parametrize("asked", [None, False, True])
async def test_usage_is_asked_for_and_taken_out_unless_wanted(
    gateway: Running, upstream: FaultyUpstream, *, asked: bool | None
) -> None:
    options: dict[str, Any] = {} if asked is None else {"stream_options": {"include_usage": asked}}
    answer = await ask(gateway, model="coder", stream=True, **options)
    assert upstream.requests[-1].json()["stream_options"] == {"include_usage": True}
    usages = [data for data in answer.events() if '"choices":[]' in data]
    assert len(usages) == (1 if asked else 0)
    metrics = await wire.metrics(gateway.url)
    assert metrics.value("synapse_tokens_total") > 0


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.api+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain", 200),
        ("multipart/form-data; boundary=x", 415),
        ("audio/wav", 415),
    ],
)
async def test_a_body_must_be_declared_as_json(gateway: Running, kind: str, status: int) -> None:
    body = json.dumps({"model": "coder", "messages": MESSAGES}).encode()
    answer = await wire.exchange(
        gateway.url, "POST", CHAT, body=body, headers={"content-type": kind}
    )
    assert answer.status == status


FORM = (
    b'--B\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n'
    b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\n%b\r\n--B--\r\n'
)


async def transcribe(gateway: Running, body: bytes, **headers: str) -> wire.Answer:
    given = {"content-type": "multipart/form-data; boundary=B", **headers}
    path = "/v1/audio/transcriptions"
    return await wire.exchange(gateway.url, "POST", path, body=body, headers=given)


async def test_a_recording_passes_with_the_backends_model_name(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    for name in (b"general", b"listener"):
        assert (await transcribe(gateway, FORM % (wav(), name))).status == 200
    seen = [Received(each) for each in upstream.requests if each.method == "POST"]
    assert [each.fields for each in seen] == [[("model", "general-8b")], [("model", "listener")]]
    assert [each.files for each in seen] == [[("file", wav())]] * 2


async def test_a_recording_for_no_model_goes_to_one_that_is_made_for_it(
    gateway: Running, upstream: FaultyUpstream
) -> None:
    answer = await transcribe(gateway, FORM % (wav(), b""))
    assert (answer.status, answer.header("x-synapse-model")) == (200, "listener")
    [seen] = [Received(each) for each in upstream.requests if each.method == "POST"]
    assert seen.fields == [("model", "listener")]


async def test_a_form_without_a_recording_is_refused(gateway: Running) -> None:
    body = b'--B\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--B--\r\n'
    answer = await transcribe(gateway, body)
    assert (answer.status, (answer.error() or {})["param"]) == (400, "file")


# -- affinity


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x" * 3000}, *MESSAGES]}),
        (CHAT, {"messages": [{"role": "user"}]}),
        ("/v1/completions", {"prompt": "Once upon"}),
        ("/v1/embeddings", {"input": "hi"}),
    ],
)
async def test_a_prompt_of_any_kind_has_a_beginning(
    gateway: Running, path: str, fields: dict[str, Any]
) -> None:
    answer = await wire.post(gateway.url, path, {"model": "warm", **fields})
    assert answer.status == 200


async def test_a_session_is_named_by_a_header(gateway: Running) -> None:
    answer = await wire.post(
        gateway.url,
        CHAT,
        {"model": "coder", "messages": MESSAGES},
        headers={"x-synapse-session": "s1"},
    )
    assert answer.status == 200
