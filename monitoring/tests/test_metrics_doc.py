"""The page of metrics is what the gateway exports, and the kept scrape has all of it."""

from __future__ import annotations

import re

from monitoring import metrics_doc
from monitoring.tests import promql


def test_the_page_is_what_would_be_written() -> None:
    assert metrics_doc.PAGE.read_text() == metrics_doc.render(), (
        "run: python -m monitoring.metrics_doc"
    )


def test_the_kept_scrape_has_every_metric_of_the_gateway_with_its_labels() -> None:
    scrape = promql.series_of(promql.SCRAPES / "gateway.prom")
    for name, kind, labels, _ in metrics_doc.gateway_metrics():
        series = f"{name}_count" if kind == "histogram" else name
        assert scrape.get(series) == frozenset(labels), "run: python -m hack.scrapes gateway"


def test_the_page_has_every_metric_of_the_kept_scrape() -> None:
    described = {name for name, *_ in metrics_doc.gateway_metrics()}
    series = promql.series_of(promql.SCRAPES / "gateway.prom")
    ours = {name for name in series if name.startswith("synapse_")}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in ours} == described
