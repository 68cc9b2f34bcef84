"""The report of many uploads, and a small run of them against a real gateway."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from loadtests.bench.processes import BenchError, Children
from loadtests.bench.ratios import Verdict
from loadtests.bench.uploads import Seen, measure, rows

if TYPE_CHECKING:
    from pathlib import Path


def seen(**changes: int) -> Seen:
    right = {"answered": 200, "most": 40, "rss": 100_000_000, "received": 51_000_000}
    right |= changes
    return Seen(
        statuses=Counter({200: right["answered"]}),
        most=right["most"],
        rss=right["rss"],
        received=[right["received"]] * 200,
        seconds=1.0,
    )


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"answered": 199}, ["uploads answered 200"]),
        ({"most": 31}, ["under way at once, at most"]),
        ({"rss": 300_000_000}, ["RSS of the gateway, at most"]),
    ],
    ids=["all", "one-lost", "few-at-once", "much-memory"],
)
def test_each_aim_is_held_against_its_figure(changes: dict[str, int], missed: list[str]) -> None:
    found = rows(seen(**changes), count=200, size=50_000_000)
    assert [row.name for row in found if row.verdict is Verdict.MISSED] == missed


def test_a_shortened_upload_is_no_result() -> None:
    with pytest.raises(BenchError, match="shortened"):
        rows(seen(received=49_000_000), count=200, size=50_000_000)


@pytest.mark.slow
def test_a_small_run(tmp_path: Path) -> None:
    with Children(tmp_path) as children:
        found = measure(children, lambda _: None, count=5, size=300_000, rate=20e6)
    assert found.statuses == {200: 5}
    assert len(found.received) == 5
    assert found.rss > 1_000_000
