"""The connection to Redis, and whether it works."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.errors import ConfigError
from synapse_gateway.shared_state import SharedState

if TYPE_CHECKING:
    from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Wait for another process: at most 10 s."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not come about within 10 s")


async def test_each_change_is_told_once_to_listeners_and_log(
    stopped_redis: Any, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[bool] = []
    state = SharedState(stopped_redis.url, interval=0.01)
    state.on_change(told.append)
    with caplog.at_level(logging.INFO, "synapse_gateway"):
        await state.start()
        for _ in range(3):
            assert not await state.look()
        stopped_redis.start()
        await until(lambda: state.up)
        assert await state.look()
        stopped_redis.kill()
        await until(lambda: not state.up)
        await state.stop()
    assert told == [False, False, True, False]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "WARNING"]


async def test_a_state_that_never_started_can_be_stopped(stopped_redis: Any) -> None:
    await SharedState(stopped_redis.url).stop()


@pytest.mark.parametrize("url", ["http://redis:6379", "redis://host:port/0", "redis:6379"])
def test_a_url_that_is_not_of_redis_is_refused_without_its_password(url: str) -> None:
    secret = url.replace("//", "//:hunter2@")
    with pytest.raises(ConfigError, match="SYNAPSE_REDIS_URL: must be like redis://") as refusal:
        SharedState(secret)
    assert "hunter2" not in str(refusal.value)


async def test_the_log_names_neither_address_nor_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    state = SharedState("redis://:hunter2@127.0.0.1:1/0")
    with caplog.at_level(logging.DEBUG):
        assert not await state.look()
    assert "hunter2" not in caplog.text
    assert "127.0.0.1" not in caplog.text
    await state.stop()
