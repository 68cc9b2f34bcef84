"""What a dashboard is made of: pages, rows and panels, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NAMESPACE = 'namespace=~"$namespace"'
"""The matcher that keeps several installations in one Prometheus apart."""


@dataclass(frozen=True)
class Query:
    """A PromQL expression and the legend of its lines (Grafana's ``{{label}}`` templates)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Threshold:
    """From ``value`` on the panel shows ``color``."""

    value: float
    color: str


@dataclass(frozen=True)
class Panel:
    """One picture.

    Attributes:
        title: What is shown, two or three words.
        description: How to read it; shown behind the panel's "i".
        unit: A Grafana unit id, for example "reqps", "s", "bytes", "percentunit".
        queries: What is drawn.
        kind: "graph" over time, or "stat" for the value of now.
        width: Of the 24 columns.
        stacked: Whether the areas of a graph lie on each other.
        top: The upper end of the axis, where it has one.
        thresholds: Colours of a stat; a graph draws the first as a line.
        names: Texts that stand for values, such as 2 -> "open".
    """

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    kind: Literal["graph", "stat"] = "graph"
    width: int = 8
    stacked: bool = False
    top: float | None = None
    thresholds: tuple[Threshold, ...] = ()
    names: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Panels under one headline."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of a page: the values of a label.

    Attributes:
        name: What queries call it, without the dollar.
        label: What the page calls it.
        query: Grafana's ``label_values(metric, label)``.
        many: Whether several, or all, may be chosen at once.
    """

    name: str
    label: str
    query: str
    many: bool = False


@dataclass(frozen=True)
class Page:
    """One dashboard; ``uid`` names its file and its address."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()


NAMESPACES = Variable(
    "namespace", "Namespace", "label_values(synapse_config_info, namespace)", many=True
)


def per_second(counter: str, by: str, matchers: str = "") -> str:
    """The rate of a gateway counter, summed by labels."""
    chosen = f"{NAMESPACE}, {matchers}" if matchers else NAMESPACE
    return f"sum by ({by}) (rate({counter}{{{chosen}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str = "", matchers: str = "") -> str:
    """A quantile of a gateway histogram, for each value of the labels."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({share:g}, {per_second(f'{histogram}_bucket', labels, matchers)})"


def percentiles(histogram: str, matchers: str = "") -> tuple[Query, ...]:
    """The lines p50, p95 and p99 of a gateway histogram."""
    return tuple(
        Query(quantile(share, histogram, matchers=matchers), f"p{share * 100:.0f}")
        for share in (0.5, 0.95, 0.99)
    )
