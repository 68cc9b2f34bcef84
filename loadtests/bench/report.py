"""The benchmark's output: a table for people and one JSON object for machines."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loadtests.bench.processes import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from loadtests.bench.ratios import Row

_HEAD = ("figure", "unit", "direct", "nginx", "gateway", "ratio", "aim", "verdict")


def figure(value: float | None) -> str:
    """Return a number with three significant digits and no more than it needs."""
    if value is None:
        return ""
    if value != value:  # noqa: PLR0124 - NaN
        return "n/a"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: Sequence[Row]) -> str:
    """Return the rows as aligned text, each note on a line below its row."""
    cells = [_HEAD] + [_cells(row) for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(_HEAD))]
    lines = [_aligned(cells[0], widths), "  ".join("-" * width for width in widths)]
    for row, line in zip(rows, cells[1:], strict=True):
        lines.append(_aligned(line, widths))
        if row.note:
            lines.append(f"    {row.note}")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.name,
        row.unit,
        figure(row.direct),
        figure(row.nginx),
        figure(row.gateway),
        figure(row.ratio),
        "" if row.aim is None else str(row.aim),
        str(row.verdict),
    )


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    left = [text.ljust(width) for text, width in zip(line[:2], widths[:2], strict=True)]
    middle = [text.rjust(width) for text, width in zip(line[2:6], widths[2:6], strict=True)]
    right = [text.ljust(width) for text, width in zip(line[6:], widths[6:], strict=True)]
    return "  ".join(left + middle + right).rstrip()


def markdown(rows: Sequence[Row], footer: str) -> str:
    """Return the rows as a Markdown table, the notes and the footer below it."""
    lines = ["| " + " | ".join(_HEAD) + " |", "| --- | --- |" + " ---: |" * 4 + " --- | --- |"]
    lines += ["| " + " | ".join(cell.strip() for cell in _cells(row)) + " |" for row in rows]
    notes = [f"- {row.name.strip()}: {row.note}" for row in rows if row.note]
    today = datetime.now(UTC).date().isoformat()
    return "\n".join([*lines, "", *notes, f"- {footer}", f"- {machine()['cpu']}, {today}"])


def replace_block(text: str, name: str, block: str) -> str:
    """Return a document with what stands between a name's two markers replaced.

    Raises:
        BenchError: The document has no such markers.
    """
    begin, end = f"<!-- bench {name} -->", f"<!-- end of bench {name} -->"
    before, found, rest = text.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise BenchError(f"--docs: the file must hold the lines {begin} and {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"


def write_docs(path: Path, name: str, rows: Sequence[Row], footer: str) -> None:
    """Put a report into a Markdown document, between the markers of its name."""
    text = path.read_text(encoding="utf-8")
    path.write_text(replace_block(text, name, markdown(rows, footer)), encoding="utf-8")


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    model = platform.processor()
    with open("/proc/cpuinfo", encoding="utf-8") as info:  # noqa: PTH123 - a kernel file
        for line in info:
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    return {"cpu": model, "kernel": platform.release(), "python": platform.python_version()}


def write_json(path: Path, rows: Sequence[Row], details: Mapping[str, Any]) -> None:
    """Write the rows and everything that they were made of."""
    whole = {"machine": machine(), "rows": [row.as_plain() for row in rows], **details}
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
