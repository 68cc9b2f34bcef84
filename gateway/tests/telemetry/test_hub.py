"""A finished request reaches all who account for it, whatever one of them does."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.config.settings import Backend, Settings
from synapse_gateway.telemetry.hub import Telemetry
from synapse_gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord


class Tracer:
    """Remembers what it was told; fails if it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.seen: list[RequestRecord] = []
        self.settings: Settings | None = None

    def outgoing_traceparent(self, record: RequestRecord, attempt: AttemptRecord) -> bytes:
        return b"00-of-its-own"

    def finished(self, record: RequestRecord) -> None:
        self.seen.append(record)
        if self.fails:
            raise RuntimeError("no collector")

    def configured(self, settings: Settings) -> None:
        self.settings = settings


def test_one_that_fails_does_not_hurt_the_others_and_is_told_once(
    records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    metrics, tracer = Metrics(), Tracer(fails=True)
    telemetry = Telemetry(metrics, tracer=tracer)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            telemetry.finished(records.request())
    assert len(tracer.seen) == 3
    assert b'code="200",' in metrics.render()[0] or b'code="200"}' in metrics.render()[0]
    assert len(caplog.records) == 1
    assert "Tracer.finished failed" in caplog.text


def test_those_that_end_together_are_accounted_for_together(records: Any) -> None:
    soon: list[Any] = []
    metrics, tracer = Metrics(), Tracer()
    telemetry = Telemetry(metrics, tracer=tracer, call_soon=soon.append)
    ended = [records.request(id=str(number)) for number in range(3)]
    for record in ended[:2]:
        telemetry.finished(record)
    assert (len(soon), tracer.seen) == (1, [])
    soon.pop()()
    assert tracer.seen == ended[:2]
    telemetry.finished(ended[2])
    soon.pop()()
    assert tracer.seen == ended


def test_a_trace_context_passes_through_where_nothing_is_exported(records: Any) -> None:
    telemetry = Telemetry(Metrics())
    record = records.request(traceparent="00-abc-def-01")
    assert telemetry.outgoing_traceparent(record, records.attempt()) == b"00-abc-def-01"
    assert telemetry.outgoing_traceparent(records.request(), records.attempt()) == b""


def test_the_tracer_gives_its_own_trace_context(records: Any) -> None:
    telemetry = Telemetry(Metrics(), tracer=Tracer())
    record = records.request(traceparent="00-abc-def-01")
    assert telemetry.outgoing_traceparent(record, records.attempt()) == b"00-of-its-own"


@pytest.mark.parametrize("traced", [True, False])
def test_a_new_configuration_reaches_metrics_and_tracer(records: Any, traced: bool) -> None:
    metrics, tracer = Metrics(), Tracer()
    telemetry = Telemetry(metrics, tracer=tracer if traced else None)
    settings = Settings(backends={"vllm": Backend(url="http://vllm:8000")})
    telemetry.configured(settings, [("vllm", "llama3.1")])
    telemetry.finished(records.request(model="gone"))
    assert b'model="unknown",' in metrics.render()[0]
    assert (tracer.settings is settings) is traced
