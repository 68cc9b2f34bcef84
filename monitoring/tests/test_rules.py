"""Rules: promtool accepts them, every alert is proven both ways, and all that they name exists."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from monitoring.tests import promql

if TYPE_CHECKING:
    from pathlib import Path

ROOT = promql.MONITORING.parent
UNIT_TESTS = sorted((promql.MONITORING / "tests" / "alerts").glob("*.yaml"))
ALERTS = [rule for rule in promql.rules() if "alert" in rule]
NAMES = sorted({rule["alert"] for rule in ALERTS})


@pytest.fixture(scope="session")
def promtool() -> str:
    run = subprocess.run(
        [ROOT / "hack/tools/install.sh", "promtool"], check=True, stdout=subprocess.PIPE, text=True
    )
    return run.stdout.strip()


@pytest.fixture(scope="module")
def series() -> dict[str, frozenset[str]]:
    return promql.known_series()


@pytest.mark.parametrize("file", promql.rule_files(), ids=lambda file: file.stem)
def test_promtool_accepts_the_file(promtool: str, file: Path) -> None:
    run = subprocess.run(
        [promtool, "check", "rules", "--lint=all", "--lint-fatal", file],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_an_alert_fires_and_keeps_quiet_as_written(promtool: str, file: Path) -> None:
    run = subprocess.run(
        [promtool, "test", "rules", file.name],
        cwd=file.parent, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_alert_has_unit_tests() -> None:
    assert [file.stem for file in UNIT_TESTS] == NAMES


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.stem)
def test_each_severity_of_an_alert_is_seen_firing_and_one_test_is_quiet(file: Path) -> None:
    expected = [
        alert
        for test in yaml.safe_load(file.read_text())["tests"]
        for asked in test["alert_rule_test"]
        for alert in asked["exp_alerts"] or [None]
    ]
    variants = {_variant(rule["labels"]) for rule in ALERTS if rule["alert"] == file.stem}
    assert {_variant(alert["exp_labels"]) for alert in expected if alert} == variants
    assert None in expected


def _variant(labels: dict[str, str]) -> tuple[str, str]:
    return labels["severity"], labels.get("window", "")


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(
    rule: dict[str, Any], series: dict[str, frozenset[str]]
) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert annotations["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"
    assert (ROOT / annotations["runbook_url"]).exists()
    shown = promql.template_labels(annotations["summary"] + annotations["description"])
    checker = promql.Checker(series)
    assert shown <= checker.labels(promql.parsed(rule["expr"])) | set(rule["labels"])


@pytest.mark.parametrize("rule", promql.rules(), ids=lambda rule: rule.get("alert", "record"))
def test_a_rule_names_only_what_a_scrape_has(
    rule: dict[str, Any], series: dict[str, frozenset[str]]
) -> None:
    assert promql.problems(rule["expr"], series) == []


def test_a_recorded_name_tells_the_labels_that_are_left() -> None:
    series = promql.known_series()
    for rule in promql.rules():
        if "record" in rule:
            level = rule["record"].split(":")[0]
            assert level == "_".join(
                label for label in _in_order(rule["expr"]) if label in series[rule["record"]]
            )


def _in_order(expression: str) -> list[str]:
    first = expression.split("by (", 1)[1].split(")", 1)[0]
    return [label.strip() for label in first.split(",") if label.strip() != "le"]


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("synapse_request_total", "is in no scrape"),
        ("sum by (modle) (synapse_queue_length)", "no label 'modle'"),
        ('synapse_requests_total{status="200"}', "no label 'status'"),
        ("synapse_queue_length / on (backend) synapse_backend_up", "no label 'backend'"),
    ],
)
def test_a_wrong_name_is_found(
    series: dict[str, frozenset[str]], expression: str, problem: str
) -> None:
    assert problem in " ".join(promql.problems(expression, series))


def test_every_scrape_tells_where_it_comes_from() -> None:
    for file in promql.SCRAPES.glob("*.prom"):
        first, second = file.read_text().splitlines()[:2]
        assert first.startswith(("# real: ", "# published list, not run here: ")), file.name
        wanted = "# made by: " if first.startswith("# real") else "# source: "
        assert second.startswith(wanted), file.name


def test_every_runbook_belongs_to_an_alert() -> None:
    pages = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")} - {"README"}
    assert pages == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_runbook_has_its_three_parts(name: str) -> None:
    text = (ROOT / "docs/runbooks" / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    for part in ("## What it means", "## Find the cause", "## Put it right"):
        assert f"\n{part}\n" in text, part
