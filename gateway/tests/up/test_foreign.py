"""Each kind of server by the answers that tell it apart, as its own documentation shows them."""

from __future__ import annotations

from typing import Any

import pytest

from synapse_gateway.up.errors import UpError
from synapse_gateway.up.foreign import Foreign, base_url, inspect
from synapse_gateway.up.ports import choose

from .conftest import serving

OK = 200


def models(*names: str, owner: str = "someone") -> tuple[int, Any]:
    data = [{"id": name, "object": "model", "owned_by": owner} for name in names]
    return OK, {"object": "list", "data": data}


TAGS = (OK, {"models": [{"name": "llama3.1:8b", "model": "llama3.1:8b"}]})


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("ollama", {"/api/version": (OK, {"version": "0.12.3"}), "/api/tags": TAGS}),
        ("vllm", {"/v1/models": models("m", owner="vllm"), "/version": (OK, {"version": "1"})}),
        ("sglang", {"/v1/models": models("m", owner="sglang")}),
        ("tensorrt-llm", {"/v1/models": models("m", owner="tensorrt_llm")}),
        ("llamacpp", {"/v1/models": models("m", owner="llamacpp"), "/api/tags": TAGS}),
        (
            "llamacpp",
            {"/v1/models": models("m"), "/props": (OK, {"default_generation_settings": {"n": 1}})},
        ),
        (
            "litellm",
            {"/v1/models": models("m", owner="openai"), "/health/liveliness": (OK, "I'm alive!")},
        ),
        ("openai-compatible", {"/v1/models": models("m")}),
    ],
)
def test_a_server_is_told_by_what_its_kind_alone_answers(
    kind: str, table: dict[str, tuple[int, Any]]
) -> None:
    with serving(table) as url:
        found = inspect(url, None)
    assert found.kind == kind
    assert found.models == (("llama3.1:8b",) if kind == "ollama" else ("m",))


def test_the_chat_model_is_the_first_that_is_not_named_for_something_else() -> None:
    names = ("nomic-embed-text", "whisper-large", "bge-m3", "qwen3:8b", "mistral")
    assert Foreign(url="http://x", kind="ollama", models=names).chat_model == "qwen3:8b"
    assert Foreign(url="http://x", kind="ollama", models=names[:3]).chat_model is None


@pytest.mark.parametrize("text", ["http://h:1/v1", "http://h:1/v1/", " http://h:1/ ", "http://h:1"])
def test_a_url_may_be_written_as_clients_of_openai_write_it(text: str) -> None:
    assert base_url(text) == "http://h:1"


@pytest.mark.parametrize("text", ["localhost:11434", "ftp://h", "http://", "http://h/?a=b"])
def test_what_is_no_url_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UpError, match=r"give one such as http://127\.0\.0\.1:11434"):
        base_url(text)


def test_credentials_in_a_url_are_refused_without_being_repeated() -> None:
    with pytest.raises(UpError) as refused:
        base_url("http://user:hunter2@h:1")
    assert "BACKEND_API_KEY" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_server_that_is_not_there_is_named_with_the_reason() -> None:
    url = f"http://127.0.0.1:{choose(1, 21_000)[0]}"
    with pytest.raises(UpError, match=rf"{url} does not answer .*refused.*; is the server running"):
        inspect(url, None)


def test_a_server_that_wants_a_key_says_where_to_put_it() -> None:
    with (
        serving({"/v1/models": models("m")}, key="right") as url,
        pytest.raises(UpError, match="wants a key; put it into BACKEND_API_KEY"),
    ):
        inspect(url, None)


def test_a_server_that_refuses_the_key_says_which() -> None:
    with (
        serving({"/v1/models": models("m")}, key="right") as url,
        pytest.raises(UpError, match="refuses the key in BACKEND_API_KEY") as refused,
    ):
        inspect(url, "wrong")
    assert "wrong" not in str(refused.value)


def test_the_key_is_sent() -> None:
    with serving({"/v1/models": models("m", owner="vllm")}, key="right") as url:
        assert inspect(url, "right").kind == "vllm"


def test_a_web_server_that_is_no_model_server_is_not_taken_for_one() -> None:
    with (
        serving({"/": (OK, "hello")}) as url,
        pytest.raises(UpError, match=r"/v1/models: status 404"),
    ):
        inspect(url, None)
