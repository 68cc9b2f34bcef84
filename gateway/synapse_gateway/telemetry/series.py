"""Counters and histograms that cost next to nothing to count into.

A caller keeps the cell of its label values and counts by plain assignment; the Prometheus client
library sees them only when they are scraped. One thread counts, others may collect meanwhile.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, TypeVar

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_C = TypeVar("_C")


class Cell:
    """A count."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class HistogramCell:
    """Observations in fixed buckets; `counts` has one more than `bounds`, for what is above all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value; the bounds are inclusive."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Counters:
    """A counter metric: a cell for each set of label values."""

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], *, sparse: bool = False
    ) -> None:
        """Build one without cells.

        Args:
            name: Without `_total`.
            documentation: A sentence.
            labels: Their names.
            sparse: Whether a cell that is 0 is left out of what is collected.
        """
        self.name = name
        self.labels = labels
        self._documentation = documentation
        self._sparse = sparse
        self._cells: dict[tuple[str, ...], Cell] = {}

    def at(self, *values: str) -> Cell:
        """Return the cell of these label values, made when it is asked for first."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = Cell()
        return cell

    def keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Drop the cells whose labels are not wanted."""
        _keep(self._cells, self.labels, wanted)

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Return the metric for the client library."""
        family = CounterMetricFamily(self.name, self._documentation, labels=self.labels)
        for values, cell in list(self._cells.items()):
            if cell.value or not self._sparse:
                family.add_metric(values, cell.value)
        yield family


class Histograms:
    """A histogram metric: a cell for each set of label values; those without observations are left
    out of what is collected.
    """

    def __init__(
        self, name: str, documentation: str, labels: tuple[str, ...], bounds: tuple[float, ...]
    ) -> None:
        self.name = name
        self.labels = labels
        self.bounds = bounds
        self._documentation = documentation
        self._les = [*(str(float(bound)) for bound in bounds), "+Inf"]
        self._cells: dict[tuple[str, ...], HistogramCell] = {}

    def at(self, *values: str) -> HistogramCell:
        """Return the cell of these label values, made when it is asked for first."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = HistogramCell(self.bounds)
        return cell

    def keep(self, wanted: Callable[[dict[str, str]], bool]) -> None:
        """Drop the cells whose labels are not wanted."""
        _keep(self._cells, self.labels, wanted)

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Return the metric for the client library."""
        family = HistogramMetricFamily(self.name, self._documentation, labels=self.labels)
        for values, cell in list(self._cells.items()):
            reached = 0
            buckets = []
            for le, count in zip(self._les, cell.counts, strict=True):
                reached += count
                buckets.append((le, reached))
            if reached:
                family.add_metric(values, buckets, cell.total)
        yield family


def _keep(
    cells: dict[tuple[str, ...], _C],
    labels: tuple[str, ...],
    wanted: Callable[[dict[str, str]], bool],
) -> None:
    for values in list(cells):
        if not wanted(dict(zip(labels, values, strict=True))):
            del cells[values]
