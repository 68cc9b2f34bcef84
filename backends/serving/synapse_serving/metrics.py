"""Prometheus metrics of a server, in a registry of its own.

Label values come from the server's own routes and from status codes, never from a caller, so the
number of series is bounded.
"""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

_DURATIONS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics that every server has; a server adds its own to ``registry``.

    Attributes:
        requests: Requests answered, by ``route`` and ``status``.
        duration: Seconds from the head of a request to the end of its answer, by ``route``.
        in_flight: POST requests being answered or waiting; asking for this page is not one.
        queued: Requests waiting for a slot.
        rejected: Requests refused because everything was full.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "synapse_backend_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "synapse_backend_request_duration_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "synapse_backend_requests_in_flight",
            "Requests being answered or waiting for a slot.",
            registry=self.registry,
        )
        self.queued = Gauge(
            "synapse_backend_requests_queued",
            "Requests waiting for a slot.",
            registry=self.registry,
        )
        self.rejected = Counter(
            "synapse_backend_requests_rejected",
            "Requests refused because every slot and the queue were full.",
            registry=self.registry,
        )

    def page(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self.registry)
