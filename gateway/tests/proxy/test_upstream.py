from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.backends import adapter
from synapse_gateway.config.settings import Backend, BackendType, Model, Settings, Target, Tls
from synapse_gateway.errors import ConfigError
from synapse_gateway.proxy.deadlines import Deadlines
from synapse_gateway.proxy.upstream import MadeOf, Upstream, Upstreams, backend_key
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.telemetry.record import AttemptRecord
from tests.proxy.support import held_outbox, request_for
from tests.routing.support import fleet_of

if TYPE_CHECKING:
    from pathlib import Path

URL = "http://vllm:8000/v1"


def no_trace(_record: Any, _attempt: Any) -> bytes:
    return b""


def upstream(key: str | None = None, trace: Any = no_trace, **fields: Any) -> Upstream:
    backend = Backend(url=URL, **fields)
    return Upstream(backend, adapter(backend.type), key, trace, held_outbox())


def head(of: Upstream, path: str = "/v1/chat/completions") -> list[str]:
    settings = Settings(
        backends={"b": Backend(url=URL)}, models={"m": Model(targets=(Target(backend="b"),))}
    )
    route = RouteTable(settings, fleet_of(settings)).models["m"]
    request = request_for(route, 0.0, headers=b"content-type: application/json\r\naccept: a/b\r\n")
    record = AttemptRecord(backend="b", model="m", order=1, started=0.0)
    text = of.head(request, path, 42, record).decode()
    assert text.endswith("\r\n\r\n")
    return text.removesuffix("\r\n\r\n").split("\r\n")


async def test_a_request_begins_with_what_the_backend_needs() -> None:
    assert head(upstream("s3cret", headers={"X-Team": "blue"})) == [
        "POST /v1/chat/completions HTTP/1.1",
        "host: vllm:8000",
        "accept-encoding: identity",
        "authorization: Bearer s3cret",
        "x-team: blue",
        "x-request-id: r1",
        "content-type: application/json",
        "accept: a/b",
        "content-length: 42",
    ]


async def test_every_request_to_a_path_begins_alike() -> None:
    there = upstream()
    assert head(there) == head(there)
    assert head(there, "/v1/embeddings")[0] == "POST /v1/embeddings HTTP/1.1"


async def test_no_key_no_authorization() -> None:
    assert not [line for line in head(upstream()) if line.startswith("authorization")]


async def test_the_trace_context_of_the_attempt_goes_along() -> None:
    def trace(record: Any, attempt: Any) -> bytes:
        return b"00-%b-%b-01" % (record.id.encode(), attempt.backend.encode())

    assert "traceparent: 00-r1-b-01" in head(upstream(trace=trace))


async def test_no_trace_context_no_header() -> None:
    lines = head(upstream(trace=no_trace))
    assert not [line for line in lines if line.startswith("traceparent")]


async def test_the_adapter_knows_its_own_paths() -> None:
    sent = head(upstream(type=BackendType.OLLAMA), "/v1/embeddings")
    assert sent[0] == f"POST {adapter(BackendType.OLLAMA).upstream_path('/v1/embeddings')} HTTP/1.1"
    there = upstream(type=BackendType.CHATTERBOX)
    verbatim = there.start("GET", "/v1/embeddings", verbatim=True)
    assert verbatim.startswith(b"GET /v1/embeddings HTTP/1.1\r\n")


async def test_backends_are_found_by_name() -> None:
    one = upstream()
    nudged: list[str] = []
    deadlines = Deadlines()
    upstreams = Upstreams({"b": one}, nudged.append, deadlines)
    assert upstreams.of("b") is one
    assert upstreams.items() == {"b": one}
    assert upstreams.deadlines is deadlines
    upstreams.nudge("b")
    assert nudged == ["b"]


# -- keys


def test_a_key_comes_from_the_environment() -> None:
    backend = Backend(url=URL, api_key_env="KEY")
    assert backend_key(backend, {"KEY": "s3cret"}) == "s3cret"
    with pytest.raises(ConfigError, match="api_key_env: the variable KEY is not set"):
        backend_key(backend, {})


def test_a_key_comes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    backend = Backend(url=URL, api_key_file=str(file))
    with pytest.raises(ConfigError, match="api_key_file: No such file"):
        backend_key(backend, {})
    file.write_text("s3cret\n", encoding="utf-8")
    assert backend_key(backend, {}) == "s3cret"


@pytest.mark.parametrize("key", ["", " ", "two words", "schlüssel", "a\nb"])
def test_what_cannot_stand_in_a_header_is_no_key(key: str) -> None:
    with pytest.raises(ConfigError, match="the variable KEY must hold a key"):
        backend_key(Backend(url=URL, api_key_env="KEY"), {"KEY": key})


def test_what_connections_are_made_of_changes_with_the_content_of_files(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    backend = Backend(url="https://b", api_key_env="KEY", tls=Tls(ca_file=str(file)))
    with pytest.raises(ConfigError, match=r"tls\.ca_file: No such file"):
        MadeOf.read(backend, {"KEY": "k"})
    made = []
    for content in ("one", "one", "two"):
        file.write_text(content, encoding="utf-8")
        made.append(MadeOf.read(backend, {"KEY": " k\n"}))
    assert made[0] == made[1] != made[2]
    assert made[0].key == "k"


def test_a_backend_may_want_no_key() -> None:
    backend = Backend(url=URL)
    assert backend_key(backend, {"KEY": "x"}) is None
    assert MadeOf.read(backend, {}) == (backend, None, None)
