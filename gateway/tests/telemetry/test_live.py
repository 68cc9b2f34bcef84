"""Metrics that are looked up at the scrape, from a real fleet and route table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from synapse_gateway.backends.base import DiscoveredModel, Probe
from synapse_gateway.config.settings import Backend, Breaker, Model, Route, Settings, Target
from synapse_gateway.routing.fleet import BackendState, Fleet
from synapse_gateway.routing.outcome import Outcome
from synapse_gateway.routing.table import RouteTable
from synapse_gateway.telemetry.live import FleetState, LiveUploads
from synapse_gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from synapse_gateway.backends.base import Adapter, Capability, Http, Refusal


class Silent:
    """An adapter that nobody asks."""

    capabilities: frozenset[Capability] = frozenset()

    async def probe(self, http: Http, health: str | None) -> Probe:
        raise NotImplementedError

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        raise NotImplementedError

    def upstream_path(self, path: str) -> str:
        raise NotImplementedError


class Gateway:
    """A fleet of two backends, its table, and the metrics that watch them."""

    def __init__(self) -> None:
        gpu, cpu = Backend(url="http://vllm:8000"), Backend(url="http://ollama:11434")
        self.settings = Settings(
            backends={"vllm": gpu, "ollama": cpu},
            models={
                "llama3.1": Model(
                    targets=(
                        Target(backend="vllm", model="meta/Llama-3.1-8B"),
                        Target(backend="ollama", model="llama3.1:8b", order=2),
                    )
                ),
                "llama-again": Model(targets=(Target(backend="vllm", model="meta/Llama-3.1-8B"),)),
            },
            routes={"/v1/extra/*": Route(backend="ollama")},
        )
        adapter: Adapter = Silent()
        self.fleet = Fleet()
        self.fleet.adopt(
            {
                name: BackendState(name, config, adapter)
                for name, config in self.settings.backends.items()
            }
        )
        self.table = RouteTable(self.settings, self.fleet)
        self.waiting: dict[str, int] = {}
        self.denied = 0
        self.metrics = Metrics()
        self.metrics.watch(
            FleetState(
                self.fleet,
                lambda: self.table,
                self.waiting.items,
                lambda: self.denied,
                lambda: LiveUploads(count=2, reserved=5_000, refused=1),
            )
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.all(name).get(frozenset(labels.items()))

    def all(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {
            frozenset(sample.labels.items()): sample.value
            for family in text_string_to_metric_families(self.metrics.render()[0].decode())
            for sample in family.samples
            if sample.name == name
        }


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_each_target_is_there_once_under_the_first_name_that_has_it(gateway: Gateway) -> None:
    assert gateway.all("synapse_breaker_state") == {
        frozenset({("backend", "vllm"), ("model", "llama3.1")}): 0,
        frozenset({("backend", "ollama"), ("model", "llama3.1")}): 0,
        frozenset({("backend", "ollama"), ("model", "unknown")}): 0,
    }


def test_requests_under_way_and_an_open_breaker_are_seen(gateway: Gateway) -> None:
    target = gateway.fleet.target(gateway.fleet.backends["vllm"], "meta/Llama-3.1-8B", Breaker())
    target.start()
    pair = {"backend": "vllm", "model": "llama3.1"}
    assert gateway.value("synapse_in_flight", **pair) == 1
    target.end(Outcome.REFUSED, 0.0)
    for _ in range(4):
        target.start()
        target.end(Outcome.REFUSED, 0.0)
    assert gateway.value("synapse_in_flight", **pair) == 0
    assert gateway.value("synapse_breaker_state", **pair) == 2
    target.start()
    assert gateway.value("synapse_breaker_state", **pair) == 1


def test_a_probe_is_seen_under_the_names_of_the_table(gateway: Gateway) -> None:
    assert gateway.all("synapse_backend_up") == {}
    models = (
        DiscoveredModel(id="llama3.1:8b", state="warm", size=8_000, size_vram=3_000),
        DiscoveredModel(id="mystery:1b", state="cold"),
    )
    gateway.fleet.report("ollama", Probe(up=True, status=200, waiting=4, models=models))
    gateway.fleet.report("vllm", Probe(up=False))
    assert gateway.value("synapse_backend_up", backend="ollama") == 1
    assert gateway.value("synapse_backend_up", backend="vllm") == 0
    assert gateway.all("synapse_backend_waiting") == {frozenset({("backend", "ollama")}): 4}
    known = {"backend": "ollama", "model": "llama3.1"}
    states = {
        state: gateway.value("synapse_model_state", state=state, **known)
        for state in ("hot", "warm", "cold")
    }
    assert states == {"hot": 0, "warm": 1, "cold": 0}
    assert gateway.value("synapse_backend_model_bytes", **known) == 8_000
    assert gateway.value("synapse_backend_model_vram_bytes", **known) == 3_000
    other = {"backend": "ollama", "model": "mystery:1b"}
    assert gateway.value("synapse_model_state", state="cold", **other) == 1
    assert gateway.value("synapse_backend_model_bytes", **other) is None


def test_queues_and_the_retry_budget_are_seen(gateway: Gateway) -> None:
    gateway.waiting["llama3.1"] = 7
    gateway.denied = 3
    assert gateway.value("synapse_queue_length", model="llama3.1") == 7
    assert gateway.value("synapse_retry_budget_exhausted_total") == 3


def test_what_uploads_take_is_seen(gateway: Gateway) -> None:
    assert gateway.value("synapse_uploads") == 2
    assert gateway.value("synapse_uploads_reserved_bytes") == 5_000
    assert gateway.value("synapse_uploads_refused_total") == 1


def test_a_backend_that_a_reload_removes_is_gone_at_the_next_scrape(gateway: Gateway) -> None:
    gateway.fleet.report("ollama", Probe(up=True))
    gateway.settings = Settings(
        backends={"vllm": gateway.settings.backends["vllm"]},
        models={"llama3.1": Model(targets=(Target(backend="vllm"),))},
    )
    gateway.fleet.adopt({"vllm": gateway.fleet.backends["vllm"]})
    gateway.table = RouteTable(gateway.settings, gateway.fleet)
    assert b"ollama" not in gateway.metrics.render()[0]
    assert gateway.all("synapse_breaker_state") == {
        frozenset({("backend", "vllm"), ("model", "llama3.1")}): 0
    }
