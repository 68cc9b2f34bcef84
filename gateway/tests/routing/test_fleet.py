from __future__ import annotations

import pytest

from synapse_gateway.backends import adapter
from synapse_gateway.backends.base import DiscoveredModel, Probe
from synapse_gateway.config.settings import BackendType, Breaker, Device
from synapse_gateway.routing.breaker import BreakerState
from synapse_gateway.routing.fleet import (
    MAX_COOL_DOWN,
    THROTTLE_BACKOFF,
    BackendState,
    Fleet,
    TargetState,
)
from synapse_gateway.routing.outcome import Outcome
from tests.routing.support import NOW, backend

BREAKER = Breaker(failures=2, cool_down=30.0)


def state(**fields: object) -> BackendState:
    return BackendState("b", backend(**fields), adapter(BackendType.OPENAI_COMPATIBLE))


def target(where: BackendState | None = None) -> TargetState:
    fleet = Fleet()
    where = where or state()
    fleet.adopt({where.name: where})
    return fleet.target(where, "m", BREAKER)


# -- overload


def test_a_backend_that_tells_nothing_is_not_overloaded() -> None:
    assert not state().overloaded("m")


def test_as_many_requests_as_slots_overload_it() -> None:
    there = state(slots=2)
    there.in_flight = 1
    assert not there.overloaded("m")
    there.in_flight = 2
    assert there.overloaded("m")


def test_other_callers_of_the_engine_take_slots_too() -> None:
    there = state()
    there.in_flight = 1
    there.report(Probe(up=True, slots=4, busy=4))
    assert (there.slots, there.others) == (4, 3)
    assert there.overloaded("m")


def test_a_probe_that_saw_fewer_than_are_under_way_counts_no_others() -> None:
    there = state(slots=4)
    there.in_flight = 3
    there.report(Probe(up=True, busy=1))
    assert there.others == 0


def test_configured_slots_win_over_what_the_engine_says() -> None:
    there = state(slots=2)
    there.report(Probe(up=True, slots=8))
    assert there.slots == 2


@pytest.mark.parametrize(("waiting", "overloaded"), [(0, False), (3, False), (4, True)])
def test_a_longer_queue_in_the_engine_than_allowed_overloads_it(
    waiting: int, *, overloaded: bool
) -> None:
    there = state(max_waiting=3)
    there.report(Probe(up=True, waiting=waiting))
    assert there.overloaded("m") is overloaded


@pytest.mark.parametrize(
    ("device", "size_vram", "overloaded"),
    [
        pytest.param(Device.GPU, 99, True, id="partly-on-the-cpu"),
        pytest.param(Device.GPU, 100, False, id="all-on-the-gpu"),
        pytest.param(Device.CPU, 0, False, id="meant-for-the-cpu"),
        pytest.param(None, 0, False, id="device-not-known"),
        pytest.param(Device.GPU, None, False, id="engine-does-not-tell"),
    ],
)
def test_a_model_that_fell_off_the_gpu_overloads_it(
    device: Device | None, size_vram: int | None, *, overloaded: bool
) -> None:
    there = state(device=device)
    model = DiscoveredModel(id="m", size=100, size_vram=size_vram)
    there.report(Probe(up=True, models=(model,)))
    assert there.overloaded("m") is overloaded
    assert not there.overloaded("another")


# -- probes


def test_a_probe_is_taken_over() -> None:
    there = state()
    model = DiscoveredModel(id="m")
    there.report(
        Probe(up=True, status=200, detail="ok", models=(model,), asleep=True, version="1.2")
    )
    assert (there.up, there.status, there.detail, there.asleep) == (True, 200, "ok", True)
    there.report(Probe(up=False, detail="refused"))
    assert (there.up, there.status, there.detail, there.asleep) == (False, 0, "refused", False)
    assert there.version == "1.2"
    assert list(there.models) == ["m"], "a backend that is down keeps its models in the catalogue"


def test_the_fleet_knows_what_is_on_its_way() -> None:
    fleet = Fleet()
    fleet.take_downloads({"b": {}})
    assert fleet.downloads == {"b": {}}


def test_the_fleet_says_whether_a_probe_changed_the_models() -> None:
    fleet = Fleet()
    fleet.adopt({"b": state()})
    with_model = Probe(up=True, models=(DiscoveredModel(id="m"),))
    assert fleet.report("b", with_model)
    assert not fleet.report("b", with_model)
    assert not fleet.report("b", Probe(up=False))
    assert fleet.report("b", Probe(up=True, models=()))
    assert not fleet.report("gone", with_model)


# -- targets


def test_requests_under_way_are_counted_at_target_and_backend() -> None:
    one = target()
    one.start()
    assert (one.in_flight, one.backend.in_flight) == (1, 1)
    one.end(Outcome.OK, NOW)
    assert (one.in_flight, one.backend.in_flight) == (0, 0)


def test_a_success_says_that_the_backend_is_up() -> None:
    one = target()
    one.backend.up = False
    one.start()
    one.end(Outcome.CLIENT_ERROR, NOW)
    assert one.backend.up is False
    one.start()
    one.end(Outcome.OK, NOW)
    assert one.backend.up is True


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(None, THROTTLE_BACKOFF), (0.0, 0.0), (7.0, 7.0), (86400.0, MAX_COOL_DOWN)],
    ids=["not-said", "at-once", "said", "too-long"],
)
def test_a_throttling_target_cools_down_for_the_time_it_asked_for(
    asked: float | None, seconds: float
) -> None:
    one = target()
    one.start()
    one.end(Outcome.THROTTLED, NOW, asked)
    assert one.cooling_until == NOW + seconds


def test_a_retry_after_without_429_cools_nothing_down() -> None:
    one = target()
    one.start()
    one.end(Outcome.SERVER_ERROR, NOW, 60.0)
    assert one.cooling_until == 0.0


def test_the_first_request_after_the_cool_down_is_the_probe() -> None:
    one = target()
    for _ in range(2):
        one.end(Outcome.REFUSED, NOW, probe=one.start())
    assert not one.breaker.allows(NOW)
    assert one.start() is True
    one.end(Outcome.OK, NOW + 30, probe=True)
    assert one.breaker.state is BreakerState.CLOSED


def test_a_target_shows_where_it_is_and_how_it_does() -> None:
    assert repr(target()) == "<b/m closed>"


def test_the_same_target_hashes_alike_in_every_process() -> None:
    assert target().identity == target().identity == 0x8FFBB711FF2678B8


# -- reloads


def test_a_target_survives_as_long_as_its_backend_does() -> None:
    fleet = Fleet()
    there = state()
    fleet.adopt({"b": there})
    before = fleet.target(there, "m", BREAKER)
    fleet.adopt({"b": there})
    after = fleet.target(there, "m", Breaker(failures=9, cool_down=5.0))
    assert after is before
    assert (after.breaker.failures, after.breaker.cool_down) == (9, 5.0)
    assert list(fleet.targets()) == [before]


def test_slots_of_the_configuration_win_and_go_with_it() -> None:
    there = state(slots=3)
    there.configure(backend())
    assert (there.slots, there.config.slots) == (None, None), "until the engine tells"
    there.report(Probe(up=True, slots=5))
    there.configure(backend(probe_interval=9.0))
    assert (there.slots, there.config.probe_interval) == (5, 9.0)
    there.configure(backend(slots=2))
    assert there.slots == 2


def test_another_address_or_kind_is_another_server() -> None:
    there = state()
    assert there.is_at(backend(slots=7))
    assert not there.is_at(backend(url="http://elsewhere"))
    assert not there.is_at(backend(type=BackendType.VLLM))


def test_another_server_begins_anew() -> None:
    fleet = Fleet()
    old, new = state(), state(slots=3)
    fleet.adopt({"b": old})
    before = fleet.target(old, "m", BREAKER)
    assert fleet.target(new, "m", BREAKER) is not before
    fleet.adopt({"b": old})
    assert list(fleet.targets()) == []
