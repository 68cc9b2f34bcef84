import json
import math
from pathlib import Path

import pytest
from loadtests.bench import report, soak
from loadtests.bench.processes import BenchError
from loadtests.bench.ratios import Aim, Row, Sense, Verdict


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param(None, "", id="does-not-apply"),
        pytest.param(math.nan, "n/a", id="not-measured"),
        pytest.param(12345.6, "12,346", id="large"),
        pytest.param(0.25, "0.25", id="ratio"),
        pytest.param(2.0, "2", id="no-more-digits-than-needed"),
    ],
)
def test_figure(value: float | None, text: str) -> None:
    assert report.figure(value) == text


def test_table_aligns_columns_and_puts_notes_below_their_row() -> None:
    aim = Aim(sense=Sense.AT_LEAST, bound=0.25)
    rows = [
        Row(
            name="requests/s",
            unit="1/s",
            nginx=40000,
            gateway=12000,
            ratio=0.3,
            aim=aim,
            verdict=Verdict.MET,
            note="a note",
        ),
        Row(name="p50", unit="us", gateway=3),
    ]
    head, rule, first, note, second = report.table(rows).splitlines()
    assert note == "    a note"
    assert set(rule) == {"-", " "}
    assert first.index(">= 0.25") == head.index("aim")
    assert first.index("12,000") + len("12,000") == second.index("3", 4) + 1


def test_json_holds_rows_details_and_machine(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    report.write_json(file, [Row(name="r", unit="s", gateway=1.0)], {"cells": [1]})
    whole = json.loads(file.read_text())
    assert whole["rows"][0]["gateway"] == 1.0
    assert whole["cells"] == [1]
    assert whole["machine"]["cpu"]


def test_a_report_replaces_its_own_block_of_a_document_only(tmp_path: Path) -> None:
    file = tmp_path / "performance.md"
    file.write_text("a\n<!-- bench soak -->\nold\n<!-- end of bench soak -->\nz\n")
    report.write_docs(file, "soak", [Row(name="  RSS", unit="MB", gateway=90.5)], "footer")
    text = file.read_text()
    assert text.startswith("a\n<!-- bench soak -->\n| figure |")
    assert text.endswith("<!-- end of bench soak -->\nz\n")
    assert "| RSS | MB |  |  | 90.5 |" in text
    assert "old" not in text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(BenchError, match="<!-- bench compare -->"):
        report.replace_block("no markers", "compare", "x")


@pytest.mark.parametrize(
    ("grown", "verdict"),
    [
        pytest.param(4_999_999, Verdict.MET, id="under-five-megabytes"),
        pytest.param(5_000_000, Verdict.MISSED, id="five-megabytes"),
    ],
)
def test_soak_holds_growth_against_five_megabytes(grown: int, verdict: Verdict) -> None:
    points = [
        {"requests": 100_000, "rss_bytes": 60_000_000, "series": 300},
        {"requests": 1_000_000, "rss_bytes": 60_000_000 + grown, "series": 300},
    ]
    rows = {row.name: row for row in soak.rows(points)}
    assert rows["growth of RSS"].verdict is verdict
    assert rows["series at 1,000,000 requests"].gateway == 300
