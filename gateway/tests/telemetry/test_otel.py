"""Traces and metrics as a collector gets them: an HTTP server that decodes OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.config.settings import Backend, BackendType, Model, Settings, Target
from synapse_gateway.telemetry.tracing import start
from tests.telemetry.collector import Collector, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_gateway.telemetry.otel import OpenTelemetry

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

SETTINGS = Settings(
    backends={
        "vllm": Backend(url="http://vllm-inference:8001/v1", type=BackendType.VLLM),
        "cloud": Backend(url="https://models.example/v1"),
        "plain": Backend(url="http://plain"),
    },
    models={
        "llama3.1": Model(
            targets=(
                Target(backend="vllm", model="meta/Llama-3.1-8B"),
                Target(backend="cloud", order=2),
            )
        )
    },
)

_KINDS = {2: "SERVER", 3: "CLIENT"}


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def otel_for(collector: Collector) -> Iterator[Callable[..., OpenTelemetry]]:
    started: list[OpenTelemetry] = []

    def make(**environ: str) -> OpenTelemetry:
        otel = start(environ or {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, "pod-1")
        assert otel is not None
        otel.configured(SETTINGS)
        started.append(otel)
        return otel

    yield make
    for otel in started:
        otel.close()


@pytest.fixture
def otel(otel_for: Callable[..., OpenTelemetry]) -> OpenTelemetry:
    return otel_for()


def export(otel: OpenTelemetry, *finished: Any) -> None:
    for record in finished:
        otel.finished(record)
    otel.close()


def test_a_request_is_a_server_span_below_the_callers_and_attempts_are_client_spans_below_it(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    failed = records.attempt(outcome="refused", status=0, head=0.0, started=1000.25, ended=1000.5)
    good = records.attempt(backend="cloud", order=2)
    record = records.request(
        traceparent=TRACEPARENT, attempts=[failed, good], fallback="refused", auto_rule="code"
    )
    sent = [otel.outgoing_traceparent(record, attempt) for attempt in record.attempts]
    export(otel, record)

    [one, two, server] = collector.spans
    assert [_KINDS[span.kind] for span in (one, two, server)] == ["CLIENT", "CLIENT", "SERVER"]
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert server.parent_span_id.hex() == PARENT
    assert one.parent_span_id == two.parent_span_id == server.span_id
    assert len({span.span_id for span in collector.spans}) == 3
    # What each backend was told is the span that the collector has.
    assert sent == [b"00-%s-%s-01" % (TRACE.encode(), s.span_id.hex().encode()) for s in (one, two)]

    assert server.name == "POST /v1/chat/completions"
    assert one.name == two.name == "chat llama3.1"
    begin = 1_800_000_000 * 10**9
    assert server.start_time_unix_nano == begin
    assert server.end_time_unix_nano == begin + 2_750_000_000
    assert one.start_time_unix_nano == begin + 250_000_000
    assert one.end_time_unix_nano == begin + 500_000_000

    assert plain(server.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "url.scheme": "http",
        "http.response.status_code": 200,
        "client.address": "192.0.2.7",
        "gen_ai.request.model": "llama3.1",
        "synapse.request_id": record.id,
        "synapse.caller": "app",
        "synapse.attempts": 2,
        "synapse.fallback": "refused",
        "synapse.auto_rule": "code",
        "synapse.queued": 0.25,
        "synapse.overhead": 0.0005,
    }
    assert plain(one.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "llama3.1",
        "server.address": "vllm-inference",
        "server.port": 8001,
        "http.request.method": "POST",
        "error.type": "refused",
        "synapse.backend": "vllm",
        "synapse.target.order": 1,
        "synapse.attempt.number": 1,
    }
    assert plain(two.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "llama3.1",
        "gen_ai.response.model": "llama3.1",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.output_tokens": 41,
        "server.address": "models.example",
        "server.port": 443,
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "synapse.backend": "cloud",
        "synapse.target.order": 2,
        "synapse.attempt.number": 2,
    }
    assert (one.status.code, two.status.code, server.status.code) == (2, 0, 0)


def test_the_exporter_says_who_it_is(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(otel, records.request())
    [resource] = collector.traces[0].resource_spans
    said = plain(resource.resource.attributes)
    assert said["service.name"] == "synapse-gateway"
    assert said["service.instance.id"] == "pod-1"
    assert said["service.version"]
    [scope] = resource.scope_spans
    assert scope.scope.name == "synapse_gateway"
    assert scope.schema_url == "https://opentelemetry.io/schemas/1.37.0"


def test_a_name_for_the_service_from_the_environment_stays(
    collector: Collector, records: Any, monkeypatch: pytest.MonkeyPatch, otel_for: Any
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "edge")
    export(otel_for(), records.request())
    said = plain(collector.traces[0].resource_spans[0].resource.attributes)
    assert said["service.name"] == "edge"


def test_the_answer_names_the_model_as_its_backend_does(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(otel, records.request())
    said = plain(collector.named("chat llama3.1").attributes)
    assert said["gen_ai.request.model"] == "llama3.1"
    assert said["gen_ai.response.model"] == "meta/Llama-3.1-8B"


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
    ],
)
def test_without_a_valid_context_a_trace_begins_here(
    otel: OpenTelemetry, collector: Collector, records: Any, traceparent: str
) -> None:
    export(otel, records.request(traceparent=traceparent))
    server = collector.named("POST /v1/chat/completions")
    assert server.parent_span_id == b""
    assert server.trace_id.hex() not in {TRACE, "0" * 32}


def test_a_later_version_of_the_context_is_understood(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(otel, records.request(traceparent=f"01-{TRACE}-{PARENT}-01-more"))
    assert collector.named("POST /v1/chat/completions").parent_span_id.hex() == PARENT


def test_what_the_caller_does_not_sample_is_passed_on_so_and_not_exported(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    record = records.request(traceparent=f"00-{TRACE}-{PARENT}-00")
    told = otel.outgoing_traceparent(record, record.attempts[0])
    assert told.startswith(b"00-" + TRACE.encode())
    assert told.endswith(b"-00")
    export(otel, record)
    assert collector.spans == []
    assert collector.points["gen_ai.server.request.duration"]


@pytest.mark.parametrize(
    ("changes", "error_type"),
    [
        ({"status": 503, "error": "unavailable"}, "unavailable"),
        ({"status": 502}, "502"),
        ({"cut": "stalled"}, "stalled"),
    ],
)
def test_a_failed_request_is_an_error_with_its_type(
    otel: OpenTelemetry,
    collector: Collector,
    records: Any,
    changes: dict[str, Any],
    error_type: str,
) -> None:
    export(otel, records.request(**changes))
    server = collector.named("POST /v1/chat/completions")
    assert server.status.code == 2
    assert plain(server.attributes)["error.type"] == error_type
    [(attributes, _)] = collector.points["gen_ai.server.request.duration"]
    assert attributes["error.type"] == error_type
    assert "gen_ai.client.token.usage" not in collector.points


def test_a_callers_own_mistake_is_no_error_of_the_server(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    attempts = [records.attempt(outcome="client_error", status=400)]
    export(otel, records.request(status=400, attempts=attempts))
    assert collector.named("POST /v1/chat/completions").status.code == 0
    client = collector.named("chat llama3.1")
    assert client.status.code == 2
    assert plain(client.attributes)["error.type"] == "client_error"
    assert plain(client.attributes)["http.response.status_code"] == 400


def test_a_caller_that_left_is_no_error(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    attempts = [records.attempt(outcome="caller_left")]
    export(otel, records.request(disconnected=True, attempts=attempts))
    assert {span.status.code for span in collector.spans} == {0}
    assert "gen_ai.response.model" not in plain(collector.named("chat llama3.1").attributes)


def test_an_attempt_without_an_outcome_is_an_error_of_no_name(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(otel, records.request(attempts=[records.attempt(outcome="", ended=0.0)]))
    client = collector.named("chat llama3.1")
    assert plain(client.attributes)["error.type"] == "_OTHER"
    assert client.end_time_unix_nano == client.start_time_unix_nano


def test_the_metrics_of_the_conventions_are_there(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    attempts = [records.attempt(outcome="refused", ended=1000.6), records.attempt(backend="cloud")]
    export(otel, records.request(attempts=attempts))
    points = collector.points
    assert set(points) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
    }
    there = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "llama3.1",
        "server.address": "models.example",
        "server.port": 443,
    }
    [(attributes, point)] = points["gen_ai.server.request.duration"]
    assert (attributes, point.sum) == (there, 2.75)
    assert list(point.explicit_bounds)[:3] == [0.01, 0.02, 0.04]
    [(attributes, point)] = points["gen_ai.server.time_to_first_token"]
    assert (attributes, point.sum) == (there, 0.75)
    [(attributes, point)] = points["gen_ai.server.time_per_output_token"]
    assert (attributes, point.sum) == (there, 0.05)
    assert {
        attributes.pop("gen_ai.token.type"): (attributes, point.sum)
        for attributes, point in points["gen_ai.client.token.usage"]
    } == {"input": (there, 12), "output": (there, 41)}
    assert {
        attributes.get("error.type"): attributes["gen_ai.provider.name"]
        for attributes, _ in points["gen_ai.client.operation.duration"]
    } == {"refused": "vllm", None: "openai"}


def test_what_is_not_known_is_not_measured(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(
        otel,
        records.request(route="/health", model="", attempts=[]),
        records.request(attempts=[], status=503),
        records.request(stream=False, tokens_in=0, tokens_out=0),
        records.request(tokens_out=1, tokens_in=0),
    )
    assert set(collector.points) == {
        "gen_ai.client.operation.duration",
        "gen_ai.client.token.usage",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
    }
    [(attributes, _)] = collector.points["gen_ai.client.token.usage"]
    assert attributes["gen_ai.token.type"] == "output"


def test_speech_says_what_comes_out(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    export(otel, records.request(route="/v1/audio/speech", tokens_in=0, tokens_out=0))
    said = plain(collector.named("speech llama3.1").attributes)
    assert said["gen_ai.output.type"] == "speech"
    assert "gen_ai.usage.output_tokens" not in said


def test_routes_without_models_have_no_genai_attributes(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    attempt = records.attempt(backend="plain", model="")
    export(otel, records.request(route="/voices", method="GET", model="", attempts=[attempt]))
    client = collector.named("GET")
    assert plain(client.attributes)["server.port"] == 80
    for span in collector.spans:
        assert not [key for key in plain(span.attributes) if key.startswith("gen_ai.")]


def test_an_attempt_for_a_model_of_no_table_is_named_by_its_operation(
    otel: OpenTelemetry, collector: Collector, records: Any
) -> None:
    attempt = records.attempt(backend="gone", model="")
    export(otel, records.request(model="", attempts=[attempt]))
    said = plain(collector.named("chat").attributes)
    assert said["gen_ai.provider.name"] == "gone"
    assert "gen_ai.request.model" not in said
    assert "server.address" not in said


@pytest.mark.parametrize("signal", ["traces", "metrics"])
def test_one_signal_alone_can_be_exported(
    collector: Collector, records: Any, signal: str, otel_for: Callable[..., OpenTelemetry]
) -> None:
    name = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    export(otel_for(**{name: f"{collector.url}/v1/{signal}"}), records.request())
    assert (bool(collector.traces), bool(collector.exports)) == (
        signal == "traces",
        signal == "metrics",
    )


def test_a_collector_that_refuses_hurts_nobody(
    otel: OpenTelemetry, collector: Collector, records: Any, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status = 400
    export(otel, records.request(), records.request())
    assert collector.spans == []
    assert "Failed to export" in caplog.text
