"""The report as one page that needs nothing else: no script from elsewhere, no font, no image."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from conformance.suite.lines import Verdict
from conformance.suite.report.chart import chart

if TYPE_CHECKING:
    from conformance.suite.lines import Exchange, Record, Section
    from conformance.suite.report.run import Run

HERE = Path(__file__).parent
CLASS = {
    Verdict.SUPPORTED: "ok",
    Verdict.NOT_SUPPORTED: "absent",
    Verdict.SKIPPED: "skipped",
    Verdict.FAILED: "failed",
    Verdict.ERROR: "error",
}
MARK = {"ok": "✓", "absent": "-", "skipped": "○", "failed": "✗", "error": "!"}


def page(run: Run) -> str:
    """Return the page."""
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    title = f"Synapse conformance, {run.date}"
    body = "\n".join(
        [
            _head(run),
            _filters(run),
            *(_section(section, records) for section, records in run.sections()),
            _foot(run),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n<script>\n{script}</script>\n</body>\n</html>\n"
    )


def _head(run: Run) -> str:
    supported = run.counts[Verdict.SUPPORTED]
    verdict = "Conforms" if run.good else "Does not conform"
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in [("date", run.date), ("took", _duration(run.seconds)), *run.facts]
    )
    return (
        f'<header class="{"good" if run.good else "bad"}">\n'
        f'<p class="eyebrow">Synapse conformance report</p>\n<h1>{verdict}</h1>\n'
        f"<p>{supported} of {len(run.records)} capabilities and faults are supported.</p>\n"
        f"{_bar(run.records)}\n<dl>{facts}</dl>\n{_stand_ins(run)}</header>"
    )


def _bar(records: list[Record]) -> str:
    counts = {verdict: sum(record.verdict is verdict for record in records) for verdict in Verdict}
    parts = [
        f'<span class="{CLASS[verdict]}" style="flex-grow:{count}" '
        f'title="{count} {verdict.value}"></span>'
        for verdict, count in counts.items()
        if count
    ]
    return f'<div class="bar">{"".join(parts)}</div>'


def _stand_ins(run: Run) -> str:
    if not run.stand_ins:
        return ""
    rows = "".join(f"<li>{escape(text)}</li>" for text in run.stand_ins)
    return (
        f"<aside><strong>Stand-ins</strong> for what needs other hardware:<ul>{rows}</ul></aside>\n"
    )


def _filters(run: Run) -> str:
    choices = [("", "all", len(run.records))]
    choices += [
        (CLASS[verdict], verdict.value, run.counts[verdict])
        for verdict in Verdict
        if run.counts[verdict]
    ]
    buttons = "".join(
        f'<button data-show="{name}" aria-pressed="{str(not name).lower()}">'
        f"{text} <b>{count}</b></button>"
        for name, text, count in choices
    )
    search = '<input type="search" placeholder="find a line" aria-label="find a line">'
    return f"<nav>{buttons}{search}</nav>"


def _section(section: Section, records: list[Record]) -> str:
    lines = "\n".join(_line(record) for record in records)
    supported = sum(record.verdict is Verdict.SUPPORTED for record in records)
    return (
        f'<section id="{section.name}">\n<h2>{escape(section.title)} '
        f"<small>{supported} of {len(records)}</small></h2>\n"
        f"<p>{escape(section.about)}</p>\n{_bar(records)}\n{lines}\n</section>"
    )


def _line(record: Record) -> str:
    name = CLASS[record.verdict]
    open_ = " open" if record.verdict in (Verdict.FAILED, Verdict.ERROR) else ""
    required = '<span class="tag">required</span>' if record.required else ""
    brief = _brief(record)
    return (
        f'<details class="{name}" data-verdict="{name}"{open_}>\n<summary><i>{MARK[name]}</i>'
        f"<span class=title>{escape(record.line.title)}{required}</span>"
        f'<span class="brief">{escape(brief)}</span></summary>\n{_details(record)}</details>'
    )


def _brief(record: Record) -> str:
    if record.reason:
        return record.reason.splitlines()[0][:160]
    return "; ".join(f"{name} {value}" for name, value in record.facts[:3])[:160]


def _details(record: Record) -> str:
    parts = [
        f'<p class="id"><code>{escape(record.line.id)}</code> · {_duration(record.seconds)}</p>'
    ]
    if record.reason:
        parts.append(f"<pre>{escape(record.reason)}</pre>")
    parts += [chart(course) for course in record.charts]
    if record.facts:
        rows = "".join(
            f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
            for name, value in record.facts
        )
        parts.append(f"<table>{rows}</table>")
    parts += [f"<p>Stand-in: {escape(text)}</p>" for text in record.stand_ins]
    parts += [_exchange(exchange) for exchange in record.exchanges]
    return "\n".join(parts)


def _exchange(exchange: Exchange) -> str:
    interesting = {
        name: value
        for name, value in exchange.answer_headers.items()
        if name.startswith("x-") or name in ("content-type", "retry-after", "www-authenticate")
    }
    head = "\n".join(f"{name}: {value}" for name, value in interesting.items())
    answer = f"{exchange.status or 'no answer'}\n{head}\n\n{exchange.answer}".rstrip()
    return (
        f'<div class="exchange"><pre class="curl">{escape(exchange.curl())}</pre>'
        f"<pre>{escape(answer)}</pre></div>"
    )


def _duration(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _foot(run: Run) -> str:
    del run
    return (
        "<footer><p><b>Supported</b>: it was tried here and held. <b>Not supported</b>: the "
        "deployment does not have it. <b>Skipped</b>: an option of the run kept it out. "
        "<b>Error</b>: the suite could not tell. How to run it: docs/conformance.md.</p></footer>"
    )
