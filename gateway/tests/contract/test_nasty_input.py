"""Input that nobody sends by mistake twice: a 4xx names what is wrong, or it is served."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from synapse_gateway.api.ollama import OLLAMA_ROUTES
from synapse_gateway.api.routes import OPENAI_ROUTES
from synapse_gateway.testing import wire

if TYPE_CHECKING:
    from collections.abc import Iterator

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
JSON_PATHS = [path for path, route in OPENAI_ROUTES.items() if route.body is not None]
FORM_PATHS = [path for path, route in OPENAI_ROUTES.items() if route.body is None]


@pytest.fixture
def http(healthy: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=healthy, timeout=20) as client:
        yield client


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": MESSAGES, **fields}


def raw_chat(tail: bytes) -> bytes:
    return b'{"model":"m","messages":[{"role":"user","content":"hi"}],' + tail


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="half"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'"text"', id="text"),
        pytest.param(b"\xff\xfe{}", id="utf-16-mark"),
        pytest.param(b"\xef\xbb\xbf{}", id="utf-8-mark"),
        pytest.param(b"\x00", id="nul"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(b'{"x":' * 50_000, id="deep-objects"),
        pytest.param(b'{"model":NaN}', id="nan"),
        pytest.param(b'{"model":"\\ud800"}', id="lone-surrogate"),
        pytest.param(b"{'model': 'm'}", id="single-quotes"),
        pytest.param(b'{"model":"m",}', id="comma"),
    ],
)
@pytest.mark.parametrize("path", [*JSON_PATHS, *OLLAMA_ROUTES])
def test_what_is_no_json_object_is_refused(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error if path in OLLAMA_ROUTES else error["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", JSON_PATHS)
def test_a_second_object_is_refused(http: httpx.Client, path: str) -> None:
    """Ollama reads the first one and lets the rest be: so do its routes."""
    body = b'{"model":"m"}{"model":"m"}'
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("tail", "param"),
    [
        (b'"n":1000000000}', "n"),
        (b'"n":0}', "n"),
        (b'"n":1e400}', "n"),
        (b'"max_tokens":-1}', "max_tokens"),
        (b'"max_tokens":1.5}', "max_tokens"),
        (b'"max_tokens":"5"}', "max_tokens"),
        (b'"max_completion_tokens":-5}', "max_completion_tokens"),
        (b'"temperature":1e999}', "temperature"),
        (b'"temperature":"hot"}', "temperature"),
        (b'"temperature":[]}', "temperature"),
        (b'"seed":1.5}', "seed"),
        (b'"stop":5}', "stop"),
        (b'"stop":[5]}', "stop[0]"),
        (b'"logit_bias":[]}', "logit_bias"),
        (b'"logit_bias":{"5":"x"}}', "logit_bias[...]"),
        (b'"top_logprobs":21}', "top_logprobs"),
        (b'"tools":{}}', "tools"),
        (b'"tools":[5]}', "tools[0]"),
        (b'"tool_choice":5}', "tool_choice"),
        (b'"response_format":"json"}', "response_format"),
        (b'"stream":"true"}', "stream"),
        (b'"stream":1}', "stream"),
        (b'"stream_options":5}', "stream_options"),
        (b'"stream_options":{"include_usage":"yes"}}', "stream_options.include_usage"),
        (b'"user":5}', "user"),
        (b'"model":5}', "model"),
        (b'"messages":[]}', "messages"),
        (b'"messages":"hi"}', "messages"),
        (b'"messages":[5]}', "messages[0]"),
        (b'"messages":[{"content":"hi"}]}', "messages[0]"),
        (b'"messages":[{"role":5}]}', "messages[0].role"),
        (b'"messages":[{"role":"assistant","tool_calls":{}}]}', "messages[0].tool_calls"),
    ],
)
def test_a_field_that_cannot_be_is_named(http: httpx.Client, tail: bytes, param: str) -> None:
    answer = http.post(CHAT, content=raw_chat(tail), headers={"content-type": "application/json"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(f"{param}: ")


@pytest.mark.parametrize("prompt", ['""', "[]", '[""]', "[[]]", '["hi", ""]', "[[1], []]"])
def test_several_continuations_of_nothing_are_refused(http: httpx.Client, prompt: str) -> None:
    body = f'{{"model": "m", "n": 2, "prompt": {prompt}}}'
    answer = http.post("/v1/completions", content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "m", "n": 2, "prompt": "hi"}',
        '{"model": "m", "n": 2, "prompt": [0, 0]}',
        '{"model": "m", "n": 1, "prompt": ""}',
        '{"model": "m", "prompt": [[]]}',
    ],
)
def test_one_continuation_of_nothing_is_served(http: httpx.Client, body: str) -> None:
    assert http.post("/v1/completions", content=body).status_code == 200


@pytest.mark.parametrize(
    "tail",
    [
        pytest.param(b'"x":1e400}', id="huge-number-nobody-reads"),
        pytest.param(b'"seed":' + b"9" * 15 + b"}", id="large-seed"),
        pytest.param(b'"metadata":' + b"[" * 200 + b"]" * 200 + b"}", id="nested"),
        pytest.param('"user":"größe \U0001f600 \\u0000"}'.encode(), id="unicode"),
        pytest.param(b'"temperature":0,"temperature":1}', id="twice"),
        pytest.param(b'"model":"m","model":"org/model:1b"}', id="model-twice"),
        pytest.param(b'"stream":null,"tools":null,"stop":null,"max_tokens":null}', id="nulls"),
        pytest.param(b'"":"","a b":1}', id="odd-names"),
    ],
)
def test_what_the_gateway_has_no_business_with_is_served(http: httpx.Client, tail: bytes) -> None:
    answer = http.post(CHAT, content=raw_chat(tail), headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["choices"]


@pytest.mark.parametrize(
    "kind",
    [
        "text/html",
        "application/xml",
        "multipart/form-data; boundary=x",
        "image/png",
        "",
        "json",
        "é",
    ],
)
def test_json_of_another_type_is_a_415(http: httpx.Client, kind: str) -> None:
    headers: Any = {"content-type": kind.encode("latin-1")}
    answer = http.post(CHAT, content=json.dumps(chat()), headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/problem+json",
        "application/x-www-form-urlencoded",
    ],
)
def test_json_under_a_name_that_clients_use_is_served(http: httpx.Client, kind: str) -> None:
    answer = http.post(CHAT, content=json.dumps(chat()), headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", FORM_PATHS)
@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "application/json", 415),
        (b"", "multipart/form-data; boundary=x", 400),
        (b"x", "multipart/form-data", 400),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400),
        (b"--x\r\n\r\n\r\n--x--\r\n", "multipart/form-data; boundary=x", 400),
        (b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
         "multipart/form-data; boundary=x", 400),
        (b'--x\r\ncontent-disposition: form-data; name="file"\r\n\r\ntext\r\n--x--\r\n',
         "multipart/form-data; boundary=x", 400),
        (b"\xff" * 100, "multipart/form-data; boundary=\xff", 400),
    ],
)  # fmt: skip
def test_a_form_that_is_none_is_refused(
    http: httpx.Client, path: str, body: bytes, kind: str, status: int
) -> None:
    headers: Any = {"content-type": kind.encode("latin-1")}
    answer = http.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("org/model:1b", "org/model:1b"),
        ("org/model:1b", quote("org/model:1b", safe="")),
        ("größe", quote("größe")),
    ],
)
async def test_a_model_is_found_however_its_name_is_written(
    healthy: str, name: str, written: str
) -> None:
    answer = await wire.get(healthy, f"/v1/models/{written}")
    assert (answer.status, answer.json()["id"]) == (200, name)


@pytest.mark.parametrize(
    "name",
    ["no", "NO/such", "%2e%2e%2fetc", "m%00", "%ff", "%", "a" * 5000, "%F0%9F%98%80", "m/", "/m"],
)
async def test_a_model_that_is_not_there_is_a_404(healthy: str, name: str) -> None:
    answer = await wire.get(healthy, f"/v1/models/{name}")
    assert answer.status == 404
    error = answer.json()["error"]
    assert error["code"] in {"model_not_found", "not_found"}
    assert len(error["message"]) < 400


@pytest.mark.parametrize("name", ["\ud83d\ude00", "a" * 5000, "m\r\nx: y", "\x00", "<script>"])
def test_an_odd_model_name_is_a_404(http: httpx.Client, name: str) -> None:
    body = json.dumps(chat(model=name))
    answer = http.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 404
    assert len(answer.json()["error"]["message"]) < 400


def test_a_name_of_any_script_reaches_its_model(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=chat(model="größe"))
    assert answer.status_code == 200
    assert answer.headers["x-synapse-model"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-request-id": b"\xff\xfe"},
        {"x-request-id": b"x" * 2000},
        {"traceparent": b"\xff"},
        {"x-synapse-session": "größe".encode()},
        {"x-api-key": b"\xff"},
        {"authorization": b"Bearer \xe9"},
        {"accept": b"\xff"},
        {"user-agent": b"\x80\x81"},
        {"cookie": b"a=\xff"},
    ],
    ids=lambda headers: next(iter(headers)),
)
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health", "/metrics"])
def test_headers_of_any_bytes_do_no_harm(
    http: httpx.Client, path: str, headers: dict[str, Any]
) -> None:
    answer = (
        http.post(path, json=chat(), headers=headers)
        if path == CHAT
        else http.get(path, headers=headers)
    )
    assert answer.status_code == 200
    assert answer.headers.get("x-request-id", "").isascii()


def test_a_body_over_the_limit_is_a_413(http: httpx.Client) -> None:
    answer = http.post(CHAT, json=chat(user="x" * (1 << 20)))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", [CHAT, "/api/chat"])
def test_another_method_is_a_405_that_says_which(
    http: httpx.Client, method: str, path: str
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/nothing", "/v1", "/v1/chat", "//v1/models", "/v1/models2", "/%"]
)
async def test_a_path_that_is_not_there_is_a_404(healthy: str, path: str) -> None:
    answer = await wire.get(healthy, path)
    assert answer.status == 404
    assert answer.json()["error"]["code"] == "not_found"
