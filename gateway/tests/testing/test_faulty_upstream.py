"""The scripted upstream does on the wire what its scripts say."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.blackhole import Blackhole
from synapse_gateway.testing.wire import Ending

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CHAT = "/v1/chat/completions"
PLAIN: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**PLAIN, "stream": True}


@pytest.fixture
async def upstream() -> AsyncIterator[FaultyUpstream]:
    async with FaultyUpstream() as server:
        yield server


async def test_right_answers_are_whole_and_say_the_same(upstream: FaultyUpstream) -> None:
    plain = await wire.post(upstream.url, CHAT, PLAIN)
    streamed = await wire.post(upstream.url, CHAT, STREAM)

    assert plain.text() == streamed.text() == "alpha beta gamma"
    assert (plain.ending, streamed.ending) == (Ending.COMPLETE, Ending.COMPLETE)
    assert streamed.events()[-1] == "[DONE]"
    assert len(streamed.chunks) == 6, "role, three words, finish, [DONE], an HTTP chunk each"


async def test_usage_is_streamed_only_when_asked_for(upstream: FaultyUpstream) -> None:
    asked = await wire.post(
        upstream.url, CHAT, {**STREAM, "stream_options": {"include_usage": True}}
    )
    unasked = await wire.post(upstream.url, CHAT, STREAM)

    assert json.loads(asked.events()[-2])["usage"]["completion_tokens"] == 3
    assert "usage" not in unasked.events()[-2]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/chat/completions", "choices"),
        ("/v1/completions", "choices"),
        ("/v1/embeddings", "data"),
        ("/v1/responses", "output"),
        ("/v1/messages", "content"),
        ("/v1/messages/count_tokens", "input_tokens"),
        ("/v1/rerank", "results"),
    ],
)
async def test_every_path_has_an_answer_of_its_own_shape(
    upstream: FaultyUpstream, path: str, field: str
) -> None:
    assert field in (await wire.post(upstream.url, path, {"model": "m"})).json()


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/completions", "[DONE]"),
        ("/v1/responses", "response.completed"),
        ("/v1/messages", "message_stop"),
    ],
)
async def test_every_stream_ends_as_its_api_says(
    upstream: FaultyUpstream, path: str, last: str
) -> None:
    answer = await wire.post(upstream.url, path, {"model": "m", "stream": True})

    assert last in answer.events()[-1]
    assert answer.ending is Ending.COMPLETE


async def test_speech_is_a_wav_file(upstream: FaultyUpstream) -> None:
    answer = await wire.post(upstream.url, "/v1/audio/speech", {"model": "m", "input": "hi"})

    assert answer.body[:4] + answer.body[8:12] == b"RIFFWAVE"
    assert int.from_bytes(answer.body[4:8], "little") == len(answer.body) - 8


async def test_scripts_are_taken_in_order_and_then_the_standing_one(
    upstream: FaultyUpstream,
) -> None:
    upstream.queue(scripts.status(503), scripts.throttled(7))

    statuses = [(await wire.post(upstream.url, CHAT, PLAIN)).status for _ in range(3)]

    assert statuses == [503, 429, 200]


async def test_a_function_of_the_request_chooses_the_script(upstream: FaultyUpstream) -> None:
    upstream.when(lambda seen: scripts.status(404) if seen.model == "x" else scripts.answer())

    assert (await wire.post(upstream.url, CHAT, {**PLAIN, "model": "x"})).status == 404
    assert (await wire.post(upstream.url, CHAT, PLAIN)).status == 200


async def test_probes_are_answered_apart(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.status(500))

    assert (await wire.get(upstream.url, "/health")).status == 200
    assert (await wire.get(upstream.url, "/v1/models")).json()["data"][0]["id"] == "m"
    assert [seen.path for seen in upstream.probed] == ["/health", "/v1/models"]
    assert upstream.requests == []
    assert (await wire.post(upstream.url, CHAT, PLAIN)).status == 500


async def test_requests_are_recorded_whole(upstream: FaultyUpstream) -> None:
    await wire.post(upstream.url, f"{CHAT}?x=1", STREAM, headers={"X-Tag": "7"})

    [seen] = upstream.requests
    assert (seen.method, seen.path, seen.target) == ("POST", CHAT, f"{CHAT}?x=1")
    assert seen.header("x-tag") == "7"
    assert (seen.json(), seen.model, seen.stream) == (STREAM, "m", True)
    assert seen.connection.requests == 1


async def test_a_chunked_request_body_is_read(upstream: FaultyUpstream) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b'{"model"'
        yield b':"m"}'

    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{upstream.url}{CHAT}", content=parts())

    assert answer.status_code == 200
    assert upstream.requests[0].json() == {"model": "m"}


async def test_a_kept_connection_serves_again(upstream: FaultyUpstream) -> None:
    async with httpx.AsyncClient() as client:
        for _ in range(3):
            await client.post(f"{upstream.url}{CHAT}", json=PLAIN)

    assert [connection.requests for connection in upstream.connections] == [3]


async def test_refusing_keeps_the_port_and_can_be_undone(upstream: FaultyUpstream) -> None:
    await upstream.refuse()
    with pytest.raises(ConnectionRefusedError):
        await wire.post(upstream.url, CHAT, PLAIN)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", upstream.port))

    await upstream.accept()

    assert (await wire.post(upstream.url, CHAT, PLAIN)).status == 200


async def test_refusing_can_drop_what_is_open(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.held(after=1))
    async with wire.open_stream(upstream.url, CHAT, STREAM) as stream:
        await stream.next_chunk()
        await upstream.refuse(drop=True)
        answer = await stream.read_rest()

    assert answer.ending is Ending.CUT


@pytest.mark.parametrize("script", [scripts.reset(), scripts.close()])
async def test_a_connection_ends_without_a_response(
    upstream: FaultyUpstream, script: scripts.Script
) -> None:
    upstream.queue(script)
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await wire.post(upstream.url, CHAT, PLAIN)


async def test_reset_on_accept_comes_before_anything_is_read(upstream: FaultyUpstream) -> None:
    upstream.on_connect = scripts.Reset()
    with pytest.raises((ConnectionResetError, BrokenPipeError, asyncio.IncompleteReadError)):
        await wire.post(upstream.url, CHAT, PLAIN)
    assert (len(upstream.connections), len(upstream.requests)) == (1, 0)


async def test_a_stall_ends_when_the_peer_leaves(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.broken(1, then=scripts.Stall()))
    async with wire.open_stream(upstream.url, CHAT, STREAM) as stream:
        await stream.next_chunk()
        assert not upstream.connections[0].closed_by_peer.is_set()
        stream.leave()

    await asyncio.wait_for(upstream.connections[0].closed_by_peer.wait(), 5)
    await asyncio.wait_for(upstream.connections[0].closed.wait(), 5)


async def test_a_held_stream_goes_on_when_its_gate_opens(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.held(after=2))
    async with wire.open_stream(upstream.url, CHAT, STREAM) as stream:
        for _ in range(3):
            await stream.next_chunk()
        assert not upstream.requests[0].finished.is_set()
        upstream.gate("go").set()
        answer = await stream.read_rest()

    assert answer.text() == "alpha beta gamma"
    assert answer.ending is Ending.COMPLETE


@pytest.mark.parametrize("then", [scripts.Close(), scripts.Reset()], ids=["fin", "rst"])
@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_a_broken_answer_is_cut(
    upstream: FaultyUpstream, then: scripts.Step, body: dict[str, Any]
) -> None:
    upstream.queue(scripts.broken(2, then=then))

    answer = await wire.post(upstream.url, CHAT, body)

    assert (answer.status, answer.ending) == (200, Ending.CUT)
    assert b"alpha" in answer.body or body is PLAIN


@pytest.mark.parametrize(
    ("script", "last"),
    [
        pytest.param(scripts.error_first(), "the engine failed", id="error-first"),
        pytest.param(scripts.error_event(), "the engine failed", id="error-event"),
        pytest.param(scripts.malformed_event(), '{"con', id="malformed"),
        pytest.param(scripts.without_done(), '"stop"', id="without-done"),
        pytest.param(scripts.without_finish(), "gamma", id="without-finish"),
        pytest.param(scripts.done_without_finish(), "[DONE]", id="done-without-finish"),
    ],
)
async def test_a_stream_ends_with(
    upstream: FaultyUpstream, script: scripts.Script, last: str
) -> None:
    upstream.queue(script)

    answer = await wire.post(upstream.url, CHAT, STREAM)

    assert last in answer.events()[-1]
    assert answer.ending is Ending.COMPLETE


@pytest.mark.parametrize("body", [PLAIN, STREAM], ids=["plain", "stream"])
async def test_bytes_one_by_one_are_the_same_bytes(
    upstream: FaultyUpstream, body: dict[str, Any]
) -> None:
    words = ("grüße", "日本語", "😀")
    upstream.queue(scripts.answer(words), scripts.answer(words, pieces=1))

    whole = await wire.post(upstream.url, CHAT, body)
    split = await wire.post(upstream.url, CHAT, body)

    assert whole.body == split.body
    assert split.text() == "grüße 日本語 😀"


async def test_informational_responses_come_first(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.informational_first())
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")

    lines = [await reader.readuntil(b"\r\n\r\n") for _ in range(3)]
    writer.close()

    assert [line.split()[1] for line in lines] == [b"102", b"103", b"200"]


async def test_http_1_0_ends_by_closing(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.http_1_0())

    answer = await wire.post(upstream.url, CHAT, PLAIN)

    assert answer.text() == "alpha beta gamma"
    assert answer.ending is Ending.CLOSED


async def test_a_bad_chunk_size_is_no_number(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.bad_chunk_size())
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(f"{upstream.url}{CHAT}", json=PLAIN)


async def test_both_framings_are_there_at_once(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.length_and_chunked())

    answer = await wire.post(upstream.url, CHAT, PLAIN)

    assert answer.header("content-length") == "5"
    assert answer.header("transfer-encoding") == "chunked"
    assert len(answer.body) > 5


async def test_huge_headers_are_huge(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.huge_headers(1 << 20))

    answer = await wire.post(upstream.url, CHAT, PLAIN)

    assert sum(len(value) for _, value in answer.headers) > 1_000_000


async def test_garbage_follows_a_whole_answer(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.garbage_after())
    reader, writer = await asyncio.open_connection("127.0.0.1", upstream.port)
    writer.write(b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")

    raw = await reader.readuntil(b'"stray": "response"}')
    writer.close()

    assert raw.count(b"HTTP/1.1 200") == 2


async def test_waiting_for_requests_that_do_not_come_times_out(upstream: FaultyUpstream) -> None:
    with pytest.raises(TimeoutError):
        await upstream.seen(1, timeout=0.01)


async def test_throttling_names_a_time_in_both_forms(upstream: FaultyUpstream) -> None:
    upstream.queue(scripts.throttled(7), scripts.throttled(as_date=0.0), scripts.throttled())

    found = [(await wire.post(upstream.url, CHAT, PLAIN)).header("retry-after") for _ in range(3)]

    assert found == ["7", "Thu, 01 Jan 1970 00:00:00 GMT", None]


async def test_connecting_to_a_blackhole_neither_succeeds_nor_fails() -> None:
    with Blackhole() as nowhere:
        port = int(nowhere.url.rpartition(":")[2])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 0.2)
