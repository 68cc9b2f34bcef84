"""The failover table of the design, a test a row, streamed and not, up to the first content.

Each row is a way in which the first target fails. The caller must see a whole answer of the second
and why he got it; each target what it should; the metrics what happened. The rows after the first
content are in `test_mid_stream.py`, those of callers and deadlines in `test_leaving.py`.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from synapse_gateway.testing import FaultyUpstream, scripts
from synapse_gateway.testing.blackhole import Blackhole
from synapse_gateway.testing.scripts import Close, Reset, Stall
from synapse_gateway.testing.wire import Ending
from tests.faults.support import LONG, SHORT, pair

if TYPE_CHECKING:
    from synapse_gateway.config.settings import Timeouts
    from synapse_gateway.testing.scripts import Script
    from synapse_gateway.testing.wire import Answer
    from tests.faults.support import Pair

BOTH = pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])


class Row(NamedTuple):
    """A way to fail before the first content."""

    name: str
    script: Script
    outcome: str
    status: int = 502
    """What the caller gets when the second target fails in the same way."""
    failure: bool = True
    """Whether it counts for the breaker."""

    @property
    def patience(self) -> Timeouts:
        """Deadlines of a target that fails so."""
        return SHORT if self.outcome == "first_token_timeout" else LONG


ROWS = [
    Row("reset", scripts.reset(), "reset", 503),
    Row("closed", scripts.close(), "reset", 503),
    Row("no-answer", scripts.stall(), "first_token_timeout", 504),
    *(
        Row(str(status), scripts.status(status), "server_error")
        for status in (500, 502, 503, 504, 507, 529, 599)
    ),
    Row("429", scripts.throttled(), "throttled", 503, failure=False),
    Row("429-seconds", scripts.throttled(7), "throttled", 503, failure=False),
    Row("429-date", scripts.throttled(as_date=4e9), "throttled", 503, failure=False),
    Row("404", scripts.status(404), "misrouted", 404, failure=False),
    Row("404-text", scripts.status(404, body=b"404 page"), "misrouted", 404, failure=False),
    Row("401", scripts.status(401), "credentials", failure=False),
    Row("403", scripts.status(403), "credentials", failure=False),
    Row("501", scripts.status(501), "not_supported", 400, failure=False),
    Row("head-then-nothing", scripts.head_only(), "first_token_timeout", 504),
    Row("head-then-closed", scripts.head_only(then=Close()), "empty"),
    Row("head-then-reset", scripts.head_only(then=Reset()), "empty"),
    Row("error-first", scripts.error_first(), "error_first"),
    Row("empty", scripts.empty(), "empty"),
    Row("chunk-size", scripts.bad_chunk_size(), "malformed"),
    Row("smuggling", scripts.length_and_chunked(), "malformed"),
    Row("huge-headers", scripts.huge_headers(), "malformed"),
    Row("not-http", scripts.raw(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", then=Stall()), "malformed"),
]
STREAM_ROWS = [
    Row("role-then-nothing", scripts.role_only(), "first_token_timeout", 504),
    Row("role-then-closed", scripts.role_only(then=Close()), "empty"),
    Row("malformed-first", scripts.malformed_event(0), "malformed"),
    Row("error-after-role", scripts.error_event(0), "error_first"),
]
PLAIN_ROWS = [
    Row("half-then-closed", scripts.broken(then=Close()), "empty"),
    Row("half-then-reset", scripts.broken(then=Reset()), "empty"),
    Row("half-then-nothing", scripts.broken(then=Stall()), "first_token_timeout", 504),
    Row("half-json", scripts.malformed_event(), "malformed"),
]


def cases(rows: list[Row], *, stream: bool) -> list[Any]:
    kind = "stream" if stream else "plain"
    return [pytest.param(row, stream, id=f"{row.name}-{kind}") for row in rows]


EVERY = [
    *cases(ROWS, stream=False),
    *cases(PLAIN_ROWS, stream=False),
    *cases(ROWS, stream=True),
    *cases(STREAM_ROWS, stream=True),
]


async def assert_served_by_second(both: Pair, answer: Answer, outcome: str) -> None:
    """Check everything that a failover shows, and hides."""
    assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
    assert answer.text() == "alpha beta gamma"
    assert answer.header("x-synapse-backend") == "second"
    assert answer.header("x-synapse-model") == "m"
    assert answer.header("x-synapse-attempts") == "2"
    assert answer.header("x-synapse-fallback") == outcome
    assert answer.header("x-request-id")
    events = answer.events()
    assert (not events) or (events[-1] == "[DONE]" and "error" not in answer.body.decode())

    [served] = both.second.requests
    assert served.json()["messages"] == [{"role": "user", "content": "hi"}]

    metrics = await both.metrics()
    assert metrics.value("synapse_attempts_total", backend="first", outcome=outcome) == 1
    assert metrics.value("synapse_attempts_total", backend="second", outcome="ok") == 1
    assert metrics.value("synapse_attempts_total") == 2
    assert metrics.value("synapse_fallbacks_total", backend="second", reason=outcome) == 1
    assert metrics.value("synapse_requests_total", backend="second", code="200") == 1
    misrouted, credentials = outcome == "misrouted", outcome == "credentials"
    assert metrics.value("synapse_misrouted_total", backend="first") == misrouted
    assert metrics.value("synapse_backend_auth_failures_total", backend="first") == credentials
    assert metrics.value("synapse_cut_streams_total") == 0


@pytest.mark.parametrize(("row", "stream"), EVERY)
async def test_the_second_target_serves_unseen(row: Row, *, stream: bool) -> None:
    async with pair(patience=row.patience) as both:
        both.first.queue(row.script)

        answer = await both.ask(stream=stream)

        await assert_served_by_second(both, answer, row.outcome)
        assert both.seen == (1, 1)
        if row.outcome == "first_token_timeout":
            await both.first.requests[0].connection.closed_by_peer.wait()


@pytest.mark.parametrize(("row", "stream"), EVERY)
async def test_when_both_fail_the_caller_is_told_once(row: Row, *, stream: bool) -> None:
    async with pair(patience=row.patience, second_patience=row.patience) as both:
        both.first.queue(row.script)
        both.second.queue(row.script)

        answer = await both.ask(stream=stream)

        assert (answer.status, answer.ending) == (row.status, Ending.COMPLETE)
        error = answer.error()
        assert error is not None
        assert set(error) == {"message", "type", "param", "code"}
        assert "127.0.0.1" not in answer.body.decode()
        assert str(both.first.port) not in answer.body.decode()
        assert (answer.header("retry-after") is not None) == (row.status == 503)
        assert both.seen == (1, 1)
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome=row.outcome) == 2
        assert metrics.value("synapse_requests_total", code=str(row.status)) == 1


@pytest.mark.parametrize(("row", "stream"), EVERY)
async def test_the_breaker_opens_by_failures_only(row: Row, *, stream: bool) -> None:
    async with pair(patience=row.patience, failures=1) as both:
        both.first.queue(row.script)
        await both.ask(stream=stream)

        metrics = await both.metrics()
        assert metrics.value("synapse_breaker_state", backend="first") == (2 if row.failure else 0)

        again = await both.ask(stream=stream)
        cooling = row.outcome == "throttled"
        assert both.seen == ((1, 2) if row.failure or cooling else (2, 1))
        reason = "breaker_open" if row.failure else "cooling_down" if cooling else None
        assert again.header("x-synapse-fallback") == reason
        assert again.header("x-synapse-attempts") == "1"


# -- connecting


@BOTH
async def test_a_refused_connection_goes_to_the_second(*, stream: bool) -> None:
    async with pair() as both:
        await both.first.refuse(drop=True)

        answer = await both.ask(stream=stream)

        await assert_served_by_second(both, answer, "refused")
        assert both.seen == (0, 1)


@BOTH
async def test_a_reset_on_accept_goes_to_the_second(*, stream: bool) -> None:
    async with pair() as both:
        await both.first.refuse(drop=True)
        await both.first.accept()
        both.first.on_connect = Reset()

        answer = await both.ask(stream=stream)

        await assert_served_by_second(both, answer, "reset")
        assert both.seen == (0, 1)


@BOTH
async def test_connecting_in_vain_goes_to_the_second(*, stream: bool) -> None:
    with Blackhole() as nowhere:
        async with pair(first_url=nowhere.url, patience=SHORT) as both:
            answer = await both.ask(stream=stream)

            await assert_served_by_second(both, answer, "connect_timeout")


@BOTH
async def test_a_name_that_does_not_resolve_goes_to_the_second(
    monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    real = socket.getaddrinfo
    known = True

    def resolve(host: Any, *args: Any, **more: Any) -> Any:
        if host != "gone.invalid":
            return real(host, *args, **more)
        if known:
            return real("127.0.0.1", *args, **more)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    async with (
        FaultyUpstream() as named,
        pair(first_url=f"http://gone.invalid:{named.port}") as both,
    ):
        known = False

        answer = await both.ask(stream=stream)

        await assert_served_by_second(both, answer, "dns")


@BOTH
async def test_a_broken_tls_handshake_goes_to_the_second(*, stream: bool) -> None:
    async with (
        pair() as plain_text,
        pair(first_url=plain_text.first.url.replace("http:", "https:")) as both,
    ):
        plain_text.first.on_connect = scripts.Send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answer = await both.ask(stream=stream)

        await assert_served_by_second(both, answer, "tls")


async def test_a_closed_idle_connection_costs_nothing() -> None:
    async with pair() as both:
        both.first.queue(scripts.closing_unannounced())
        await both.ask(stream=False)
        await both.first.connections[-1].closed.wait()

        answer = await both.ask(stream=False)

        assert answer.header("x-synapse-backend") == "first"
        assert answer.header("x-synapse-attempts") == "1"
        assert both.seen == (2, 0)


# -- throttling


@pytest.mark.parametrize(
    ("form", "least", "most"),
    [("seconds", 100, 120), ("date", 100, 120), ("none", 1, 5)],
)
async def test_a_throttling_target_is_left_alone_for_the_time_it_asked_for(
    form: str, least: int, most: int
) -> None:
    async with pair() as both:
        asked = {
            "seconds": scripts.throttled(120),
            "date": scripts.throttled(as_date=time.time() + 120),
            "none": scripts.throttled(),
        }
        both.first.queue(asked[form])
        both.second.queue(scripts.throttled(3000))

        answer = await both.ask(stream=False)

        assert (answer.status, both.seen) == (503, (1, 1))
        assert least <= int(answer.header("retry-after") or 0) <= most


# -- the caller's own errors


@pytest.mark.parametrize("status", [400, 402, 405, 409, 413, 415, 418, 422, 451])
@BOTH
async def test_the_callers_own_error_is_his(status: int, *, stream: bool) -> None:
    body = b'{"error":{"message":"yours","type":"invalid_request_error","param":"x","code":"c"}}'
    async with pair(failures=1) as both:
        both.first.queue(scripts.status(status, body=body))

        answer = await both.ask(stream=stream)

        assert (answer.status, answer.body) == (status, body)
        assert answer.header("x-synapse-backend") == "first"
        assert answer.header("x-synapse-fallback") is None
        assert both.seen == (1, 0), "neither retried"
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome="client_error") == 1
        assert metrics.value("synapse_breaker_state", backend="first") == 0, "nor a failure"


@BOTH
async def test_a_prompt_too_long_goes_to_the_larger_model(*, stream: bool) -> None:
    async with pair(context_fallback="larger") as both:
        both.first.queue(scripts.context_exceeded())

        answer = await both.ask(stream=stream)

        assert (answer.status, answer.text()) == (200, "alpha beta gamma")
        assert answer.header("x-synapse-model") == "larger"
        assert answer.header("x-synapse-fallback") == "context_exceeded"
        assert both.second.requests[0].model == "larger"
        assert both.seen == (1, 1)


@BOTH
async def test_a_prompt_too_long_is_told_where_there_is_no_larger_model(*, stream: bool) -> None:
    async with pair(failures=1) as both:
        both.first.queue(scripts.context_exceeded())

        answer = await both.ask(stream=stream)

        assert answer.status == 400
        assert (answer.error() or {})["code"] == "context_length_exceeded"
        assert both.seen == (1, 0)
        metrics = await both.metrics()
        assert metrics.value("synapse_attempts_total", outcome="context_exceeded") == 1
        assert metrics.value("synapse_breaker_state", backend="first") == 0


# -- odd, but right


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(scripts.informational_first(), id="1xx"),
        pytest.param(scripts.http_1_0(), id="http-1.0"),
        pytest.param(scripts.closing(), id="connection-close"),
        pytest.param(scripts.garbage_after(), id="garbage-after"),
        pytest.param(scripts.answer(pieces=1), id="byte-by-byte"),
        pytest.param(scripts.answer(("grüße", "日本語", "😀"), pieces=1), id="split-utf-8"),
    ],
)
@BOTH
async def test_an_odd_but_right_answer_is_passed_on(script: Script, *, stream: bool) -> None:
    async with pair() as both:
        both.first.queue(script)

        answer = await both.ask(stream=stream)
        after = await both.ask(stream=stream)

        assert (answer.status, answer.ending) == (200, Ending.COMPLETE)
        assert len(answer.text().split()) == 3
        assert answer.header("x-synapse-attempts") == "1"
        assert after.text() == "alpha beta gamma"
        assert both.seen == (2, 0)
