"""The report as Markdown, for a repository or a merge request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.suite.lines import Verdict

if TYPE_CHECKING:
    from conformance.suite.lines import Record
    from conformance.suite.report.run import Run


def markdown(run: Run) -> str:
    """Return the document."""
    counts = ", ".join(
        f"{run.counts[verdict]} {verdict.value}" for verdict in Verdict if run.counts[verdict]
    )
    parts = ["# Conformance report", "", f"{len(run.records)} lines: {counts}.", ""]
    parts += ["| | |", "| --- | --- |"]
    facts = [("date", run.date), ("took", f"{run.seconds:.0f} s"), *run.facts]
    parts += [f"| {name} | {_cell(value)} |" for name, value in facts]
    if run.stand_ins:
        parts += ["", "Stand-ins, in the place of what needs other hardware:", ""]
        parts += [f"- {text}" for text in run.stand_ins]
    for section, records in run.sections():
        parts += ["", f"## {section.title}", "", section.about, ""]
        parts += ["| line | verdict | what was seen |", "| --- | --- | --- |"]
        parts += [_row(record) for record in records]
    return "\n".join(parts) + "\n"


def _row(record: Record) -> str:
    verdict = record.verdict.value
    if record.verdict is not Verdict.SUPPORTED:
        verdict = f"**{verdict}**"
    seen = [record.reason.splitlines()[0]] if record.reason else []
    seen += [f"{name}: {value}" for name, value in record.facts]
    title = f"{record.line.title}<br>`{record.line.id}`{' (required)' if record.required else ''}"
    return f"| {_cell(title)} | {verdict} | {_cell('; '.join(seen))} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
