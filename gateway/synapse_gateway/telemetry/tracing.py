"""Decides whether OpenTelemetry is used; nothing of it is imported where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.telemetry.otel import OpenTelemetry


class Endpoints(NamedTuple):
    """Where traces and metrics are sent (OTLP over HTTP); None sends none."""

    traces: str | None
    metrics: str | None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Endpoints:
        """Read the standard variables of OpenTelemetry.

        `OTEL_EXPORTER_OTLP_ENDPOINT` is a base URL for both; `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`
        and `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT` are whole URLs and come first.
        `OTEL_TRACES_EXPORTER=none`, `OTEL_METRICS_EXPORTER=none` and `OTEL_SDK_DISABLED=true`
        switch off.

        Raises:
            ConfigError: Another protocol than `http/protobuf` is asked for.
        """
        if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
            return cls(None, None)
        return cls(_endpoint(environ, "traces"), _endpoint(environ, "metrics"))


def _endpoint(environ: Mapping[str, str], signal: str) -> str | None:
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    url = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "").strip()
    if not url:
        base = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip()
        if not base:
            return None
        url = f"{base.rstrip('/')}/v1/{signal}"
    for name in (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(name, "").strip()
        if protocol and protocol != "http/protobuf":
            raise ConfigError(f"{name}: only http/protobuf is spoken here (got {protocol!r})")
        if protocol:
            break
    return url


def start(environ: Mapping[str, str], instance: str) -> OpenTelemetry | None:
    """Start exporting if the environment names an endpoint.

    Args:
        environ: The process environment.
        instance: Name of this replica.

    Raises:
        ConfigError: Another protocol than `http/protobuf` is asked for.
    """
    endpoints = Endpoints.from_environ(environ)
    if endpoints == (None, None):
        return None
    # A tenth of a second and 20 MB, which only who exports should pay.
    from synapse_gateway.telemetry.otel import OpenTelemetry  # noqa: PLC0415

    return OpenTelemetry(endpoints, instance)
