from __future__ import annotations

import pytest

from synapse_gateway.config import effective_timeouts
from synapse_gateway.config.settings import Device, Service, Timeouts


@pytest.mark.parametrize(
    ("service", "overall"),
    [
        (Service.LLM, 300.0),
        (Service.TTS, 120.0),
        (Service.STT, 120.0),
        (Service.SPEAKER, 120.0),
        (Service.AUDIO, 60.0),
        (Service.EMBEDDINGS, 60.0),
        (Service.OTHER, 60.0),
    ],
)
def test_every_service_has_its_overall_deadline(service: Service, overall: float) -> None:
    timeouts = effective_timeouts(service, None)
    assert timeouts.overall == overall
    assert timeouts.between_tokens == 30.0


@pytest.mark.parametrize(
    ("device", "first_token"), [(Device.CPU, 120.0), (Device.GPU, 60.0), (None, 60.0)]
)
def test_a_cpu_has_longer_until_its_first_token(device: Device | None, first_token: float) -> None:
    assert effective_timeouts(Service.LLM, device).first_token == first_token


def test_the_most_specific_override_wins_field_by_field() -> None:
    model = Timeouts(overall=200.0)
    backend = Timeouts(overall=100.0, connect=1.0)
    timeouts = effective_timeouts(Service.LLM, None, model, backend)
    assert (timeouts.overall, timeouts.connect, timeouts.first_token) == (200.0, 1.0, 60.0)


def test_no_phase_may_take_longer_than_the_whole() -> None:
    timeouts = effective_timeouts(Service.LLM, Device.CPU, Timeouts(overall=2.0))
    assert max(timeouts.connect, timeouts.first_token, timeouts.between_tokens) == 2.0


def test_an_answer_that_is_not_streamed_leaves_time_for_another_target() -> None:
    assert effective_timeouts(Service.LLM, None).first_byte == 150.0
    assert effective_timeouts(Service.LLM, None, Timeouts(first_byte=7.0)).first_byte == 7.0
