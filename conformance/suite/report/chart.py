"""Courses of traffic as pictures: who answered, second by second, and what was lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 720, 120
COLOURS = ("#3b82c4", "#e0a030", "#7a5cc0", "#2f9e8f", "#b06a9a", "#8a8f98")
LOST = "#d03b3b"


@dataclass
class Course:
    """Requests over time.

    Attributes:
        seconds: Length.
        answered: By backend, the answers of each second.
        lost: Lost requests of each second.
        marks: What happened, by second.
    """

    seconds: int
    answered: dict[str, list[int]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)


def chart(course: Course) -> str:
    """Return the course as SVG with a legend."""
    rows = [*course.answered.values(), course.lost]
    totals = [sum(row[second] for row in rows if row) for second in range(course.seconds)]
    scale = HEIGHT / max([*totals, 1])
    step = WIDTH / max(course.seconds, 1)
    bars = []
    for second in range(course.seconds):
        top = float(HEIGHT)
        for number, row in enumerate(course.answered.values()):
            top -= row[second] * scale
            bars.append(_bar(second * step, top, step, row[second] * scale, COLOURS[number % 6]))
        if course.lost:
            top -= course.lost[second] * scale
            bars.append(_bar(second * step, top, step, course.lost[second] * scale, LOST))
    marks = [
        f'<line x1="{at * step:.1f}" x2="{at * step:.1f}" y1="0" y2="{HEIGHT}"/>'
        f'<text x="{at * step + 4:.1f}" y="12">{escape(what)}</text>'
        for at, what in course.marks
    ]
    legend = "".join(
        f'<span><i style="background:{COLOURS[number % 6]}"></i>{escape(name)}</span>'
        for number, name in enumerate(course.answered)
    )
    if any(course.lost):
        legend += f'<span><i style="background:{LOST}"></i>lost</span>'
    return (
        f'<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="answers a second">'
        f"{''.join(bars)}{''.join(marks)}</svg><figcaption>answers a second: {legend}"
        f"</figcaption></figure>"
    )


def _bar(left: float, top: float, width: float, height: float, colour: str) -> str:
    if height <= 0:
        return ""
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'fill="{colour}"/>'
    )
