"""The metrics, read back from what a scrape gets."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from synapse_gateway import __version__
from synapse_gateway.telemetry.metrics import Metrics

CHAT = "/v1/chat/completions"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    body, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse_text(body.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return scrape(metrics).get((name, frozenset(labels.items())))


def names(metrics: Metrics) -> set[str]:
    return {name for name, _ in scrape(metrics) if name.startswith("synapse_")}


def test_a_streamed_chat_is_counted_everywhere(records: Any) -> None:
    metrics = Metrics()
    metrics.request_finished(records.request())
    pair = {"model": "llama3.1", "backend": "vllm"}
    assert value(metrics, "synapse_requests_total", route=CHAT, code="200", **pair) == 1
    assert value(metrics, "synapse_request_duration_seconds_sum", route=CHAT, **pair) == 2.75
    assert value(metrics, "synapse_time_to_first_token_seconds_sum", **pair) == 0.75
    assert value(metrics, "synapse_time_per_output_token_seconds_sum", **pair) == 0.05
    assert value(metrics, "synapse_gateway_overhead_seconds_sum", route=CHAT) == 0.0005
    assert value(metrics, "synapse_queue_wait_seconds_sum", model="llama3.1") == 0.25
    assert value(metrics, "synapse_tokens_total", direction="in", **pair) == 12
    assert value(metrics, "synapse_tokens_total", direction="out", **pair) == 41
    assert value(metrics, "synapse_attempts_total", outcome="ok", **pair) == 1


@pytest.mark.parametrize(("seconds", "le"), [(0.1, "0.1"), (0.1001, "0.25"), (400, "+Inf")])
def test_a_duration_falls_into_the_first_bucket_that_holds_it(
    records: Any, seconds: float, le: str
) -> None:
    metrics = Metrics()
    metrics.request_finished(records.request(started=0.0, ended=seconds))
    buckets = {
        dict(labels)["le"]: count
        for (name, labels), count in scrape(metrics).items()
        if name == "synapse_request_duration_seconds_bucket"
    }
    reached = [bound for bound, count in buckets.items() if count]
    assert reached[0] == le
    assert all(count <= 1 for count in buckets.values())
    assert (
        value(
            metrics,
            "synapse_request_duration_seconds_count",
            route=CHAT,
            model="llama3.1",
            backend="vllm",
        )
        == 1
    )


def test_a_request_that_reached_no_backend_is_counted_without_one(records: Any) -> None:
    metrics = Metrics()
    metrics.request_finished(
        records.request(status=404, model="", model_asked="gpt-9", attempts=[], tokens_in=0)
    )
    labels = {"route": CHAT, "model": "unknown", "backend": "none"}
    assert value(metrics, "synapse_requests_total", code="404", **labels) == 1
    assert not names(metrics) & {
        "synapse_gateway_overhead_seconds_count",
        "synapse_queue_wait_seconds_count",
        "synapse_tokens_total",
        "synapse_time_to_first_token_seconds_count",
    }


def test_every_attempt_is_counted_and_the_answer_belongs_to_the_last(records: Any) -> None:
    metrics = Metrics()
    attempts = [
        records.attempt(outcome="refused", status=0),
        records.attempt(backend="ollama", order=2),
    ]
    metrics.request_finished(records.request(attempts=attempts, fallback="refused"))
    model = {"model": "llama3.1"}
    assert value(metrics, "synapse_attempts_total", backend="vllm", outcome="refused", **model) == 1
    assert value(metrics, "synapse_attempts_total", backend="ollama", outcome="ok", **model) == 1
    assert (
        value(metrics, "synapse_fallbacks_total", backend="ollama", reason="refused", **model) == 1
    )
    assert value(
        metrics, "synapse_requests_total", route=CHAT, backend="ollama", code="200", **model
    )


def test_a_cut_stream_is_counted_with_its_reason_and_gives_no_pace(records: Any) -> None:
    metrics = Metrics()
    metrics.request_finished(records.request(cut="stalled"))
    pair = {"model": "llama3.1", "backend": "vllm"}
    assert value(metrics, "synapse_cut_streams_total", reason="stalled", **pair) == 1
    assert value(metrics, "synapse_time_to_first_token_seconds_count", **pair) == 1
    assert "synapse_time_per_output_token_seconds_count" not in names(metrics)


def test_a_caller_that_left_before_an_answer_is_a_499(records: Any) -> None:
    metrics = Metrics()
    metrics.request_finished(records.request(status=0, disconnected=True, first_content=0.0))
    labels = {"route": CHAT, "model": "llama3.1", "backend": "vllm"}
    assert value(metrics, "synapse_requests_total", code="499", **labels) == 1
    assert value(metrics, "synapse_client_disconnects_total", route=CHAT) == 1


def test_an_answer_in_one_piece_has_no_first_token(records: Any) -> None:
    metrics = Metrics()
    metrics.request_finished(records.request(stream=False))
    metrics.request_finished(records.request(tokens_out=1))
    assert "synapse_time_per_output_token_seconds_count" not in names(metrics)
    pair = {"model": "llama3.1", "backend": "vllm"}
    assert value(metrics, "synapse_time_to_first_token_seconds_count", **pair) == 1


@pytest.mark.parametrize(
    ("outcome", "name", "labels"),
    [
        ("misrouted", "synapse_misrouted_total", {"backend": "vllm", "model": "llama3.1"}),
        ("credentials", "synapse_backend_auth_failures_total", {"backend": "vllm"}),
    ],
)
def test_what_somebody_must_look_at_is_counted_apart(
    records: Any, outcome: str, name: str, labels: dict[str, str]
) -> None:
    metrics = Metrics()
    metrics.configured(["vllm"], [("vllm", "llama3.1")])
    assert value(metrics, name, **labels) == 0
    for _ in range(2):
        metrics.request_finished(records.request(attempts=[records.attempt(outcome=outcome)]))
    assert value(metrics, name, **labels) == 2


def test_series_stay_few_whatever_callers_send(records: Any) -> None:
    metrics = Metrics()
    metrics.configured(["vllm"], [("vllm", "llama3.1")])
    for number in range(2000):
        name = f"model-{number}"
        metrics.request_finished(
            records.request(
                model=name if number % 2 else "",
                model_asked=name,
                caller=f"key-{number}",
                client=f"192.0.2.{number}",
                id=name,
                fallback=f"reason {number}",
                attempts=[records.attempt(backend=f"b{number}", model=name, outcome=name)],
            )
        )
    series = [key for key in scrape(metrics) if key[0].startswith("synapse_")]
    assert len(series) < 400
    labels = {"model": "unknown", "backend": "none"}
    assert value(metrics, "synapse_requests_total", route=CHAT, code="200", **labels) == 2000
    assert value(metrics, "synapse_attempts_total", outcome="other", **labels)
    assert len(metrics._by_request) + len(metrics._by_attempt) < 100


def test_what_a_reload_removes_goes_and_what_it_keeps_stays(records: Any) -> None:
    metrics = Metrics()
    metrics.configured(["vllm", "ollama"], [("vllm", "llama3.1"), ("ollama", "qwen")])
    old = records.request(model="qwen", attempts=[records.attempt(backend="ollama", model="qwen")])
    metrics.request_finished(old)
    metrics.request_finished(records.request())
    assert any("qwen" in str(key) for key in scrape(metrics))
    for key in ("app", "leaver"):
        metrics.rate_limited(key, "concurrency")
    metrics.configured(["vllm"], [("vllm", "llama3.1")], {"app"})
    assert value(metrics, "synapse_rate_limited_total", key="app", limit="concurrency") == 1
    assert not any("leaver" in str(key) for key in scrape(metrics))
    kept = {"route": CHAT, "model": "llama3.1", "backend": "vllm", "code": "200"}
    assert value(metrics, "synapse_requests_total", **kept) == 1
    assert not any("qwen" in str(key) or "ollama" in str(key) for key in scrape(metrics))
    # One that was in flight at the reload ends under no name of its own.
    metrics.request_finished(old)
    assert not any("qwen" in str(key) or "ollama" in str(key) for key in scrape(metrics))
    unknown = {"route": CHAT, "model": "unknown", "backend": "none", "code": "200"}
    assert value(metrics, "synapse_requests_total", **unknown) == 1
    metrics.request_finished(records.request())
    assert value(metrics, "synapse_requests_total", **kept) == 2


def test_limits_disconnects_and_reloads_are_counted() -> None:
    metrics = Metrics()
    assert value(metrics, "synapse_config_reloads_total", result="ok") == 0
    assert "synapse_config_info" not in names(metrics)
    metrics.rate_limited("app", "tokens_per_minute")
    metrics.config_loaded("abc123", 1_800_000_000.0)
    metrics.config_refused()
    limited = {"key": "app", "limit": "tokens_per_minute"}
    assert value(metrics, "synapse_rate_limited_total", **limited) == 1
    assert value(metrics, "synapse_config_info", hash="abc123") == 1
    assert value(metrics, "synapse_config_last_reload_timestamp_seconds") == 1_800_000_000.0
    assert value(metrics, "synapse_config_reloads_total", result="ok") == 1
    assert value(metrics, "synapse_config_reloads_total", result="refused") == 1


def test_redis_is_only_spoken_of_where_there_is_one() -> None:
    metrics = Metrics()
    assert value(metrics, "synapse_redis_up") is None
    metrics.redis_up(False)
    assert value(metrics, "synapse_redis_up") == 0
    metrics.redis_up(True)
    assert value(metrics, "synapse_redis_up") == 1


def test_the_process_and_the_version_are_there() -> None:
    metrics = Metrics()
    assert value(metrics, "synapse_build_info", version=__version__) == 1
    assert value(metrics, "process_resident_memory_bytes")
    assert any(name == "python_info" for name, _ in scrape(metrics))


def test_openmetrics_is_given_to_who_asks_for_it(records: Any) -> None:
    metrics = Metrics()
    metrics.config_loaded("abc123", 1.0)
    metrics.request_finished(records.request())
    body, content_type = metrics.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    parsed = parse_openmetrics(body.decode())  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    assert families["synapse_requests"].samples[0].name == "synapse_requests_total"
    assert families["synapse_request_duration_seconds"].type == "histogram"
    assert families["synapse_config"].type == "info"
    assert body.endswith(b"# EOF\n")


def test_another_accept_header_gets_the_text_format() -> None:
    _, content_type = Metrics().render("text/html, */*;q=0.1")
    assert content_type.startswith("text/plain")


def test_two_processes_worth_of_metrics_do_not_meet(records: Any) -> None:
    one, two = Metrics(), Metrics()
    one.request_finished(records.request())
    assert "synapse_requests_total" in names(one)
    assert "synapse_requests_total" not in names(two)
