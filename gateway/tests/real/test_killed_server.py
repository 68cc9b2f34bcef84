"""SIGKILL of the model server that is tried first, with streams begun and requests waiting.

Real llama.cpp with four slots. Its own queue takes what the slots do not, and the gateway's queue
what the second server's cap does not: nothing is refused.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_gateway.testing import wire
from synapse_gateway.testing.wire import Ending
from tests.real.stack import scrape, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_gateway.testing.wire import Answer
    from tests.real.stack import Process, Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

CHAT = "/v1/chat/completions"
REQUESTS = 32
TOKENS = 24
BODY: dict[str, Any] = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Write a long story about a river."}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "ignore_eos": True,
    "stream": True,
    "stream_options": {"include_usage": True},
}


@pytest.fixture
def gateway(stack: Stack) -> Iterator[Process]:
    """A gateway of its own: its breakers and queues are this test's."""
    patient = {"first_token": 120.0, "between_tokens": 60.0, "overall": 240.0, "first_byte": 120.0}
    chats = {
        name: {
            "url": stack.backends[name].url,
            "type": "llamacpp",
            "device": "cpu",
            "probe_interval": 0.5,
            "max_in_flight": cap,
        }
        for name, cap in (("chat-a", 28), ("chat-b", 4))
    }
    targets = [
        {"backend": name, "model": "smollm2", "order": order}
        for order, name in enumerate(chats, start=1)
    ]
    yield stack.gateway(
        {
            "auth": "anonymous",
            "backends": chats,
            "models": {"smollm2": {"targets": targets, "timeouts": patient}},
            "limits": {
                "queue": {"deadline": 240.0},
                "breaker": {"failures": 5, "cool_down": 2.0},
            },
        }
    )
    first = stack.backends["chat-a"]
    first.kill()
    first.start_again()
    first.wait_ready("/health")


class Asked:
    """One streamed request, and how far it is."""

    def __init__(self) -> None:
        self.begun = False
        self.ended = False
        self.answer: Answer = wire.Answer()

    async def run(self, url: str, on_begin: Callable[[], None]) -> None:
        async with wire.open_stream(url, CHAT, BODY) as stream:
            # the head is held back until there is content
            self.begun = True
            self.answer = stream.answer
            on_begin()
            await stream.read_rest()
            self.ended = True

    @property
    def backend(self) -> str:
        return self.answer.header("x-synapse-backend") or ""

    @property
    def complete(self) -> bool:
        """Whether it ended as a success; then it must be one."""
        events = self.answer.events()
        if self.answer.ending is not Ending.COMPLETE or events[-1] != "[DONE]":
            return False
        *_, last, usage = (json.loads(event) for event in events[:-1])
        assert usage["usage"]["completion_tokens"] == TOKENS
        assert last["choices"][0]["finish_reason"] == "length"
        assert self.answer.text()
        return True


async def test_streams_in_waiting_move_on_and_begun_ones_end_with_an_error(
    stack: Stack, gateway: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "TIMEOUT", 240.0)
    first = stack.backends["chat-a"]
    asked = [Asked() for _ in range(REQUESTS)]
    waiting: list[Asked] = []

    def kill_when_three_have_begun() -> None:
        begun = [one for one in asked if one.begun and not one.ended and one.backend == "chat-a"]
        if not waiting and len(begun) >= 3:
            first.kill()
            waiting.extend(one for one in asked if not one.begun)

    await asyncio.gather(*(one.run(gateway.url, kill_when_three_have_begun) for one in asked))

    # what a dead server began it began before: its head may have been on the way at the kill
    cut = [one for one in asked if one.backend == "chat-a" and not one.complete]
    moved = [one for one in waiting if one not in cut]
    assert len(cut) >= 3
    assert len(moved) >= 20
    for one in cut:
        assert one.answer.ending is Ending.COMPLETE
        error = one.answer.error()
        assert error is not None
        assert error["code"] == "stream_cut"
        assert "[DONE]" not in one.answer.events()
    for one in moved:
        assert one.answer.status == 200
        assert one.complete
        assert one.backend == "chat-b"
        assert one.answer.header("x-synapse-fallback")
    print(f"\nat the kill: {len(cut)} streams begun there, {len(moved)} requests not begun")  # noqa: T201

    metrics = scrape(gateway.url)
    assert metrics.value("synapse_breaker_state", backend="chat-a") == 2
    assert metrics.value("synapse_cut_streams_total", backend="chat-a") == len(cut)

    first.start_again()
    first.wait_ready("/health")
    await asyncio.to_thread(until, lambda: closed(gateway), "the breaker does not close")
    answer = await wire.post(gateway.url, CHAT, {**BODY, "max_tokens": 1})
    assert answer.header("x-synapse-backend") == "chat-a"
    assert answer.header("x-synapse-fallback") is None


def closed(gateway: Process) -> bool | None:
    """Send a request, as callers do, and look whether it has closed the breaker."""
    body = {**BODY, "stream": False, "max_tokens": 1}
    assert httpx.post(gateway.url + CHAT, json=body, timeout=60).status_code == 200
    state = scrape(gateway.url).value("synapse_breaker_state", backend="chat-a")
    return True if state == 0 else None
