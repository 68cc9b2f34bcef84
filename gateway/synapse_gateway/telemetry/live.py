"""Metrics that are looked up when they are scraped: what is so now, not what has happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from synapse_gateway.backends.base import DiscoveredModel
    from synapse_gateway.routing.fleet import BackendState, Fleet, TargetState
    from synapse_gateway.routing.table import RouteTable

UNKNOWN = "unknown"
"""Label of a model that is in no route table."""

MODEL_STATES = ("hot", "warm", "cold")


class LiveTarget(msgspec.Struct, frozen=True):
    """A model at a backend."""

    backend: str
    model: str
    breaker: int
    """0 closed, 1 half-open, 2 open."""
    in_flight: int


class LiveBackend(msgspec.Struct, frozen=True):
    """A backend, as the last probe and the traffic since saw it."""

    name: str
    up: bool | None
    """None: not looked at yet."""
    waiting: int | None
    """Requests in its own queue; None: it does not tell."""
    models: Mapping[str, DiscoveredModel]
    """By name in the route table, or at the backend where it is in no table."""


class LiveUploads(msgspec.Struct, frozen=True):
    """What uploads take that are being received or served."""

    count: int
    reserved: int
    """Bytes set aside for them, in memory and on disk."""
    refused: int
    """Uploads that found no room, since the start."""


class LiveState(Protocol):
    """Where the metrics look. Asked from another thread than the one that changes it."""

    def targets(self) -> Iterable[LiveTarget]:
        """Return all targets, each once."""
        ...

    def backends(self) -> Iterable[LiveBackend]:
        """Return all backends."""
        ...

    def queue_lengths(self) -> Iterable[tuple[str, int]]:
        """Return how many requests wait for each model."""
        ...

    def retries_denied(self) -> int:
        """Return how many retries the budget has refused since the start."""
        ...

    def uploads(self) -> LiveUploads:
        """Return what uploads take."""
        ...


class FleetState:
    """The live state of a fleet, under the names of its route table."""

    def __init__(
        self,
        fleet: Fleet,
        table: Callable[[], RouteTable],
        queue_lengths: Callable[[], Iterable[tuple[str, int]]],
        retries_denied: Callable[[], int],
        uploads: Callable[[], LiveUploads],
    ) -> None:
        """Build one.

        Args:
            fleet: Backends and targets.
            table: Returns the route table of the moment.
            queue_lengths: Returns model names and how many requests wait for each; a list, or the
                items of a dict.
            retries_denied: Returns how many retries the budget has refused.
            uploads: Returns what uploads take.
        """
        self._fleet = fleet
        self._table = table
        self._queue_lengths = queue_lengths
        self._retries_denied = retries_denied
        self._uploads = uploads

    def targets(self) -> Iterable[LiveTarget]:
        """Return all targets of the fleet.

        Those that no route names are left out: they await nothing but the next reload.
        """
        for (backend, _), (name, target) in self._named().items():
            yield LiveTarget(backend, name, target.breaker.state.value, target.in_flight)

    def backends(self) -> Iterable[LiveBackend]:
        """Return all backends of the fleet."""
        named = self._named()
        for state in list(self._fleet.backends.values()):
            yield LiveBackend(state.name, state.up, state.waiting, _models(state, named))

    def queue_lengths(self) -> Iterable[tuple[str, int]]:
        """Return how many requests wait for each model."""
        return list(self._queue_lengths())

    def retries_denied(self) -> int:
        """Return how many retries the budget has refused since the start."""
        return self._retries_denied()

    def uploads(self) -> LiveUploads:
        """Return what uploads take."""
        return self._uploads()

    def _named(self) -> dict[tuple[str, str], tuple[str, TargetState]]:
        """Return the targets by backend and model there, each with the first name that has it."""
        named: dict[tuple[str, str], tuple[str, TargetState]] = {}
        for route in list(self._table().models.values()):
            for target in route.states:
                named.setdefault((target.backend.name, target.model), (route.name, target))
        for target in list(self._fleet.targets()):
            if not target.model:
                # Serves paths for models of no table.
                named.setdefault((target.backend.name, ""), (UNKNOWN, target))
        return named


def _models(
    state: BackendState, named: Mapping[tuple[str, str], tuple[str, TargetState]]
) -> dict[str, DiscoveredModel]:
    models: dict[str, DiscoveredModel] = {}
    for there, model in list(state.models.items()):
        target = named.get((state.name, there))
        models.setdefault(there if target is None else target[0], model)
    return models


def collect(live: LiveState) -> Iterator[Metric]:
    """Look everything up, and return the metrics for the client library."""
    breaker = GaugeMetricFamily(
        "synapse_breaker_state", "0 closed, 1 half-open, 2 open.", labels=("backend", "model")
    )
    in_flight = GaugeMetricFamily(
        "synapse_in_flight",
        "Requests of this replica under way at a target.",
        labels=("backend", "model"),
    )
    for target in live.targets():
        breaker.add_metric((target.backend, target.model), target.breaker)
        in_flight.add_metric((target.backend, target.model), target.in_flight)
    yield from (breaker, in_flight)
    yield from _backends(live.backends())
    queues = GaugeMetricFamily(
        "synapse_queue_length", "Requests that wait for a target.", labels=("model",)
    )
    for model, length in live.queue_lengths():
        queues.add_metric((model,), length)
    yield queues
    yield CounterMetricFamily(
        "synapse_retry_budget_exhausted",
        "Retries that the retry budget refused.",
        value=live.retries_denied(),
    )
    uploads = live.uploads()
    yield GaugeMetricFamily(
        "synapse_uploads", "Uploads that are being received or served.", value=uploads.count
    )
    yield GaugeMetricFamily(
        "synapse_uploads_reserved_bytes",
        "Bytes set aside for them, in memory and on disk.",
        value=uploads.reserved,
        unit="bytes",
    )
    yield CounterMetricFamily(
        "synapse_uploads_refused", "Uploads that found no room.", value=uploads.refused
    )


def _backends(backends: Iterable[LiveBackend]) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        "synapse_backend_up", "Whether the backend answered its last probe.", labels=("backend",)
    )
    waiting = GaugeMetricFamily(
        "synapse_backend_waiting",
        "Requests in the backend's own queue, where it tells.",
        labels=("backend",),
    )
    state = GaugeMetricFamily(
        "synapse_model_state",
        "1 for the state a model is in: hot (loaded), warm (asleep in memory), cold (not loaded).",
        labels=("backend", "model", "state"),
    )
    size = GaugeMetricFamily(
        "synapse_backend_model_bytes",
        "Memory of a loaded model.",
        labels=("backend", "model"),
        unit="bytes",
    )
    vram = GaugeMetricFamily(
        "synapse_backend_model_vram_bytes",
        "Memory of a loaded model that is on the GPU.",
        labels=("backend", "model"),
        unit="bytes",
    )
    for backend in backends:
        if backend.up is not None:
            up.add_metric((backend.name,), backend.up)
        if backend.waiting is not None:
            waiting.add_metric((backend.name,), backend.waiting)
        for name, model in backend.models.items():
            for known in MODEL_STATES:
                state.add_metric((backend.name, name, known), model.state == known)
            if model.size is not None:
                size.add_metric((backend.name, name), model.size)
            if model.size_vram is not None:
                vram.add_metric((backend.name, name), model.size_vram)
    yield from (up, waiting, state, size, vram)
