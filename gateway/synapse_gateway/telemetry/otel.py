"""OpenTelemetry traces and metrics of finished requests, in the GenAI semantic conventions.

The conventions are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/ as of version 1.37.
A request is one SERVER span, a child of the caller's, and one CLIENT span an attempt below it.
`server.address` is a backend's host as the conventions ask: it goes to the operator's collector,
and never to a caller. Prompts and answers are not exported.

`error.type` of a CLIENT span is a value of `routing.outcome.Outcome`; of a SERVER span why the
stream was cut, else the `code` of the error object, else the status.
"""

from __future__ import annotations

import random
import re
import threading
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from synapse_gateway import __version__
from synapse_gateway.config.settings import BackendType

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram

    from synapse_gateway.config.settings import Settings
    from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord
    from synapse_gateway.telemetry.tracing import Endpoints

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"

LAST_EXPORT = 5.0
"""Seconds that the end waits for a collector."""

OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/api/chat": "chat",
    "/v1/completions": "text_completion",
    "/api/generate": "text_completion",
    "/v1/embeddings": "embeddings",
    "/api/embed": "embeddings",
    "/api/embeddings": "embeddings",
    # The conventions have no names for these yet, and allow others.
    "/v1/rerank": "rerank",
    "/v1/audio/speech": "speech",
    "/v1/audio/transcriptions": "transcription",
    "/v1/audio/translations": "translation",
}
"""`gen_ai.operation.name` by route; other routes have no GenAI attributes."""

# The boundaries that the conventions ask for.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
_PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4.0**power for power in range(14))

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values; a later version may go on.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_NO_ERROR = frozenset(("ok", "caller_left", "stopped"))

Attributes = dict[str, str | int | float | bool]


class _Backend(NamedTuple):
    """What spans say of a backend."""

    provider: str
    host: str
    port: int


class OpenTelemetry:
    """Exports finished requests; what goes wrong with it is logged by the SDK, and no more."""

    def __init__(self, endpoints: Endpoints, instance: str) -> None:
        """Start exporting.

        Args:
            endpoints: Where to.
            instance: Name of this replica.
        """
        resource = Resource.create(
            {"service.version": __version__, "service.instance.id": instance}
        )
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "synapse-gateway"}))
        self._resource = resource
        self._scope = InstrumentationScope("synapse_gateway", __version__, SCHEMA_URL)
        # Reads OTEL_TRACES_SAMPLER; its spans are not used, because they take ids of their own.
        self._sampler = TracerProvider(resource=resource, shutdown_on_exit=False).sampler
        self._random = random.Random()  # noqa: S311 - ids, not secrets
        self._backends: dict[str, _Backend] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._spans: BatchSpanProcessor | None = None
        if endpoints.traces is not None:
            self._spans = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoints.traces))
        self._meters: MeterProvider | None = None
        if endpoints.metrics is not None:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoints.metrics))
            self._meters = MeterProvider([reader], resource, shutdown_on_exit=False)
            self._define(self._meters)

    def _define(self, meters: MeterProvider) -> None:
        meter = meters.get_meter("synapse_gateway", __version__, SCHEMA_URL)

        def histogram(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Histogram:
            return meter.create_histogram(
                name, unit, text, explicit_bucket_boundaries_advisory=bounds
            )

        self._operation = histogram(
            "gen_ai.client.operation.duration", "s", "Duration of an attempt.", _SECONDS
        )
        self._usage = histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of prompt and answer.", _TOKENS
        )
        self._request = histogram(
            "gen_ai.server.request.duration", "s", "Duration of a request.", _SECONDS
        )
        self._first_token = histogram(
            "gen_ai.server.time_to_first_token", "s", "Time to the first token.", _FIRST_TOKEN
        )
        self._per_token = histogram(
            "gen_ai.server.time_per_output_token", "s", "Time per token after it.", _PER_TOKEN
        )

    def configured(self, settings: Settings) -> None:
        """Take note of the backends, and of the models' names there."""
        backends = {}
        for name, backend in settings.backends.items():
            url = urlsplit(backend.url)
            port = url.port or (443 if url.scheme == "https" else 80)
            provider = "openai" if backend.type is BackendType.OPENAI_COMPATIBLE else backend.type
            backends[name] = _Backend(str(provider), url.hostname or "", port)
        self._backends = backends
        self._names = {
            (target.backend, name): target.model or name
            for name, model in settings.models.items()
            for target in model.targets
        }

    def outgoing_traceparent(self, record: RequestRecord, attempt: AttemptRecord) -> bytes:
        """Return the `traceparent` of an attempt, and allot the ids of its span."""
        if not record.trace_id:
            self._begin(record)
        attempt.span_id = self._new_span_id()
        return b"00-%032x-%016x-%02x" % (record.trace_id, attempt.span_id, record.sampled)

    def finished(self, record: RequestRecord) -> None:
        """Export the spans and the measurements of a request."""
        if not record.trace_id:
            self._begin(record)
        if self._spans is not None and record.sampled:
            self._export(self._spans, record)
        if self._meters is not None and record.route in OPERATIONS:
            self._measure(record)

    def close(self) -> None:
        """Send what is held, and stop; a collector that does not answer is not waited for long."""
        spans, self._spans = self._spans, None
        meters, self._meters = self._meters, None
        # the SDK's own bounds add up to a minute, which is more than a pod has to end in
        ending = [
            threading.Thread(target=exporter.shutdown, daemon=True)
            for exporter in (spans, meters)
            if exporter is not None
        ]
        for thread in ending:
            thread.start()
        until = monotonic() + LAST_EXPORT
        for thread in ending:
            thread.join(max(0.0, until - monotonic()))

    def _begin(self, record: RequestRecord) -> None:
        """Allot the ids of a request, below the caller's span if he named one."""
        parent = None
        match = _TRACEPARENT.fullmatch(record.traceparent)
        if match is not None:
            trace_id, parent_id = int(match[1], 16), int(match[2], 16)
            if trace_id and parent_id:
                record.trace_id, record.parent_id = trace_id, parent_id
                flags = TraceFlags(int(match[3], 16))
                context = SpanContext(trace_id, parent_id, is_remote=True, trace_flags=flags)
                parent = set_span_in_context(NonRecordingSpan(context))
        if not record.trace_id:
            record.trace_id = self._random.getrandbits(128) or 1
        record.span_id = self._new_span_id()
        name = f"{record.method} {record.route}"
        decision = self._sampler.should_sample(parent, record.trace_id, name, SpanKind.SERVER)
        record.sampled = decision.decision is Decision.RECORD_AND_SAMPLE

    def _new_span_id(self) -> int:
        return self._random.getrandbits(64) or 1

    def _export(self, spans: BatchSpanProcessor, record: RequestRecord) -> None:
        own = SpanContext(record.trace_id, record.span_id, False, _SAMPLED)
        operation = OPERATIONS.get(record.route)
        # Children first, so that a collector that reads in order never waits for a parent's end.
        for number, attempt in enumerate(record.attempts, start=1):
            last = number == len(record.attempts)
            attributes = self._attempt_attributes(record, attempt, operation, last=last)
            attributes["synapse.attempt.number"] = number
            named = f"{operation} {attempt.model}" if operation else record.method
            spans.on_end(
                self._span(
                    named if attempt.model else (operation or record.method),
                    SpanContext(
                        record.trace_id,
                        attempt.span_id or self._new_span_id(),
                        is_remote=False,
                        trace_flags=_SAMPLED,
                    ),
                    own,
                    SpanKind.CLIENT,
                    attributes,
                    (_nanoseconds(record, attempt.started), _nanoseconds(record, attempt.ended)),
                )
            )
        parent = None
        if record.parent_id:
            parent = SpanContext(record.trace_id, record.parent_id, is_remote=True)
        spans.on_end(
            self._span(
                f"{record.method} {record.route}",
                own,
                parent,
                SpanKind.SERVER,
                _request_attributes(record),
                (_nanoseconds(record, record.started), _nanoseconds(record, record.ended)),
            )
        )

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        times: tuple[int, int],
    ) -> ReadableSpan:
        failed = "error.type" in attributes
        return ReadableSpan(
            name,
            context=context,
            parent=parent,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
            start_time=times[0],
            end_time=max(times),
            instrumentation_scope=self._scope,
        )

    def _attempt_attributes(
        self, record: RequestRecord, attempt: AttemptRecord, operation: str | None, *, last: bool
    ) -> Attributes:
        attributes = self._common(attempt, operation)
        attributes["synapse.backend"] = attempt.backend
        attributes["synapse.target.order"] = attempt.order
        attributes["http.request.method"] = record.method
        if attempt.status:
            attributes["http.response.status_code"] = attempt.status
        if attempt.outcome not in _NO_ERROR:
            attributes["error.type"] = attempt.outcome or "_OTHER"
        elif operation is not None and attempt.outcome == "ok":
            attributes["gen_ai.response.model"] = self._name_there(attempt)
        if operation is not None and last:
            if record.tokens_in:
                attributes["gen_ai.usage.input_tokens"] = record.tokens_in
            if record.tokens_out:
                attributes["gen_ai.usage.output_tokens"] = record.tokens_out
            if operation == "speech":
                attributes["gen_ai.output.type"] = "speech"
        return attributes

    def _common(self, attempt: AttemptRecord, operation: str | None) -> Attributes:
        """Return the attributes that spans and measurements of an attempt share."""
        attributes: Attributes = {}
        backend = self._backends.get(attempt.backend)
        if operation is not None:
            attributes["gen_ai.operation.name"] = operation
            attributes["gen_ai.provider.name"] = backend.provider if backend else attempt.backend
            if attempt.model:
                attributes["gen_ai.request.model"] = attempt.model
        if backend is not None:
            attributes["server.address"] = backend.host
            attributes["server.port"] = backend.port
        return attributes

    def _name_there(self, attempt: AttemptRecord) -> str:
        """Return the backend's name for a model."""
        return self._names.get((attempt.backend, attempt.model), attempt.model)

    def _measure(self, record: RequestRecord) -> None:
        operation = OPERATIONS[record.route]
        for attempt in record.attempts:
            attributes = self._common(attempt, operation)
            if attempt.outcome not in _NO_ERROR:
                attributes["error.type"] = attempt.outcome or "_OTHER"
            self._operation.record(max(0.0, attempt.ended - attempt.started), attributes)
        if not record.attempts:
            return
        attributes = self._common(record.attempts[-1], operation)
        duration = record.ended - record.started
        failure = _failure(record)
        if failure:
            self._request.record(duration, {**attributes, "error.type": failure})
            return
        self._request.record(duration, attributes)
        if record.tokens_in:
            self._usage.record(record.tokens_in, {**attributes, "gen_ai.token.type": "input"})
        if record.tokens_out:
            self._usage.record(record.tokens_out, {**attributes, "gen_ai.token.type": "output"})
        if record.stream and record.first_content:
            self._first_token.record(record.first_content - record.started, attributes)
            if record.tokens_out > 1 and not record.disconnected:
                after = record.ended - record.first_content
                self._per_token.record(after / (record.tokens_out - 1), attributes)


def _request_attributes(record: RequestRecord) -> Attributes:
    attributes: Attributes = {
        "http.request.method": record.method,
        "http.route": record.route,
        "url.path": record.route,
        "url.scheme": "http",
        "synapse.request_id": record.id,
        "synapse.attempts": len(record.attempts),
        "synapse.queued": record.queued,
        "synapse.overhead": record.overhead,
    }
    for name, value in (
        ("http.response.status_code", record.code),
        ("client.address", record.client),
        ("gen_ai.request.model", record.model),
        ("synapse.caller", record.caller),
        ("synapse.fallback", record.fallback),
        ("synapse.auto_rule", record.auto_rule),
        ("error.type", _failure(record)),
    ):
        if value:
            attributes[name] = value
    return attributes


def _failure(record: RequestRecord) -> str:
    """Return what went wrong, by the conventions' rule that a 4xx is no error of a server."""
    if record.cut:
        return record.cut
    if record.status >= 500:
        return record.error or str(record.status)
    return ""


def _nanoseconds(record: RequestRecord, at: float) -> int:
    """Return a monotonic time of the request as nanoseconds since the epoch."""
    # Added as integers: a float holds no nanoseconds of this century.
    return int(record.started_unix * 1e9) + round((at - record.started) * 1e9)
