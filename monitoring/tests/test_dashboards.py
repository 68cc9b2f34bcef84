"""Dashboards: the files are what the builders make, and every query names what a scrape has."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any

import pytest

from monitoring.dashboards.__main__ import DIST, PAGES, rendered
from monitoring.tests import promql

if TYPE_CHECKING:
    from monitoring.dashboards.page import Page, Panel, Query

PANELS = [
    pytest.param(page, panel, id=f"{page.uid}: {panel.title}")
    for page in PAGES
    for row in page.rows
    for panel in row.panels
]


@pytest.fixture(scope="module")
def series() -> dict[str, frozenset[str]]:
    return promql.known_series()


def test_the_files_are_what_the_builders_make() -> None:
    kept = {path: path.read_text() for path in DIST.glob("*.json")}
    assert kept == rendered(), "run: python -m monitoring.dashboards"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_no_two_panels_of_a_page_have_one_title(page: Page) -> None:
    titles = [panel.title for row in page.rows for panel in row.panels]
    assert len(titles) == len(set(titles))


@pytest.mark.parametrize(("page", "panel"), PANELS)
def test_a_panel_is_explained_and_fits(page: Page, panel: Panel) -> None:
    del page
    assert panel.description.endswith((".", ")"))
    assert panel.unit
    assert panel.queries
    assert panel.width <= 24


@pytest.mark.parametrize(("page", "panel"), PANELS)
def test_a_query_names_only_what_a_scrape_has(
    page: Page, panel: Panel, series: dict[str, frozenset[str]]
) -> None:
    choices = {variable.name for variable in page.variables} | {"__rate_interval"}
    for query in panel.queries:
        assert promql.problems(query.expr, series) == []
        assert set(re.findall(r"\$(\w+)", query.expr)) <= choices
        assert _legend_labels(query) <= promql.Checker(series).labels(promql.parsed(query.expr))


def _legend_labels(query: Query) -> set[str]:
    return promql.template_labels(query.legend)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.uid)
def test_a_choice_asks_for_a_label_that_a_scrape_has(
    page: Page, series: dict[str, frozenset[str]]
) -> None:
    for variable in page.variables:
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable.query)
        assert asked, variable.query
        assert asked[2] in promql.Checker(series).labels(promql.parsed(asked[1]))


def test_rows_fill_the_width_without_holes() -> None:
    for page in PAGES:
        for row in page.rows:
            assert sum(panel.width for panel in row.panels) % 24 == 0, f"{page.uid}: {row.title}"


def test_every_field_of_the_gpu_is_collected() -> None:
    """The exporter's default list leaves some of these out."""
    rows: list[Any] = list(
        csv.reader((promql.MONITORING / "dcgm" / "counters.csv").read_text().splitlines())
    )
    collected = {row[0] for row in rows if row and not row[0].startswith("#")}
    published = {name for name in promql.scraped() if name.startswith("DCGM_")}
    expressions = [rule["expr"] for rule in promql.rules()]
    expressions += [
        query.expr for page in PAGES for row in page.rows for panel in row.panels
        for query in panel.queries
    ]  # fmt: skip
    used = {name for text in expressions for name in re.findall(r"DCGM_\w+", text)}
    assert used <= collected <= published


def test_every_recorded_series_is_used() -> None:
    recorded = {rule["record"] for rule in promql.rules() if "record" in rule}
    checker = promql.Checker(promql.known_series())
    for rule in promql.rules():
        if "alert" in rule:
            checker.labels(promql.parsed(rule["expr"]))
    for page in PAGES:
        for panel in (panel for row in page.rows for panel in row.panels):
            for query in panel.queries:
                checker.labels(promql.parsed(query.expr))
    assert recorded - checker.used == set()
