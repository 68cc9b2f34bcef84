"""Which metrics and labels a PromQL expression needs, checked against kept scrapes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser as promql
import yaml
from prometheus_client.parser import text_string_to_metric_families

MONITORING = Path(__file__).resolve().parents[1]
SCRAPES = MONITORING / "tests" / "scrapes"

TARGET_LABELS = frozenset(
    ["namespace", "pod", "service", "container", "endpoint", "job", "instance", "node"]
)
"""What Prometheus adds to a series from the target it was scraped from (a ServiceMonitor's)."""


def rule_files() -> list[Path]:
    """All files of recording rules and alerts."""
    return sorted([*MONITORING.glob("rules/*.yaml"), *MONITORING.glob("alerts/*.yaml")])


def rules() -> list[dict[str, Any]]:
    """All rules of all files, in order."""
    groups = [
        group for file in rule_files() for group in yaml.safe_load(file.read_text())["groups"]
    ]
    return [rule for group in groups for rule in group["rules"]]


def series_of(scrape: Path) -> dict[str, frozenset[str]]:
    """The labels of each series name in a scrape."""
    known: dict[str, set[str]] = {}
    # Without types: the parser would rename a counter that does not end in _total.
    lines = scrape.read_text().splitlines(keepends=True)
    untyped = "".join(line for line in lines if not line.startswith("#"))
    for family in text_string_to_metric_families(untyped):
        for sample in family.samples:
            known.setdefault(sample.name, set()).update(sample.labels)
    return {name: frozenset(labels) for name, labels in known.items()}


def scraped() -> dict[str, frozenset[str]]:
    """The labels of each series name that a kept scrape holds."""
    known: dict[str, frozenset[str]] = {}
    for file in sorted(SCRAPES.glob("*.prom")):
        for name, labels in series_of(file).items():
            known[name] = known.get(name, frozenset()) | labels
    return known


def parsed(expression: str) -> promql.Expr:
    """The syntax tree of an expression, with Grafana's interval filled in."""
    tree: promql.Expr = promql.parse(expression.replace("$__rate_interval", "5m"))
    return tree


@dataclass
class Checker:
    """Walks expressions and notes what no scrape can answer.

    Attributes:
        series: Series names and their labels, scraped or recorded.
        problems: One sentence for each thing that is not there.
        used: The series names that were asked for.
    """

    series: dict[str, frozenset[str]]
    problems: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def labels(self, tree: Any) -> frozenset[str]:
        """The labels of what an expression gives; notes problems on the way."""
        match tree:
            case promql.VectorSelector():
                return self._selector(tree)
            case promql.MatrixSelector():
                return self.labels(tree.vector_selector)
            case promql.AggregateExpr():
                return self._aggregate(tree)
            case promql.BinaryExpr():
                return self._binary(tree)
            case promql.Call():
                inner = [self.labels(argument) for argument in tree.args]
                given = inner[-1] if inner else frozenset()
                return given - {"le"} if tree.func.name == "histogram_quantile" else given
            case promql.ParenExpr() | promql.UnaryExpr() | promql.SubqueryExpr():
                return self.labels(tree.expr)
            case promql.NumberLiteral() | promql.StringLiteral():
                return frozenset()
            case _:
                raise NotImplementedError(type(tree).__name__)

    def _selector(self, tree: Any) -> frozenset[str]:
        self.used.add(tree.name)
        if tree.name not in self.series:
            self.problems.append(f"{tree.name} is in no scrape and no rule records it")
            return TARGET_LABELS
        found = self.series[tree.name] | TARGET_LABELS
        self._need(found, [matcher.name for matcher in tree.matchers.matchers], tree.name)
        return found

    def _aggregate(self, tree: Any) -> frozenset[str]:
        inner = self.labels(tree.expr)
        if "bottomk" in str(tree.op) or "topk" in str(tree.op):
            return inner
        kept = [] if tree.modifier is None else list(tree.modifier.labels)
        self._need(inner, kept, str(tree))
        return frozenset(kept)

    def _binary(self, tree: Any) -> frozenset[str]:
        left, right = self.labels(tree.lhs), self.labels(tree.rhs)
        matching = tree.modifier and tree.modifier.matching
        if matching and "include" in str(matching.type).lower():
            self._need(left, matching.labels, str(tree))
            self._need(right, matching.labels, str(tree))
        return left or right

    def _need(self, found: frozenset[str], wanted: list[str], where: str) -> None:
        self.problems += [f"{where}: no label '{name}'" for name in wanted if name not in found]


def known_series() -> dict[str, frozenset[str]]:
    """Scraped series and those that the recording rules make from them."""
    checker = Checker(scraped())
    for rule in rules():
        if "record" in rule:
            checker.series[rule["record"]] = checker.labels(parsed(rule["expr"]))
    return checker.series


def problems(expression: str, series: dict[str, frozenset[str]]) -> list[str]:
    """What an expression names that no scrape has."""
    checker = Checker(series)
    checker.labels(parsed(expression))
    return checker.problems


def template_labels(text: str) -> set[str]:
    """The labels that an annotation's template or a Grafana legend shows."""
    return set(re.findall(r"\$labels\.(\w+)", text)) | set(re.findall(r"{{\s*(\w+)\s*}}", text))
