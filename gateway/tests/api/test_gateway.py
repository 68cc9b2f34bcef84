"""What every request meets: keys, limits, the account of it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from synapse_gateway.config.settings import AuthMode, Key
from synapse_gateway.testing import scripts, wire
from synapse_gateway.testing.scripts import Send
from tests.api.support import CHAT, settings_for, staged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from synapse_gateway.config.settings import Settings
    from synapse_gateway.testing.faulty_upstream import Request
    from synapse_gateway.testing.scripts import Script, Step
    from synapse_gateway.testing.wire import Answer
    from tests.api.support import Scene

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
KEY = {"authorization": "Bearer sk-k"}


@asynccontextmanager
async def keyed(**limits: Any) -> AsyncIterator[Scene]:
    """Run a gateway with one key that has limits."""
    keys = {"k": Key(env="K", **limits)}

    def settings(url: str) -> Settings:
        return msgspec.structs.replace(settings_for(url), auth=AuthMode.KEYS, keys=keys)

    async with staged(settings, {"K": "sk-k"}) as stage:
        yield stage


async def ask(stage: Scene) -> Answer:
    return await wire.post(stage.url, CHAT, ASK, headers=KEY)


def claims(prompt: int, completion: int) -> Script:
    """Answer with a usage of one's own making."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    # not by msgspec, which has 64 bits for a whole number
    body = f'{{"choices": [], "usage": {usage}}}'.replace("'", '"').encode()

    def run(_: Request) -> Iterable[Step]:
        return [Send(scripts.sized(200, body))]

    return run


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        pytest.param(0, 99_999_999_999_999_999_999, id="more-than-64-bits"),
        pytest.param(2**62, 0, id="more-than-any-request"),
        pytest.param(-400, -400, id="negative"),
    ],
)
async def test_a_figure_that_no_request_can_have_is_not_charged_to_the_key(
    prompt: int, completion: int
) -> None:
    async with keyed(tokens_per_minute=100, concurrency=1) as stage:
        stage.upstream.queue(claims(prompt, completion))
        assert (await ask(stage)).status == 200
        stage.upstream.queue(claims(99, 0))
        assert (await ask(stage)).status == 200, "neither its tokens nor its place are taken"
        stage.upstream.queue(claims(1, 0))
        assert (await ask(stage)).status == 200
        assert (await ask(stage)).status == 429, "what was believed is charged in full"
        metrics = await wire.metrics(stage.url)
        assert metrics.value("synapse_requests_total", code="200") == 3
