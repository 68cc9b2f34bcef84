from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.backends import adapter
from synapse_gateway.config.settings import Backend, BackendType
from synapse_gateway.proxy import fetch as module
from synapse_gateway.proxy.body import Joined
from synapse_gateway.proxy.fetch import BackendHttp
from synapse_gateway.proxy.outbox import Outbox
from synapse_gateway.proxy.upstream import Upstream
from synapse_gateway.testing import FaultyUpstream, scripts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as running:
        yield running


def http(url: str, **fields: str) -> BackendHttp:
    backend = Backend(url=url)
    kind = adapter(BackendType.OPENAI_COMPATIBLE)
    outbox = Outbox(asyncio.get_running_loop().call_soon)
    upstream = Upstream(backend, kind, fields.get("key"), lambda _record, _attempt: b"", outbox)
    return BackendHttp(upstream)


async def test_an_answer_comes_whole(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.status(418, body=b"short and stout", headers={"x-kind": "teapot"}))
    reply = await http(upstream.url, key="secret").request("GET", "/anything")
    assert (reply.status, reply.body) == (418, b"short and stout")
    assert reply.headers["x-kind"] == "teapot"
    [seen] = upstream.requests
    assert (seen.method, seen.target, seen.body) == ("GET", "/anything", b"")
    assert seen.header("authorization") == "Bearer secret"
    assert seen.header("content-type") is None


async def test_a_body_is_json(upstream: FaultyUpstream) -> None:
    await http(f"{upstream.url}/base").request("POST", "/api/show", body=b'{"model":"m"}')
    [seen] = upstream.requests
    assert (seen.target, seen.body) == ("/base/api/show", b'{"model":"m"}')
    assert seen.header("content-type") == "application/json"


async def test_an_upload_is_read_as_it_is_sent(upstream: FaultyUpstream) -> None:
    reply = await http(upstream.url, key="secret").upload(
        "PUT",
        "/voices/1",
        body=Joined([b"some", b"thing"]),
        content_type=b"audio/wav",
        timeout=5.0,
    )
    assert reply.status == 200
    [seen] = upstream.requests
    assert (seen.method, seen.target, seen.body) == ("PUT", "/voices/1", b"something")
    assert seen.header("content-type") == "audio/wav"
    assert seen.header("authorization") == "Bearer secret"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        pytest.param(scripts.reset(), "broke off", id="reset"),
        pytest.param(scripts.broken(), "broke off", id="cut"),
        pytest.param(scripts.raw(b"SSH-2.0\r\n\r\n"), "not HTTP", id="not-http"),
    ],
)
async def test_what_is_no_whole_answer_is_an_error(
    upstream: FaultyUpstream, script: scripts.Script, words: str
) -> None:
    upstream.queue(script)
    with pytest.raises(ConnectionError, match=words):
        await http(upstream.url).request("GET", "/")


async def test_a_refused_connection_is_an_error(upstream: FaultyUpstream) -> None:
    await upstream.refuse()
    with pytest.raises(ConnectionError, match="refused"):
        await http(upstream.url).request("GET", "/")


async def test_an_answer_that_does_not_come_is_a_timeout(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.stall())
    with pytest.raises(TimeoutError):
        await http(upstream.url).request("GET", "/", timeout=0.05)
    async with asyncio.timeout(5):
        await upstream.connections[0].closed_by_peer.wait()


async def test_an_answer_too_large_is_an_error(
    upstream: FaultyUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_REPLY_BYTES", 1000)
    upstream.queue(scripts.status(200, body=b"x" * 1_000_000))
    with pytest.raises(ConnectionError, match="too large"):
        await http(upstream.url).request("GET", "/")


async def test_an_answer_in_chunks_comes_whole() -> None:
    collector = module._Collector()
    collector.on_head(200, [])
    assert not collector.relay(b"1\r\na\r\n")
    collector.on_chunks(b"1\r\na\r\n2\r\nbc\r\n", [b"a", b"bc"])
    collector.on_body(b"d")
    collector.on_end()
    assert (await collector.done).body == b"abcd"


async def test_only_the_first_end_of_an_answer_counts() -> None:
    collector = module._Collector()
    collector._fail("once")
    collector._fail("twice")
    collector.on_end()
    with pytest.raises(ConnectionError, match="once"):
        await collector.done
