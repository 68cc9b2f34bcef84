from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.config.settings import Backend, Tls
from synapse_gateway.errors import ConfigError
from synapse_gateway.proxy import pool as module
from synapse_gateway.proxy.outbox import Outbox
from synapse_gateway.proxy.pool import MAX_IDLE_SECONDS, Address, ConnectFailed, Pool, address_of
from synapse_gateway.routing.outcome import Outcome
from synapse_gateway.testing import FaultyUpstream, scripts
from tests.proxy.support import Clock, FakeTransport, Recorder, held_outbox

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.proxy.connection import UpstreamConnection

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://vllm:8000", ("vllm", 8000, "", "vllm:8000")),
        ("http://vllm:8000/v1", ("vllm", 8000, "", "vllm:8000")),
        ("http://vllm/v1/", ("vllm", 80, "", "vllm")),
        ("http://vllm/openai/v1", ("vllm", 80, "/openai", "vllm")),
        ("http://[::1]:8000/x/", ("::1", 8000, "/x", "[::1]:8000")),
        ("http://[fd00::2]", ("fd00::2", 80, "", "[fd00::2]")),
    ],
)
def test_where_a_url_leads(url: str, address: tuple[str, int, str, str]) -> None:
    assert address_of(Backend(url=url)) == Address(*address, None)


def test_https_has_a_port_and_trust_of_its_own() -> None:
    tls = Tls(server_name="inner")
    assert address_of(Backend(url="https://vllm", tls=tls)) == ("vllm", 443, "", "vllm", tls)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        pytest.param(ConnectionRefusedError(), Outcome.REFUSED, id="refused"),
        pytest.param(ConnectionResetError(), Outcome.RESET, id="reset"),
        pytest.param(TimeoutError(), Outcome.CONNECT_TIMEOUT, id="timeout"),
        pytest.param(socket.gaierror(-2, "unknown"), Outcome.DNS, id="dns"),
        pytest.param(ssl.SSLError(1, "handshake"), Outcome.TLS, id="tls"),
        pytest.param(ssl.SSLCertVerificationError(1, "expired"), Outcome.TLS, id="certificate"),
        pytest.param(OSError(113, "No route to host"), Outcome.REFUSED, id="no-route"),
    ],
)
async def test_why_no_connection_could_be_made(
    error: OSError, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", fail)
    with pytest.raises(ConnectFailed) as failed:
        await Pool(Backend(url="http://backend:1"), held_outbox()).connect(5.0)
    assert failed.value.outcome is outcome


async def test_connecting_takes_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    with pytest.raises(ConnectFailed) as failed:
        await Pool(Backend(url="http://backend:1"), held_outbox()).connect(0.001)
    assert failed.value.outcome is Outcome.CONNECT_TIMEOUT


async def test_a_connection_closed_before_it_could_be_used_is_a_reset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def closed(factory: Any, *_: Any, **__: Any) -> Any:
        connection = factory()
        transport = FakeTransport()
        connection.connection_made(transport)
        connection.connection_lost(ConnectionResetError())
        return transport, connection

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", closed)
    with pytest.raises(ConnectFailed) as failed:
        await Pool(Backend(url="http://backend:1"), held_outbox()).connect(5.0)
    assert failed.value.outcome is Outcome.RESET


@pytest.mark.parametrize(
    ("tls", "host"),
    [(Tls(), "backend"), (Tls(server_name="inner"), "inner")],
)
async def test_the_expected_name_is_the_urls_or_the_configured_one(
    tls: Tls, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    async def note(*_: Any, **more: Any) -> Any:
        asked.update(more)
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", note)
    with pytest.raises(ConnectFailed):
        await Pool(Backend(url="https://backend", tls=tls), held_outbox()).connect(5.0)
    assert asked["server_hostname"] == host
    assert asked["ssl"].verify_mode is ssl.CERT_REQUIRED


def test_authorities_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for name, content in (("none.pem", None), ("garbage.pem", b"no certificate")):
        file = tmp_path / name
        if content is not None:
            file.write_bytes(content)
        backend = Backend(url="https://backend", tls=Tls(ca_file=str(file)))
        with pytest.raises(ConfigError, match=rf"tls\.ca_file: cannot use .*{name}"):
            Pool(backend, held_outbox())


async def test_a_laboratory_may_trust_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = Pool(Backend(url="https://backend", tls=Tls(verify=False)), held_outbox())
    assert pool._ssl is not None
    assert pool._ssl.verify_mode is ssl.CERT_NONE
    assert not pool._ssl.check_hostname


# -- idle connections


class Bench:
    """A pool whose connections are made of fake transports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.outbox = held_outbox()
        self.pool = Pool(Backend(url="http://backend:1"), self.outbox)
        monkeypatch.setattr(module, "monotonic", self.clock)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", self._make)

    async def _make(self, factory: Any, *_: Any, **__: Any) -> Any:
        connection = factory()
        transport = FakeTransport()
        connection.connection_made(transport)
        return transport, connection

    async def connect(self) -> UpstreamConnection:
        return await self.pool.connect(5.0)

    async def used(self) -> UpstreamConnection:
        """Return a connection that has served a request and is idle."""
        connection = await self.connect()
        self.ask(connection, Recorder())
        connection.data_received(ANSWER)
        return connection

    def ask(self, connection: UpstreamConnection, receiver: Recorder) -> None:
        connection.send(REQUEST, b"{}", receiver)
        self.outbox.flush()


@pytest.fixture
async def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


async def test_an_idle_connection_is_taken_once(bench: Bench) -> None:
    assert bench.pool.take() is None
    connection = await bench.used()
    assert bench.pool.take() is connection
    assert bench.pool.take() is None


async def test_the_one_used_last_is_taken_first(bench: Bench) -> None:
    first, second = await bench.used(), await bench.used()
    assert [bench.pool.take(), bench.pool.take()] == [second, first]


async def test_one_that_was_idle_for_too_long_is_closed(bench: Bench) -> None:
    old = await bench.used()
    bench.clock.now += MAX_IDLE_SECONDS - 1
    young = await bench.used()
    bench.clock.now += 2
    assert bench.pool.take() is young
    assert bench.pool.take() is None
    assert not old.usable


async def test_one_that_nobody_needs_any_more_is_closed_by_the_next(bench: Bench) -> None:
    first, second = await bench.used(), await bench.used()
    bench.clock.now += MAX_IDLE_SECONDS + 1
    third = await bench.used()
    assert [each.usable for each in (first, second, third)] == [False, True, True]
    assert bench.pool.take() is third


async def test_one_that_is_not_to_be_kept_is_closed(bench: Bench) -> None:
    connection = await bench.pool.connect(5.0, keep=False)
    bench.ask(connection, Recorder())
    connection.data_received(ANSWER)
    assert not connection.usable
    assert bench.pool.take() is None


async def test_one_that_the_backend_closes_is_forgotten(bench: Bench) -> None:
    connection = await bench.used()
    connection.connection_lost(None)
    assert bench.pool.take() is None


async def test_one_that_is_being_closed_is_passed_over(bench: Bench) -> None:
    connection = await bench.used()
    connection._transport.abort()
    assert bench.pool.take() is None


async def test_only_so_many_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_IDLE", 2)
    connections = [await bench.used() for _ in range(3)]
    assert [connection.usable for connection in connections] == [True, True, False]


async def test_a_closed_pool_lets_requests_finish(bench: Bench) -> None:
    idle, busy = await bench.used(), await bench.connect()
    receiver = Recorder()
    bench.ask(busy, receiver)
    bench.pool.close()
    assert (idle.usable, busy.usable) == (False, True)
    busy.data_received(ANSWER)
    assert receiver.endings == ["end"]
    assert not busy.usable
    assert bench.pool.take() is None


async def test_over_a_real_socket() -> None:
    async with FaultyUpstream() as upstream:
        upstream.queue(scripts.answer(), scripts.answer())
        pool = Pool(Backend(url=upstream.url), Outbox(asyncio.get_running_loop().call_soon))
        for _ in range(2):
            connection = pool.take() or await pool.connect(5.0)
            ended = asyncio.Event()
            receiver = Recorder()
            receiver.on_end = ended.set  # type: ignore[method-assign]
            connection.send(REQUEST, b"{}", receiver)
            async with asyncio.timeout(5):
                await ended.wait()
            assert receiver.status == 200
        assert len(upstream.connections) == 1
        pool.close()
