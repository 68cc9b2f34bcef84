"""One result, written for machines (JUnit), for a repository (Markdown) and for people (HTML)."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from conformance.suite.lines import SECTIONS, Verdict
from conformance.suite.report.html import page
from conformance.suite.report.junit import junit
from conformance.suite.report.markdown import markdown
from conformance.suite.report.run import Run

if TYPE_CHECKING:
    from pathlib import Path

    from conformance.suite.lines import Record

__all__ = ["Run", "table", "write"]


def write(run: Run, folder: Path) -> list[Path]:
    """Write the three reports and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (
        ("junit.xml", junit(run)),
        ("report.md", markdown(run)),
        ("report.html", page(run)),
    ):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def table(records: list[Record]) -> list[str]:
    """Return what the terminal shows: a row a section, then every line that is not supported."""
    rows = [f"{'':24}" + "".join(f"{verdict.value:>15}" for verdict in Verdict)]
    for section in SECTIONS:
        found = [record for record in records if record.line.section == section.name]
        if not found:
            continue
        counts = Counter(record.verdict for record in found)
        cells = "".join(f"{counts[verdict] or '-':>15}" for verdict in Verdict)
        rows.append(f"{section.title:24}{cells}")
    others = [record for record in records if record.verdict is not Verdict.SUPPORTED]
    for record in sorted(others, key=lambda record: -record.verdict.rank):
        reason = record.reason.splitlines()[0] if record.reason else ""
        rows.append(f"{record.verdict.value}: {record.line.id}: {reason}")
    required = [record for record in records if record.required]
    if required:
        held = sum(record.verdict is Verdict.SUPPORTED for record in required)
        rows.append(f"required lines: {held} of {len(required)} supported")
    return rows
