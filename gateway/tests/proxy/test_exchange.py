"""The failover of one request: which targets are asked, when, and what the caller is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_gateway import errors
from synapse_gateway.audio_api.wav import Format
from synapse_gateway.backends.base import Capability
from synapse_gateway.config.settings import (
    Backend,
    BackendType,
    Breaker,
    Limits,
    Model,
    Queue,
    Settings,
    Target,
)
from synapse_gateway.proxy import attempt as attempt_module
from synapse_gateway.proxy import deadlines as deadlines_module
from synapse_gateway.proxy import exchange as module
from synapse_gateway.proxy.body import Joined
from synapse_gateway.proxy.connection import Broken
from synapse_gateway.proxy.exchange import BACK_OFF, STALE_WITHIN, parse_retry_after
from synapse_gateway.proxy.readers import SoundReader
from synapse_gateway.routing.outcome import Outcome
from synapse_gateway.routing.retry_budget import RetryBudget
from tests.proxy.support import (
    DONE,
    EVENT_STREAM,
    FINISH,
    GOOD,
    JSON,
    WORDS,
    Clock,
    FakeCaller,
    FakeConnection,
    Stage,
    answers,
    breaks,
    chat_form,
    says_nothing,
    streams,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_gateway.proxy.connection import Receiver
    from synapse_gateway.proxy.request import Form
    from synapse_gateway.routing.fleet import BackendState
    from synapse_gateway.routing.table import Candidate

WAV = Format(coding=1, channels=1, rate=16000, bits=16)

DOWN = answers(503)
REFUSED = Outcome.REFUSED
CONTEXT = answers(400, b'{"error":{"code":"context_length_exceeded","message":"too long"}}')


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for each in (module, attempt_module, deadlines_module):
        monkeypatch.setattr(each, "monotonic", clock)
    return clock


@pytest.fixture
def sleeping(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "sleep", clock.sleep)


def targets(names: str) -> tuple[Target, ...]:
    """`a1 b2` are two targets, of orders 1 and 2."""
    return tuple(Target(backend=name[:-1], order=int(name[-1])) for name in names.split())


def stage(
    clock: Clock,
    names: str = "a1 b2",
    *,
    limits: dict[str, Any] | None = None,
    others: dict[str, Model] | None = None,
    kinds: dict[str, BackendType] | None = None,
    **model: Any,
) -> Stage:
    models = {"m": Model(targets=targets(names), **model), **(others or {})}
    backends = {
        target.backend: Backend(
            url="http://backend",
            type=(kinds or {}).get(target.backend, BackendType.OPENAI_COMPATIBLE),
        )
        for each in models.values()
        for target in each.targets
    }
    given = {"breaker": Breaker(failures=100), **(limits or {})}
    return Stage(Settings(backends=backends, models=models, limits=Limits(**given)), clock)


async def told(stage: Stage, **fields: Any) -> errors.RequestError:
    """Return the error that a request ends with."""
    with pytest.raises(errors.RequestError) as caught:
        await stage.serve(**fields)
    return caught.value


# -- going on to the next target


async def test_the_first_target_serves(clock: Clock) -> None:
    scene = stage(clock)
    caller, record = await scene.serve()
    assert (caller.status, caller.ending) == (200, "whole")
    assert [(name, value) for name, value in caller.headers if name.startswith(b"x-")] == [
        (b"x-request-id", b"r1"),
        (b"x-synapse-backend", b"a"),
        (b"x-synapse-model", b"m"),
        (b"x-synapse-attempts", b"1"),
    ]
    [attempt] = record.attempts
    assert (attempt.backend, attempt.model, attempt.order, attempt.outcome) == ("a", "m", 1, "ok")
    assert (record.fallback, record.tokens_in, record.tokens_out) == ("", 3, 2)
    assert scene.upstreams.nudged == []


@pytest.mark.parametrize(
    ("step", "outcome"),
    [
        pytest.param(Outcome.REFUSED, "refused", id="refused"),
        pytest.param(Outcome.DNS, "dns", id="dns"),
        pytest.param(breaks(Broken.RESET), "reset", id="reset"),
        pytest.param(breaks(Broken.MALFORMED), "malformed", id="malformed"),
        pytest.param(answers(429), "throttled", id="429"),
        pytest.param(answers(500), "server_error", id="500"),
        pytest.param(answers(404), "misrouted", id="404"),
        pytest.param(answers(401), "credentials", id="401"),
        pytest.param(answers(302), "malformed", id="302"),
        pytest.param(answers(200), "empty", id="empty"),
        pytest.param(
            answers(400, b'{"error":{"code":"model_not_found"}}'), "misrouted", id="says-no-model"
        ),
    ],
)
async def test_the_next_target_is_tried_at_once(
    clock: Clock, step: Any, outcome: str, sleeping: None
) -> None:
    scene = stage(clock)
    scene.script("a", step)
    caller, record = await scene.serve()
    assert (caller.status, caller.header(b"x-synapse-backend")) == (200, b"b")
    assert caller.header(b"x-synapse-attempts") == b"2"
    assert caller.header(b"x-synapse-fallback") == outcome.encode()
    assert [attempt.outcome for attempt in record.attempts] == [outcome, "ok"]
    assert clock.slept == []


async def test_why_another_order_serves_is_told(clock: Clock) -> None:
    scene = stage(clock)
    scene.candidate("a").state.cooling_until = clock.now + 60
    caller, record = await scene.serve()
    assert caller.header(b"x-synapse-fallback") == b"cooling_down"
    assert (caller.header(b"x-synapse-attempts"), record.fallback) == (b"1", "cooling_down")


async def test_the_first_reason_stays_the_reason(clock: Clock) -> None:
    scene = stage(clock, "a1 b2 c3")
    scene.candidate("a").state.cooling_until = clock.now + 60
    scene.script("b", DOWN)
    caller, _ = await scene.serve()
    assert caller.header(b"x-synapse-fallback") == b"cooling_down"


async def test_only_failures_have_the_backend_looked_at(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", DOWN, answers(404))
    await scene.serve()
    await scene.serve()
    assert scene.upstreams.nudged == ["a"]


@pytest.mark.parametrize("status", [400, 402, 409, 413, 422])
async def test_a_callers_own_error_is_passed_on_as_it_is(clock: Clock, status: int) -> None:
    scene = stage(clock)
    headers = [*JSON, (b"server", b"x"), (b"request-id", b"7")]
    scene.script("a", answers(status, b'{"error":{"message":"yours"}}', headers))
    caller, record = await scene.serve()
    assert (caller.status, caller.body) == (status, b'{"error":{"message":"yours"}}')
    assert caller.header(b"request-id") == b"7"
    assert caller.header(b"server") is None
    assert (scene.asked("a"), scene.asked("b")) == (1, 0)
    assert record.error == "client_error"


async def test_a_form_may_change_the_backends_refusal(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", answers(422, b'{"error":"x"}'))
    form = chat_form(refused=lambda status, body: b"%d: %b" % (status, body))
    caller, _ = await scene.serve(form=form)
    assert (caller.status, caller.body) == (422, b'422: {"error":"x"}')


async def test_a_server_error_that_is_the_callers_fault_is_told_as_such(clock: Clock) -> None:
    scene = stage(clock)
    scene.script(
        "a", answers(500, b'{"error":{"code":"context_length_exceeded","message":"long"}}')
    )
    error = await told(scene)
    assert (error.status, error.code, error.message) == (400, "context_length_exceeded", "long")
    assert scene.asked("b") == 0


# -- how often


async def test_attempts_are_bounded(clock: Clock, sleeping: None) -> None:
    scene = stage(clock, "a1 b1 c1 d1")
    for name in "abcd":
        scene.script(name, DOWN)
    error = await told(scene)
    assert (error.status, sum(scene.asked(name) for name in "abcd")) == (502, 3)
    assert error.message == "No backend for 'm' answered properly (server_error)."


async def test_a_model_may_have_attempts_of_its_own(clock: Clock) -> None:
    scene = stage(clock, attempts=1)
    scene.script("a", DOWN)
    await told(scene)
    assert (scene.asked("a"), scene.asked("b")) == (1, 0)


async def test_a_spent_request_does_not_wait_for_a_place(clock: Clock) -> None:
    scene = stage(clock, "a1 b2", attempts=1)
    scene.candidate("b").cap = 1
    scene.candidate("b").state.start()
    scene.script("a", DOWN)
    assert (await told(scene)).status == 502
    assert list(scene.waiting.lengths()) == []


async def test_back_off_comes_before_a_target_that_was_tried(clock: Clock, sleeping: None) -> None:
    scene = stage(clock, "a1 b2", attempts=6)
    scene.script("a", DOWN, DOWN, DOWN)
    scene.script("b", DOWN)
    caller, record = await scene.serve()
    assert caller.status == 200
    assert [attempt.backend for attempt in record.attempts] == ["a", "b", "a", "a", "a"]
    assert clock.slept == [BACK_OFF[0], BACK_OFF[1], BACK_OFF[2]]


async def test_back_off_grows_no_further(clock: Clock, sleeping: None) -> None:
    scene = stage(clock, "a1", attempts=6)
    scene.script("a", *[REFUSED] * 6)
    await told(scene)
    assert clock.slept == [0.5, 1.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("step", "asked"),
    [
        pytest.param(Outcome.REFUSED, 3, id="refused"),
        pytest.param(breaks(Broken.RESET), 3, id="reset-before-the-head"),
        pytest.param(DOWN, 1, id="server-error"),
        pytest.param(answers(200), 1, id="empty"),
    ],
)
async def test_a_single_target_is_asked_again_only_when_it_did_nothing(
    clock: Clock, step: Any, asked: int, sleeping: None
) -> None:
    scene = stage(clock, "a1")
    scene.script("a", *[step] * 3)
    await told(scene)
    assert scene.asked("a") == asked


@pytest.mark.parametrize(
    ("status", "told_status"), [(404, 404), (401, 502), (501, 400)], ids=["404", "401", "501"]
)
async def test_what_would_be_said_again_is_not_asked_again(
    clock: Clock, status: int, told_status: int, sleeping: None
) -> None:
    scene = stage(clock)
    scene.script("a", answers(status))
    scene.script("b", answers(status))
    assert (await told(scene)).status == told_status
    assert (scene.asked("a"), scene.asked("b"), clock.slept) == (1, 1, [])


async def test_only_the_target_that_failed_is_asked_again(clock: Clock, sleeping: None) -> None:
    scene = stage(clock)
    scene.script("a", answers(401))
    scene.script("b", DOWN)
    caller, record = await scene.serve()
    assert caller.status == 200
    assert [attempt.backend for attempt in record.attempts] == ["a", "b", "b"]


async def test_a_back_off_ends_with_the_requests_time(clock: Clock, sleeping: None) -> None:
    scene = stage(clock, "a1")
    scene.script("a", REFUSED)
    scene.candidate("a").state.breaker.failures = 1
    await told(scene, deadline=clock.now + 0.2)
    assert clock.slept == [pytest.approx(0.2)]


async def test_nothing_is_left_when_breakers_opened_meanwhile(clock: Clock, sleeping: None) -> None:
    scene = stage(clock, limits={"breaker": Breaker(failures=1)})
    scene.script("a", DOWN)
    scene.script("b", DOWN)
    error = await told(scene)
    assert (error.status, clock.slept) == (502, [0.5])
    assert (scene.asked("a"), scene.asked("b")) == (1, 1)


# -- the budget


def spent() -> RetryBudget:
    return RetryBudget(0.0, 10.0, 0)


async def test_the_first_attempt_on_another_target_is_free(clock: Clock) -> None:
    scene = stage(clock)
    scene.budget = spent()
    scene.script("a", DOWN)
    caller, _ = await scene.serve()
    assert caller.status == 200


async def test_a_third_target_draws_on_the_budget(clock: Clock) -> None:
    scene = stage(clock, "a1 b2 c3")
    scene.budget = spent()
    scene.script("a", DOWN)
    scene.script("b", DOWN)
    assert (await told(scene)).status == 502
    assert (scene.asked("c"), scene.budget.denied) == (0, 1)


async def test_asking_the_same_target_again_draws_on_the_budget(
    clock: Clock, sleeping: None
) -> None:
    scene = stage(clock, "a1")
    scene.budget = spent()
    scene.script("a", REFUSED)
    assert (await told(scene)).status == 503
    assert (scene.asked("a"), scene.budget.denied) == (1, 1)


# -- other models


async def test_another_model_serves_before_a_target_is_asked_again(
    clock: Clock, sleeping: None
) -> None:
    scene = stage(clock, fallbacks=("n",), others={"n": Model(targets=targets("c1"))})
    scene.script("a", DOWN)
    scene.script("b", DOWN)
    caller, record = await scene.serve()
    assert caller.header(b"x-synapse-model") == b"n"
    assert caller.header(b"x-synapse-fallback") == b"server_error"
    assert [attempt.model for attempt in record.attempts] == ["m", "m", "n"]
    assert clock.slept == []


async def test_another_model_serves_when_all_breakers_are_open(clock: Clock) -> None:
    scene = stage(clock, "a1", fallbacks=("n",), others={"n": Model(targets=targets("c1"))})
    scene.candidate("a").state.cooling_until = clock.now + 60
    caller, record = await scene.serve()
    assert (record.fallback, caller.header(b"x-synapse-attempts")) == ("cooling_down", b"1")


async def test_another_model_with_room_serves_before_anybody_waits(clock: Clock) -> None:
    scene = stage(clock, "a1", fallbacks=("n",), others={"n": Model(targets=targets("c1"))})
    scene.candidate("a").cap = 1
    scene.candidate("a").state.start()
    caller, _ = await scene.serve()
    assert caller.header(b"x-synapse-model") == b"n"
    assert caller.header(b"x-synapse-fallback") == b"at_capacity"


async def test_another_model_without_room_is_no_reason_to_leave_the_queue(clock: Clock) -> None:
    crowd = Crowd(clock, fallbacks=("n",), others={"n": Model(targets=targets("c1"))})
    other = crowd.scene.candidate("c", "n")
    other.cap = 1
    other.state.start()
    await crowd.ask("first")
    await crowd.ask("second")
    assert crowd.waiting == 2
    other.state.end(Outcome.OK, 0.0)
    crowd.scene.waiting.notify()
    await crowd.turn()
    assert (crowd.waiting, crowd.served) == (0, ["first", "second"])


async def test_a_model_that_cannot_do_it_is_passed_over(clock: Clock) -> None:
    scene = stage(
        clock,
        "a1",
        fallbacks=("gone", "deaf", "n"),
        others={"deaf": Model(targets=targets("ears1")), "n": Model(targets=targets("c1"))},
        kinds={"ears": BackendType.FASTER_WHISPER},
    )
    scene.script("a", DOWN)
    caller, _ = await scene.serve()
    assert caller.header(b"x-synapse-model") == b"n"


async def test_when_no_model_is_left_the_failure_is_told(clock: Clock) -> None:
    scene = stage(clock, "a1", fallbacks=("n",), others={"n": Model(targets=targets("c1"))})
    scene.script("a", DOWN)
    scene.script("c", DOWN)
    assert (await told(scene)).status == 502


async def test_a_prompt_too_long_goes_to_the_larger_model(clock: Clock) -> None:
    scene = stage(clock, context_fallback="n", others={"n": Model(targets=targets("c1"))})
    scene.script("a", CONTEXT)
    caller, record = await scene.serve()
    assert caller.header(b"x-synapse-model") == b"n"
    assert (record.fallback, scene.asked("b")) == ("context_exceeded", 0)


@pytest.mark.parametrize("fallback", [None, "gone", "deaf"])
async def test_a_prompt_too_long_is_told_where_no_larger_model_is(
    clock: Clock, fallback: str | None
) -> None:
    scene = stage(
        clock,
        context_fallback=fallback,
        others={"deaf": Model(targets=targets("ears1"))},
        kinds={"ears": BackendType.FASTER_WHISPER},
    )
    scene.script("a", CONTEXT)
    caller, _ = await scene.serve()
    assert (caller.status, b"too long" in caller.body) == (400, True)


async def test_a_prompt_too_long_stays_one_when_the_larger_model_is_out_of_reach(
    clock: Clock,
) -> None:
    scene = stage(
        clock,
        attempts=1,
        context_fallback="n",
        others={"n": Model(targets=targets("c1"), attempts=1)},
    )
    scene.script("a", CONTEXT)
    error = await told(scene)
    assert (error.status, error.code) == (400, "context_length_exceeded")


# -- what the caller is told in the end


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        pytest.param([REFUSED], 503, id="refused"),
        pytest.param([Outcome.CONNECT_TIMEOUT], 504, id="connect-timeout"),
        pytest.param([Outcome.TLS], 502, id="tls"),
        pytest.param([answers(429)], 503, id="throttled"),
        pytest.param([answers(404)], 404, id="misrouted"),
        pytest.param([answers(401)], 502, id="credentials"),
        pytest.param([answers(501)], 400, id="not-supported"),
        pytest.param([DOWN, answers(404)], 502, id="a-failure-says-more-than-a-404"),
        pytest.param([answers(404), REFUSED], 503, id="in-whatever-order"),
        pytest.param([answers(429), answers(404)], 503, id="a-full-one-will-have-room"),
        pytest.param([answers(429), answers(501)], 503, id="though-another-never-can"),
        pytest.param([answers(401), answers(404)], 502, id="credentials-can-be-mended"),
        pytest.param([REFUSED, DOWN], 502, id="of-two-failures-the-last"),
    ],
)
async def test_what_is_told_when_nothing_is_left(
    clock: Clock, steps: list[Any], status: int, sleeping: None
) -> None:
    scene = stage(clock, "a1 b2"[: 3 * len(steps) - 1], limits={"breaker": Breaker(failures=1)})
    for name, step in zip("ab", steps, strict=False):
        scene.script(name, step)
    error = await told(scene)
    assert error.status == status
    assert (error.retry_after is not None) == (status == 503)


async def test_the_time_to_come_back_is_that_of_the_first_target_to_be_back(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", answers(429, b"", [(b"retry-after", b"40")]))
    scene.script("b", answers(429, b"", [(b"retry-after", b"90")]))
    assert (await told(scene)).retry_after == 40.0


async def test_without_a_name_the_caller_is_told_of_his_request(clock: Clock) -> None:
    scene = stage(clock, "a1")
    scene.script("a", DOWN)
    exchange, record = scene.exchange(FakeCaller())
    record.model_asked = ""
    with pytest.raises(errors.BadGateway, match="No backend for 'this request'"):
        await exchange.run()


# -- deadlines


async def test_time_that_has_run_out_is_not_spent_on_anybody(clock: Clock) -> None:
    scene = stage(clock)
    assert (await told(scene, deadline=clock.now)).status == 504
    assert scene.asked("a") == 0


async def test_time_that_runs_out_at_a_backend_is_504_whatever_failed_before(clock: Clock) -> None:
    scene = stage(clock)

    def late(receiver: Any) -> None:
        clock.now += 400
        receiver.check(clock.now)

    scene.script("a", DOWN)
    scene.script("b", late)
    error = await told(scene)
    assert (error.status, error.message) == (
        504,
        "The request's time ran out before it was answered.",
    )


# -- streams


async def test_a_stream_passes_and_its_tokens_are_counted(clock: Clock) -> None:
    scene = stage(clock)
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
    scene.script("a", streams(WORDS, FINISH, usage, DONE))
    caller, record = await scene.serve(stream=True)
    assert (caller.body, caller.ending) == (WORDS + FINISH + usage + DONE, "finished")
    assert (record.tokens_in, record.tokens_out, record.tokens_estimated) == (5, 7, False)


async def test_without_usage_the_words_are_counted(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", streams(WORDS, WORDS, FINISH, DONE))
    _, record = await scene.serve(stream=True)
    assert (record.tokens_out, record.tokens_estimated) == (2, True)


async def test_a_stream_of_no_words_counts_none(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", streams(FINISH, DONE))
    _, record = await scene.serve(stream=True)
    assert (record.tokens_out, record.tokens_estimated) == (0, False)


async def test_words_that_a_caller_read_before_he_left_are_counted(clock: Clock) -> None:
    def begins(receiver: Receiver) -> None:
        receiver.on_head(200, list(EVENT_STREAM))
        receiver.on_body(WORDS * 3)

    scene = stage(clock)
    scene.script("a", begins)
    exchange, record = scene.exchange(FakeCaller(), stream=True)
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (record.tokens_out, record.tokens_estimated) == (3, True)


async def test_a_refusal_too_long_to_repeat_is_told_as_one(clock: Clock) -> None:
    scene = stage(clock, limits={"hold_bytes": 1024})
    scene.script("a", answers(400, b"x" * 2000))
    assert "refuses" in (await told(scene)).message
    assert scene.asked("b") == 0


@pytest.mark.parametrize(
    ("parts", "then", "code"),
    [
        pytest.param([WORDS], Broken.CUT, "stream_cut", id="cut"),
        pytest.param([WORDS], None, "stream_cut", id="ended-early"),
        pytest.param([WORDS, b"data: {half\n\n"], Broken.CUT, "stream_malformed_event", id="half"),
        pytest.param(
            [WORDS, b'data: {"error":1}\n\n'], Broken.CUT, "stream_error_event", id="error"
        ),
    ],
)
async def test_a_stream_cut_in_the_middle_ends_with_an_error_and_never_done(
    clock: Clock, parts: list[bytes], then: Broken | None, code: str
) -> None:
    scene = stage(clock)
    scene.script("a", streams(*parts, then=then))
    caller, record = await scene.serve(stream=True)
    assert caller.parts[0] == WORDS
    assert caller.parts[1].startswith(b'data: {"error":')
    assert f'"code":"{code}"'.encode() in caller.parts[1]
    assert (caller.ending, b"[DONE]" in caller.body) == ("finished", False)
    assert record.cut == code.removeprefix("stream_")
    assert scene.asked("b") == 0


@pytest.mark.parametrize(("passed", "code"), [(31.0, "stalled"), (400.0, "deadline")])
async def test_a_stream_that_stops_is_timed_out_in_band(
    clock: Clock, passed: float, code: str
) -> None:
    scene = stage(clock)

    def stop(receiver: Any) -> None:
        receiver.on_head(200, list(EVENT_STREAM))
        receiver.on_body(WORDS)
        clock.now += passed
        receiver.check(clock.now)

    scene.script("a", stop)
    caller, record = await scene.serve(stream=True)
    assert b'"type":"timeout_error"' in caller.parts[1]
    assert record.cut == code


async def test_a_form_may_render_the_error_in_band_its_own_way(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", streams(WORDS, then=Broken.CUT))
    form = chat_form(error_event=lambda error: b"<%b>" % error["code"].encode())
    caller, _ = await scene.serve(stream=True, form=form)
    assert caller.parts[-1] == b"<stream_cut>"


async def test_an_answer_without_events_is_broken_off(clock: Clock) -> None:
    scene = stage(clock)

    def cut(receiver: Any) -> None:
        receiver.on_head(200, [(b"content-type", b"audio/mpeg"), (b"content-length", b"9")])
        receiver.on_body(b"ID3")
        receiver.on_broken(Broken.CUT)

    scene.script("a", cut)
    caller, record = await scene.serve(form=chat_form(expects_json=False))
    assert (caller.body, caller.ending, record.cut) == (b"ID3", "broken off", "cut")


# -- connections


async def test_an_idle_connection_is_used_first(clock: Clock) -> None:
    scene = stage(clock)
    pool = scene.upstreams.of("a").pool
    pool.idle.append(FakeConnection(GOOD))
    _, record = await scene.serve()
    assert record.attempts[0].reused
    [connection] = pool.made
    assert connection.sent == [(b"/v1/chat/completions 13\r\n\r\n", b'{"model":"m"}')]


async def test_a_stale_connection_is_replaced_unseen(clock: Clock) -> None:
    scene = stage(clock)
    pool = scene.upstreams.of("a").pool
    pool.idle.append(FakeConnection(breaks(Broken.STALE)))
    caller, record = await scene.serve()
    assert (caller.header(b"x-synapse-attempts"), caller.header(b"x-synapse-backend")) == (
        b"1",
        b"a",
    )
    assert not record.attempts[0].reused
    assert len(pool.made) == 2


async def test_a_kept_connection_that_is_closed_late_was_an_answer(clock: Clock) -> None:
    def works_and_breaks(receiver: Receiver) -> None:
        clock.now += STALE_WITHIN
        receiver.on_broken(Broken.STALE)

    scene = stage(clock)
    scene.upstreams.of("a").pool.idle.append(FakeConnection(works_and_breaks))
    caller, record = await scene.serve()
    assert caller.header(b"x-synapse-fallback") == b"reset"
    assert [attempt.backend for attempt in record.attempts] == ["a", "b"]


async def test_a_new_connection_that_breaks_is_a_failure(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", breaks(Broken.STALE))
    caller, _ = await scene.serve()
    assert caller.header(b"x-synapse-fallback") == b"reset"


async def test_an_ollama_is_asked_in_its_own_tongue(clock: Clock) -> None:
    scene = stage(clock, "a1 o2", kinds={"o": BackendType.OLLAMA})
    scene.script("a", DOWN)
    native = chat_form(path="/api/chat", body_for=lambda _: b"native")
    translated = chat_form(body_for=lambda _: b"translated")

    def choose_form(backend: BackendState) -> Form:
        return native if backend.config.type is BackendType.OLLAMA else translated

    await scene.serve(choose_form=choose_form)
    [[(_, first)]] = [c.sent for c in scene.upstreams.of("a").pool.made]
    [[(head, second)]] = [c.sent for c in scene.upstreams.of("o").pool.made]
    assert (first, second) == (b"translated", b"native")
    assert head.startswith(b"/api/chat")


async def test_a_caller_who_leaves_cancels_his_request(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", says_nothing)
    caller = FakeCaller()
    exchange, record = scene.exchange(caller)
    task = asyncio.create_task(exchange.run())
    pool = scene.upstreams.of("a").pool
    for _ in range(5):
        await asyncio.sleep(0)
    assert pool.made[0].sent
    assert scene.candidate("a").state.in_flight == 1
    caller.gone = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pool.made[0].left
    assert record.attempts[0].outcome == "caller_left"
    assert scene.candidate("a").state.in_flight == 0
    assert scene.candidate("a").state.breaker.in_a_row == 0


async def test_a_caller_who_leaves_while_connecting_frees_his_place(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = stage(clock)
    connecting = asyncio.Event()

    async def never(_: float) -> Any:
        connecting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(scene.upstreams.of("a").pool, "connect", never)
    caller = FakeCaller()
    exchange, record = scene.exchange(caller)
    task = asyncio.create_task(exchange.run())
    await connecting.wait()
    caller.gone = True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.attempts[0].outcome == "caller_left"
    assert scene.candidate("a").state.in_flight == 0


async def test_a_request_that_is_cancelled_while_its_caller_waits_was_stopped(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", says_nothing)
    caller = FakeCaller()
    exchange, record = scene.exchange(caller)
    task = asyncio.create_task(exchange.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert record.attempts[0].outcome == "stopped"
    assert not caller.ending, "what he hears is up to who stopped it"
    assert scene.candidate("a").state.in_flight == 0
    assert scene.candidate("a").state.breaker.in_a_row == 0


async def test_a_stream_that_is_stopped_says_so_in_band(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", streams(WORDS, stalls=True))
    caller = FakeCaller()
    exchange, record = scene.exchange(caller, stream=True)
    task = asyncio.create_task(exchange.run())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert caller.ending == "finished"
    assert b'"code":"stream_stopped"' in caller.body
    assert b"[DONE]" not in caller.body
    assert (record.cut, record.attempts[0].outcome) == ("stopped", "stopped")


# -- names that could not stand in a header


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("llama3.1:8b", b"llama3.1:8b"),
        ("org/Model Q4", b"org/Model Q4"),
        ("x\r\nset-cookie: a=b", b"x%0D%0Aset-cookie: a%3Db"),
        ("größer", b"gr%C3%B6%C3%9Fer"),
        ("\udc80", b"%3F"),
    ],
)
async def test_no_name_ends_a_header_line(clock: Clock, name: str, value: bytes) -> None:
    scene = stage(clock, "a1")
    scene.table.models["m"].name = ""
    caller = FakeCaller()
    exchange, record = scene.exchange(caller)
    record.model_asked = name
    await exchange.run()
    assert caller.header(b"x-synapse-model") == value


# -- the queue


class Crowd:
    """Requests to one target that takes one at a time."""

    def __init__(
        self,
        clock: Clock,
        size: int = 8,
        deadline: float = 30.0,
        names: str = "a1",
        **more: Any,
    ) -> None:
        self.scene = stage(clock, names, queue=Queue(size=size, deadline=deadline), **more)
        self.scene.candidate("a").cap = 1
        self.scene.candidate("a").state.start()
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, priority: int = 5, **fields: Any) -> None:
        """Send a request and let it get as far as it can."""

        async def serve() -> None:
            await self.scene.serve(priority=priority, **fields)
            self.served.append(name)

        task = asyncio.create_task(serve())
        self.tasks[name] = task
        await self.turn()

    async def turn(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def free(self) -> None:
        """End the request that takes the place."""
        self.scene.candidate("a").state.end(Outcome.OK, 0.0)
        self.scene.waiting.notify()
        await self.turn()

    @property
    def waiting(self) -> int:
        return sum(length for _, length in self.scene.waiting.lengths())


async def test_who_finds_every_target_full_waits_his_turn(clock: Clock) -> None:
    crowd = Crowd(clock)
    for name, priority in (("a", 5), ("b", 5), ("vip", 9), ("c", 5)):
        await crowd.ask(name, priority)
    assert (crowd.waiting, crowd.served) == (4, [])
    await crowd.free()
    assert crowd.served == ["vip", "a", "b", "c"], "each end lets the next in"
    assert crowd.waiting == 0


async def test_a_newcomer_does_not_overtake_those_who_wait(clock: Clock) -> None:
    crowd = Crowd(clock)
    await crowd.ask("first")
    crowd.scene.candidate("a").state.end(Outcome.OK, 0.0)  # room, but nobody was told yet
    await crowd.ask("second")
    assert (crowd.waiting, crowd.served) == (2, [])
    crowd.scene.waiting.notify()
    await crowd.turn()
    assert crowd.served == ["first", "second"]


async def test_a_higher_priority_may_overtake(clock: Clock) -> None:
    crowd = Crowd(clock)
    await crowd.ask("first")
    crowd.scene.candidate("a").state.end(Outcome.OK, 0.0)
    await crowd.ask("vip", 9)
    assert crowd.served[0] == "vip"


async def test_a_full_queue_refuses_at_once(clock: Clock) -> None:
    crowd = Crowd(clock, size=1)
    await crowd.ask("first")
    await crowd.ask("second")
    with pytest.raises(errors.Unavailable, match="Too many requests wait") as refused:
        await crowd.tasks["second"]
    assert (refused.value.code, refused.value.retry_after) == ("no_capacity", 1.0)
    await crowd.free()
    assert crowd.served == ["first"]


async def test_nobody_waits_longer_than_the_queue_allows(clock: Clock) -> None:
    crowd = Crowd(clock)
    await crowd.ask("first")
    clock.now += 30
    crowd.scene.waiting.notify()
    with pytest.raises(errors.Unavailable, match="None became free in time"):
        await crowd.tasks["first"]
    assert crowd.waiting == 0


async def test_nobody_waits_longer_than_his_own_time(clock: Clock) -> None:
    crowd = Crowd(clock)
    await crowd.ask("first", deadline=clock.now + 5)
    clock.now += 5
    crowd.scene.waiting.notify()
    with pytest.raises(errors.GatewayTimeout):
        await crowd.tasks["first"]


async def test_who_waited_in_vain_for_a_second_attempt_hears_of_the_first(clock: Clock) -> None:
    crowd = Crowd(clock, names="z1 a2")
    crowd.scene.script("z", DOWN)
    await crowd.ask("first")
    assert crowd.waiting == 1
    clock.now += 30
    crowd.scene.waiting.notify()
    with pytest.raises(errors.BadGateway, match="server_error"):
        await crowd.tasks["first"]


async def test_nobody_waits_for_what_cannot_be_back_in_time(clock: Clock) -> None:
    scene = stage(clock, "a1", queue=Queue(deadline=30.0))
    scene.candidate("a").state.cooling_until = clock.now + 31
    with pytest.raises(errors.Unavailable, match="None can be back in time") as refused:
        await scene.serve()
    assert refused.value.retry_after == 31.0
    assert list(scene.waiting.lengths()) == []


async def test_the_time_in_the_queue_is_recorded(clock: Clock) -> None:
    crowd = Crowd(clock)
    exchange, record = crowd.scene.exchange(FakeCaller())
    task = asyncio.create_task(exchange.run())
    await crowd.turn()
    clock.now += 7
    await crowd.free()
    await task
    assert record.queued == 7.0


async def test_a_caller_who_leaves_the_queue_lets_the_next_in(clock: Clock) -> None:
    crowd = Crowd(clock)
    await crowd.ask("first")
    await crowd.ask("second")
    crowd.tasks["first"].cancel()
    await crowd.turn()
    assert crowd.waiting == 1
    await crowd.free()
    assert crowd.served == ["second"]


async def test_who_waits_for_a_cool_down_looks_again_when_it_is_over(clock: Clock) -> None:
    scene = stage(clock, "a1")
    scene.candidate("a").state.cooling_until = clock.now + 0.01
    exchange, record = scene.exchange(FakeCaller())
    task = asyncio.create_task(exchange.run())
    await asyncio.sleep(0)
    clock.now += 0.02
    await task
    assert [attempt.outcome for attempt in record.attempts] == ["ok"]


async def test_who_backs_off_holds_nobody_up(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the queue fails on the only free target and waits before asking it again."""
    crowd = Crowd(clock, names="a1")
    released = asyncio.Event()

    async def back_off(_: float) -> None:
        await released.wait()

    crowd.scene.script("a", REFUSED)
    await crowd.ask("first")
    await crowd.ask("second")
    monkeypatch.setattr(module, "sleep", back_off)
    await crowd.free()
    assert crowd.served == ["second"]
    released.set()
    await crowd.turn()
    assert crowd.served == ["second", "first"]


# -- Retry-After


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param(b"7", 7.0, id="seconds"),
        pytest.param(b" 7 ", 7.0, id="spaces"),
        pytest.param(b"0", 0.0, id="now"),
        pytest.param(b"9" * 400, 999999999.0, id="huge"),
        pytest.param(b"-7", None, id="negative"),
        pytest.param(b"soon", None, id="words"),
        pytest.param(b"", None, id="nothing"),
        pytest.param("٣".encode(), None, id="other-digits"),
        pytest.param(b"Wed, 21 Oct 2015 07:28:00 GMT", 0.0, id="past"),
        pytest.param(b"Wed, 21 Oct 2015 07:28:00 -0000", 0.0, id="no-zone"),
        pytest.param(b"Wed, 99 Oct 2015 07:28:00 GMT", None, id="no-such-day"),
        pytest.param(b"Wed, 21 Oct 99999999999 07:28:00 GMT", None, id="no-such-year"),
    ],
)
def test_a_retry_after_in_either_form(value: bytes, seconds: float | None) -> None:
    assert parse_retry_after([(b"date", b"x"), (b"retry-after", value)]) == seconds


@given(
    value=st.one_of(st.binary(max_size=40), st.from_regex(rb"[A-Z][a-z]{2}, [0-9 A-Za-z:+-]{0,30}"))
)
def test_no_retry_after_does_any_harm(value: bytes) -> None:
    seconds = parse_retry_after([(b"retry-after", value)])
    assert seconds is None or seconds >= 0.0


def test_a_date_ahead_is_so_many_seconds() -> None:
    ahead = format_datetime(datetime.now(UTC) + timedelta(seconds=3600), usegmt=True).encode()
    assert parse_retry_after([(b"retry-after", ahead)]) == pytest.approx(3600, abs=60)


def test_no_retry_after_says_nothing() -> None:
    assert parse_retry_after([(b"date", b"x")]) is None


# -- speech and uploads


async def test_what_no_model_of_its_kind_can_do_is_a_501_with_the_reason(clock: Clock) -> None:
    scene = stage(clock)
    refusal = answers(501, b'{"error":{"message":"tiny.en knows English only"}}')
    for name in "ab":
        scene.script(name, refusal)
    caller = FakeCaller()
    exchange, _ = scene.exchange(caller, capability=Capability.TRANSLATIONS)
    with pytest.raises(errors.NotSupported, match=r"tiny\.en knows English only"):
        await exchange.run()


async def test_the_reason_may_be_missing(clock: Clock) -> None:
    scene = stage(clock)
    for name in "ab":
        scene.script(name, answers(501))
    exchange, _ = scene.exchange(FakeCaller(), capability=Capability.TRANSLATIONS)
    with pytest.raises(errors.NotSupported, match="not_supported"):
        await exchange.run()


async def test_who_may_be_asked_can_be_said_with_the_request(clock: Clock) -> None:
    scene = stage(clock)
    plan = scene.table.models["m"].plan(Capability.CHAT)
    exchange, record = scene.exchange(FakeCaller(), plan=plan._replace(orders=plan.orders[1:]))
    await exchange.run()
    assert [attempt.backend for attempt in record.attempts] == ["b"]
    assert exchange.served is scene.candidate("b")


async def test_a_body_of_several_parts_is_sent_with_its_length(clock: Clock) -> None:
    scene = stage(clock)
    body = Joined([b"12345", b"678"])
    await scene.serve(form=chat_form(body_for=lambda _: body))
    [[(head, sent)]] = [c.sent for c in scene.upstreams.of("a").pool.made]
    assert sent is body
    assert head.startswith(b"/v1/chat/completions 8\r\n")


async def test_an_upload_that_cannot_be_read_is_no_fault_of_the_backend(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", breaks(Broken.UNREADABLE))
    exchange, record = scene.exchange(FakeCaller())
    with pytest.raises(errors.Unavailable, match="upload"):
        await exchange.run()
    assert [attempt.outcome for attempt in record.attempts] == ["caller_left"]
    assert scene.candidate("a").state.breaker.in_a_row == 0


async def test_a_refusal_that_is_put_into_other_words_is_json(clock: Clock) -> None:
    scene = stage(clock)
    scene.script("a", answers(422, b"<p>no</p>", [(b"content-type", b"text/html")]))
    caller, _ = await scene.serve(form=chat_form(refused=lambda status, _: b'{"%d":1}' % status))
    assert (caller.status, caller.body) == (422, b'{"422":1}')
    assert caller.header(b"content-type") == b"application/json"


async def test_sound_that_breaks_off_has_no_error_in_band(clock: Clock) -> None:
    scene = stage(clock)
    sample = WAV.head(None) + b"12"
    scene.script("a", streams(sample, then=Broken.CUT))
    form = chat_form(sound=lambda hold: SoundReader(lambda _: True, hold))
    caller, record = await scene.serve(form=form, stream=True)
    assert (caller.body, caller.ending) == (b"12", "broken off")
    assert record.cut == "cut"


async def test_a_path_without_a_model_names_none(clock: Clock) -> None:
    scene = stage(clock)
    exchange, record = scene.exchange(FakeCaller())
    record.model_asked = exchange._route.name = ""
    caller: Any = exchange._caller
    await exchange.run()
    assert caller.header(b"x-synapse-model") is None


# -- voices that a backend is given


UNKNOWN = answers(404, b'{"error":{"code":"voice_not_found","message":"no such voice"}}')


class Giver:
    """Gives a backend a voice, and counts how often."""

    def __init__(self, outcome: Outcome = Outcome.OK) -> None:
        self.outcome = outcome
        self.given: list[str] = []

    async def __call__(self, candidate: Candidate) -> Outcome:
        self.given.append(candidate.state.backend.name)
        return self.outcome


def speakers(clock: Clock) -> Stage:
    kinds = dict.fromkeys("ab", BackendType.OPENVOICE)
    return stage(clock, "a1 b2", kinds=kinds)


def wants(giver: Callable[[Candidate], Awaitable[Outcome]], **fields: Any) -> dict[str, Any]:
    return {"capability": Capability.SPEECH, "provide": giver, **fields}


async def test_a_backend_is_given_the_voice_that_it_lacks(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN, GOOD)
    giver = Giver()
    caller, record = await scene.serve(**wants(giver))
    assert (caller.status, giver.given) == (200, ["a"])
    assert [(each.backend, each.outcome) for each in record.attempts] == [("a", "ok")]


async def test_a_backend_that_never_knows_the_voice_has_failed(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN, UNKNOWN)
    giver = Giver()
    caller, record = await scene.serve(**wants(giver))
    assert (caller.status, giver.given) == (200, ["a"])
    assert [each.outcome for each in record.attempts] == ["server_error", "ok"]


async def test_what_a_backend_says_once_it_has_the_voice_counts(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN, answers(422, b'{"error":{"message":"too long"}}'))
    caller, record = await scene.serve(**wants(Giver()))
    assert (caller.status, b"too long" in caller.body) == (422, True)
    assert [each.outcome for each in record.attempts] == ["client_error"]


async def test_a_backend_that_is_gone_once_it_has_the_voice_is_followed_by_the_next(
    clock: Clock,
) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN, Outcome.REFUSED)
    _, record = await scene.serve(**wants(Giver()))
    assert [each.outcome for each in record.attempts] == ["refused", "ok"]


async def test_a_voice_that_cannot_be_given_is_asked_of_the_next(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN)
    _, record = await scene.serve(**wants(Giver(Outcome.THROTTLED)))
    assert [each.outcome for each in record.attempts] == ["throttled", "ok"]


async def test_a_voice_is_given_in_the_requests_own_time(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN)

    async def slow(_: Candidate) -> Outcome:
        clock.now += 1.0
        await asyncio.sleep(30.0)
        return Outcome.OK

    error = await told(scene, **wants(slow, deadline=clock.now + 0.01))
    assert (error.status, scene.asked("b")) == (504, 0)


async def test_a_voice_that_is_in_nobodys_library_is_the_backends_to_refuse(clock: Clock) -> None:
    scene = speakers(clock)
    scene.script("a", UNKNOWN)
    caller, _ = await scene.serve(capability=Capability.SPEECH)
    assert (caller.status, b"no such voice" in caller.body) == (404, True)
