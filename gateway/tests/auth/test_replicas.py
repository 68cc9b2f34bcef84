"""Two gateways with one Redis between them, as the replicas of a deployment are."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from synapse_gateway import app
from synapse_gateway.config.settings import Backend, Key, Model, Settings, Target
from synapse_gateway.testing import FaultyUpstream, wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from synapse_gateway.testing.wire import Answer

KEY = "sk-app"
LIMIT = 3


@asynccontextmanager
async def replicas(**environ: str) -> AsyncIterator[list[str]]:
    """Run two gateways of one configuration; its key may ask three times a minute."""
    digest = sha256(KEY.encode()).hexdigest()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(FaultyUpstream())
        settings = Settings(
            backends={"b": Backend(url=upstream.url, probe_interval=3600.0)},
            models={"m": Model(targets=(Target(backend="b"),))},
            keys={"app": Key(sha256=digest, requests_per_minute=LIMIT)},
        )
        both = [
            await stack.enter_async_context(app.running(settings, environ=environ))
            for _ in range(2)
        ]
        yield [gateway.url for gateway in both]


async def ask(url: str) -> Answer:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {KEY}"}
    return await wire.post(url, "/v1/chat/completions", body, headers=headers)


async def test_a_key_has_its_limit_once_where_redis_is_named(redis_server: Any) -> None:
    async with replicas(SYNAPSE_REDIS_URL=redis_server.url) as (one, two):
        answers = [await ask(url) for url in (one, two, one, two, one)]
        assert [answer.status for answer in answers] == [200] * LIMIT + [429] * 2
        assert 1 <= int(answers[-1].header("retry-after") or 0) <= 60
        assert (await wire.metrics(one)).value("synapse_redis_up") == 1


async def test_a_key_has_its_limit_at_each_where_none_is() -> None:
    async with replicas() as urls:
        for url in urls:
            answers = [await ask(url) for _ in range(LIMIT + 1)]
            assert [answer.status for answer in answers] == [200] * LIMIT + [429]
