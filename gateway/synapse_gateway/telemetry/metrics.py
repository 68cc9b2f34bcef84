"""The Prometheus metrics of the gateway.

The number of series is bounded whatever callers send: `route` is a path template, `model` a name of
the route table (else `unknown`), `backend` a configured one (`none` if no backend was asked), and
names of reasons are few (64 at most are told apart; then `other`). What a reload removes from the
configuration goes from the metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import choose_encoder

from synapse_gateway import __version__
from synapse_gateway.telemetry import live as live_metrics
from synapse_gateway.telemetry.live import UNKNOWN
from synapse_gateway.telemetry.series import Cell, Counters, HistogramCell, Histograms

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from prometheus_client.core import Metric

    from synapse_gateway.telemetry.live import LiveState
    from synapse_gateway.telemetry.record import RequestRecord

NONE = "none"
"""Label of the backend where none was asked."""

DURATION = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0),
)
FIRST_TOKEN = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 20.0, 30.0, 60.0, 120.0),
)
PER_TOKEN = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5),
)
OVERHEAD = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0025, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 1.0),
)
QUEUE_WAIT = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_MAX_REASONS = 64


class _RequestCells(NamedTuple):
    """Where requests of one route, model, backend and code are counted."""

    requests: Cell
    duration: HistogramCell
    overhead: HistogramCell
    queue_wait: HistogramCell
    first_token: HistogramCell
    per_token: HistogramCell
    tokens_in: Cell
    tokens_out: Cell


class _AttemptCells(NamedTuple):
    """Where attempts of one backend, model and outcome are counted."""

    attempts: Cell
    alert: Cell | None
    """Counts what somebody must look at: misrouting, or credentials that the backend refuses."""


class Metrics:
    """All metrics of a process, in a registry of their own."""

    def __init__(self, live: LiveState | None = None) -> None:
        """Build them.

        Args:
            live: Where the state of the moment is looked up; may be set later by `watch`.
        """
        self.registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._live = live
        self._models: frozenset[str] | None = None
        self._backends: frozenset[str] | None = None
        self._reasons: set[str] = set()
        self._by_request: dict[tuple[str, str, str, int], _RequestCells] = {}
        self._by_attempt: dict[tuple[str, str, str], _AttemptCells] = {}
        self._redis_up: bool | None = None
        self._config_hash = ""
        self._config_at = 0.0
        self._define()
        self.registry.register(self)

    def _define(self) -> None:
        pair = ("backend", "model")
        self._requests = Counters(
            "synapse_requests",
            "Requests by status; 499 where the caller left before an answer began.",
            ("route", "model", "backend", "code"),
        )
        self._others = Counters(
            "synapse_other_requests",
            "Requests that ask nothing of a model: lists, descriptions, unknown paths (`other`).",
            ("route", "code"),
        )
        self._duration = Histograms(
            "synapse_request_duration_seconds",
            "From the last byte of the request to the last of the answer.",
            ("route", "model", "backend"),
            DURATION,
        )
        self._first_token = Histograms(
            "synapse_time_to_first_token_seconds",
            "From the last byte of the request to the first content of a stream.",
            ("model", "backend"),
            FIRST_TOKEN,
        )
        self._per_token = Histograms(
            "synapse_time_per_output_token_seconds",
            "Between tokens of a stream that ended well, after the first.",
            ("model", "backend"),
            PER_TOKEN,
        )
        self._overhead = Histograms(
            "synapse_gateway_overhead_seconds",
            "Spent in the gateway itself, for requests that reached a backend; queue apart.",
            ("route",),
            OVERHEAD,
        )
        self._queue_wait = Histograms(
            "synapse_queue_wait_seconds",
            "Time in the queue, for requests of known models.",
            ("model",),
            QUEUE_WAIT,
        )
        self._tokens = Counters(
            "synapse_tokens",
            "Tokens of prompts (in) and of answers (out).",
            ("model", "backend", "direction"),
            sparse=True,
        )
        self._attempts = Counters(
            "synapse_attempts", "Attempts at targets, by how they ended.", (*pair, "outcome")
        )
        self._fallbacks = Counters(
            "synapse_fallbacks",
            "Requests that another than the first choice answered, and why.",
            ("model", "backend", "reason"),
        )
        self._cut = Counters(
            "synapse_cut_streams",
            "Streams that ended early with an error in band.",
            (*pair, "reason"),
        )
        self._misrouted = Counters(
            "synapse_misrouted", "Attempts where the backend did not know the model.", pair
        )
        self._auth_failures = Counters(
            "synapse_backend_auth_failures",
            "Attempts where the backend refused the gateway's own credentials.",
            ("backend",),
        )
        self._rate_limited = Counters(
            "synapse_rate_limited", "Requests over a limit of their key.", ("key", "limit")
        )
        self._disconnects = Counters(
            "synapse_client_disconnects", "Requests whose caller left before the end.", ("route",)
        )
        self._reloads = Counters(
            "synapse_config_reloads", "Configurations taken over or refused.", ("result",)
        )
        for result in ("ok", "refused"):
            self._reloads.at(result)

    def watch(self, live: LiveState) -> None:
        """Set where the state of the moment is looked up."""
        self._live = live

    def configured(
        self,
        backends: Iterable[str],
        targets: Iterable[tuple[str, str]],
        keys: Container[str] = (),
    ) -> None:
        """Take note of a new route table, and forget what it has no more.

        Args:
            backends: Names of all backends.
            targets: Backend and model, the model by its name in the table.
            keys: Names of all keys.
        """
        pairs = list(targets)
        self._backends = frozenset((*backends, NONE))
        self._models = frozenset((*(model for _, model in pairs), UNKNOWN))
        kept, known = self._models, self._backends
        for series in self._all_series():
            series.keep(
                lambda labels: (
                    labels.get("model", UNKNOWN) in kept
                    and labels.get("backend", NONE) in known
                    and ("key" not in labels or labels["key"] in keys)
                )
            )
        self._by_request.clear()
        self._by_attempt.clear()
        # A series that begins at 1 hides its first event from rate(): these are what alerts watch.
        for backend, model in pairs:
            self._misrouted.at(backend, model)
        for backend in known - {NONE}:
            self._auth_failures.at(backend)

    def request_finished(self, record: RequestRecord) -> None:
        """Count a request that has ended, with its attempts."""
        attempts = record.attempts
        model = record.model or UNKNOWN
        backend = attempts[-1].backend if attempts else NONE
        key = (record.route, model, backend, record.code)
        cells = self._by_request.get(key) or self._request_cells(key)
        cells.requests.value += 1
        cells.duration.observe(record.ended - record.started)
        if model is not UNKNOWN:
            cells.queue_wait.observe(record.queued)
        if attempts:
            cells.overhead.observe(record.overhead)
            self._count_answer(record, cells)
            for attempt in attempts:
                place = (attempt.backend, attempt.model, attempt.outcome)
                counted = self._by_attempt.get(place) or self._attempt_cells(place)
                counted.attempts.value += 1
                if counted.alert is not None:
                    counted.alert.value += 1
        if record.fallback or record.cut or record.disconnected:
            self._count_exceptions(record, model, backend)

    def _count_answer(self, record: RequestRecord, cells: _RequestCells) -> None:
        tokens = record.tokens_out
        cells.tokens_in.value += record.tokens_in
        cells.tokens_out.value += tokens
        first = record.first_content
        if record.stream and first:
            cells.first_token.observe(first - record.started)
            if tokens > 1 and not record.cut and not record.disconnected:
                cells.per_token.observe((record.ended - first) / (tokens - 1))

    def _count_exceptions(self, record: RequestRecord, model: str, backend: str) -> None:
        model, backend = self._known(model, backend)
        if record.fallback:
            self._fallbacks.at(model, backend, self._reason(record.fallback)).value += 1
        if record.cut:
            self._cut.at(backend, model, self._reason(record.cut)).value += 1
        if record.disconnected:
            self._disconnects.at(record.route).value += 1

    def other_finished(self, record: RequestRecord) -> None:
        """Count a request that asked nothing of a model."""
        self._others.at(record.route, str(record.code)).value += 1

    def rate_limited(self, key: str, limit: str) -> None:
        """Count a request over a limit of its key."""
        self._rate_limited.at(key, limit).value += 1

    def redis_up(self, up: bool) -> None:
        """Note whether Redis answers."""
        self._redis_up = up

    def config_loaded(self, config_hash: str, at: float) -> None:
        """Note that a configuration was taken over.

        Args:
            config_hash: Its hash.
            at: Wall-clock seconds since the epoch.
        """
        self._config_hash = config_hash
        self._config_at = at
        self._reloads.at("ok").value += 1

    def config_refused(self) -> None:
        """Note that a configuration was refused, and the old one stays."""
        self._reloads.at("refused").value += 1

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the exposition and its content type; may be called in another thread.

        Args:
            accept: The Accept header; OpenMetrics where it asks for it, else the text format.
        """
        if not accept:
            return generate_latest(self.registry), "text/plain; version=0.0.4; charset=utf-8"
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics but the process' own, for the client library."""
        for series in self._all_series():
            yield from series.collect()
        yield InfoMetricFamily(
            "synapse_build", "The version that runs.", value={"version": __version__}
        )
        if self._config_hash:
            yield InfoMetricFamily(
                "synapse_config", "The configuration that runs.", value={"hash": self._config_hash}
            )
            yield GaugeMetricFamily(
                "synapse_config_last_reload_timestamp_seconds",
                "When it was taken over.",
                value=self._config_at,
            )
        if self._redis_up is not None:
            yield GaugeMetricFamily(
                "synapse_redis_up", "Whether Redis answers.", value=float(self._redis_up)
            )
        if self._live is not None:
            yield from live_metrics.collect(self._live)

    def _all_series(self) -> tuple[Counters | Histograms, ...]:
        return (
            self._requests,
            self._others,
            self._duration,
            self._first_token,
            self._per_token,
            self._overhead,
            self._queue_wait,
            self._tokens,
            self._attempts,
            self._fallbacks,
            self._cut,
            self._misrouted,
            self._auth_failures,
            self._rate_limited,
            self._disconnects,
            self._reloads,
        )

    def _request_cells(self, key: tuple[str, str, str, int]) -> _RequestCells:
        route, model, backend, code = key
        known_model, known_backend = self._known(model, backend)
        pair = (known_model, known_backend)
        cells = _RequestCells(
            requests=self._requests.at(route, *pair, str(code)),
            duration=self._duration.at(route, *pair),
            overhead=self._overhead.at(route),
            queue_wait=self._queue_wait.at(known_model),
            first_token=self._first_token.at(*pair),
            per_token=self._per_token.at(*pair),
            tokens_in=self._tokens.at(*pair, "in"),
            tokens_out=self._tokens.at(*pair, "out"),
        )
        if pair == (model, backend):
            self._by_request[key] = cells
        return cells

    def _attempt_cells(self, key: tuple[str, str, str]) -> _AttemptCells:
        backend, model, outcome = key
        known_model, known_backend = self._known(model or UNKNOWN, backend)
        counted = self._reason(outcome)
        alert = None
        if outcome == "misrouted":
            alert = self._misrouted.at(known_backend, known_model)
        elif outcome == "credentials":
            alert = self._auth_failures.at(known_backend)
        cells = _AttemptCells(self._attempts.at(known_backend, known_model, counted), alert)
        if (known_backend, known_model, counted) == (backend, model or UNKNOWN, outcome):
            self._by_attempt[key] = cells
        return cells

    def _known(self, model: str, backend: str) -> tuple[str, str]:
        """Return the labels of a model and a backend that a reload may have removed meanwhile."""
        if self._models is not None and model not in self._models:
            model = UNKNOWN
        if self._backends is not None and backend not in self._backends:
            backend = NONE
        return model, backend

    def _reason(self, text: str) -> str:
        if text not in self._reasons:
            if len(self._reasons) >= _MAX_REASONS:
                return "other"
            self._reasons.add(text)
        return text
