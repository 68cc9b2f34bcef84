"""When OpenTelemetry is used, and that nothing of it is loaded when it is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

from synapse_gateway.errors import ConfigError
from synapse_gateway.telemetry.tracing import Endpoints, start


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        pytest.param({}, None, None, id="nothing set"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318/"},
            "http://otel:4318/v1/traces",
            "http://otel:4318/v1/metrics",
            id="a base for both",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://tempo/in"},
            "http://tempo/in",
            None,
            id="traces alone",
        ),
        pytest.param(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://mimir/in",
            },
            "http://otel:4318/v1/traces",
            "http://mimir/in",
            id="one of its own comes first",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318", "OTEL_METRICS_EXPORTER": "none"},
            "http://otel:4318/v1/traces",
            None,
            id="metrics switched off",
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318", "OTEL_SDK_DISABLED": "True"},
            None,
            None,
            id="all switched off",
        ),
        pytest.param(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://otel:4318",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_METRICS_EXPORTER": "none",
            },
            "http://otel:4318/v1/traces",
            None,
            id="a protocol of its own comes first",
        ),
    ],
)
def test_the_standard_variables_say_where_to(
    environ: dict[str, str], traces: str | None, metrics: str | None
) -> None:
    assert Endpoints.from_environ(environ) == (traces, metrics)


def test_a_protocol_that_is_not_spoken_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf .* \(got 'grpc'\)"
    ):
        start({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "pod-1")


def test_nothing_is_exported_without_an_endpoint() -> None:
    assert start({"OTEL_SERVICE_NAME": "edge"}, "pod-1") is None


def test_nothing_of_it_is_loaded_without_an_endpoint() -> None:
    code = (
        "import sys\n"
        "from synapse_gateway.telemetry import hub, logs, metrics, tracing\n"
        "assert tracing.start({}, 'pod-1') is None\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    path = [part for part in sys.path if part]
    done = subprocess.run(  # noqa: S603 - this interpreter and a program of our own
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
