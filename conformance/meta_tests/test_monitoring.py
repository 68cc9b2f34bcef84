"""Dashboards' expressions, and the list of panels that may be empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conformance.suite.monitoring import may_be_empty, with_choices

DASHBOARDS = Path(__file__).resolve().parents[2] / "monitoring" / "dashboards" / "dist"


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ('a{namespace=~"$namespace"}', 'a{namespace="llm-infra"}'),
        ('a{backend="$backend", b="c"}', 'a{backend=~".+", b="c"}'),
        ("rate(a[$__rate_interval])", "rate(a[10m])"),
    ],
)
def test_everything_is_chosen(expression: str, asked: str) -> None:
    assert with_choices(expression, "llm-infra") == asked


def test_no_variable_is_left() -> None:
    for file in DASHBOARDS.glob("*.json"):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                assert "$" not in with_choices(target["expr"], "llm-infra"), target["expr"]


def test_panels_that_may_be_empty_exist() -> None:
    names = set()
    for file in DASHBOARDS.glob("*.json"):
        page = json.loads(file.read_text())
        names |= {page["uid"]} | {f"{page['uid']}: {panel['title']}" for panel in page["panels"]}
    assert set(may_be_empty(disruptive=False)) <= names
