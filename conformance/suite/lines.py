"""What a report is made of: lines, each with a verdict and what was seen.

A line is one capability or one shape of fault, and every test of `conformance/tests` belongs to
one::

    @line("api.chat.stream", "A streamed chat arrives in pieces and ends once")
    def test_a_stream(gateway: Gateway, evidence: Evidence) -> None: ...

The first part of its id is its section. Where several tests share a line, the worst verdict is its
own.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest


class Verdict(enum.Enum):
    """How a line came out; the later, the worse."""

    SUPPORTED = "supported"
    SKIPPED = "skipped"
    """Not looked at: an option that it needs was not given."""
    NOT_SUPPORTED = "not supported"
    """The deployment does not have it."""
    ERROR = "error"
    """The suite itself, or a tool that it uses, failed: nothing is said about the deployment."""
    FAILED = "failed"

    @property
    def rank(self) -> int:
        """Place in the order from best to worst."""
        return list(Verdict).index(self)


class NotSupported(Exception):
    """The deployment does not have what the line is about; the text says how that was seen."""


class NotLookedAt(Exception):
    """The line needs an option that was not given; the text names it."""


class SuiteError(Exception):
    """A tool of the suite failed; nothing is said about the deployment."""


class Section(NamedTuple):
    """A part of the report."""

    name: str
    title: str
    about: str


SECTIONS = (
    Section("deployment", "Deployment", "What it says that it has, and whether that is there."),
    Section("api", "API", "Every route with the official clients: answers, streams, errors, keys."),
    Section("speed", "Speed", "The contract's bounds, measured here."),
    Section("failover", "Failover", "A backend breaks under traffic; what callers saw."),
    Section("gateway", "The gateway's own faults", "It, or what it stands on, breaks."),
    Section("network", "Network", "The chart's table of edges, probed in both directions."),
    Section("upgrades", "Upgrades", "From phase to phase and back, with requests flowing."),
    Section("decommission", "Decommission", "Applications' own Ollama instances move to it."),
    Section("monitoring", "Monitoring", "Panels, alerts and autoscaling on the live Prometheus."),
    Section("persistence", "Persistence", "What outlives a restart of each pod."),
    Section("sleep", "Sleep", "Engines that sleep and wake on request."),
    Section("gpu", "GPU", "Engines on a card."),
    Section("voices", "Voices", "Cloned voices and what is spoken with them."),
    Section("workers", "Workers", "Model servers that dial in."),
)


class Line(NamedTuple):
    """What is written about one capability or fault."""

    id: str
    title: str

    @property
    def section(self) -> str:
        """Name of its section."""
        return self.id.partition(".")[0]


def line(name: str, title: str) -> pytest.MarkDecorator:
    """Say to which line a test, or one case of it, belongs.

    Args:
        name: The line's id, `SECTION.WHAT`; lists of required lines name it.
        title: A sentence that holds when the line is supported.
    """
    if name.partition(".")[0] not in {section.name for section in SECTIONS}:
        raise ValueError(f"{name}: there is no such section")
    return pytest.mark.line(name, title)


def line_of(item: pytest.Item) -> Line | None:
    """Return the line of a test, None where it has none."""
    found = item.get_closest_marker("line")
    return Line(*found.args) if found else None


@dataclass
class Evidence:
    """What a test saw, in the order of its telling."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)
    """What stood in the place of a part that needs other hardware."""
    charts: list[Any] = field(default_factory=list)
    """Courses of traffic, drawn by the HTML report."""

    def __call__(self, what: str, seen: object) -> None:
        """Note a fact: a measured value, an address, a count."""
        self.facts.append((what, str(seen)))


@dataclass
class Exchange:
    """A request and its answer, without secrets."""

    method: str
    url: str
    headers: dict[str, str]
    body: str
    status: int = 0
    answer_headers: dict[str, str] = field(default_factory=dict)
    answer: str = ""

    def curl(self) -> str:
        """Return a command that sends the request again."""
        words = [f"curl -i {_quote(self.url)}"]
        if self.method != "GET":
            words[0] = f"curl -i -X {self.method} {_quote(self.url)}"
        words += [f"-H {_quote(f'{name}: {value}')}" for name, value in self.headers.items()]
        if self.body:
            words.append(f"--data-binary {_quote(self.body)}")
        return " \\\n  ".join(words).replace("'$SYNAPSE_API_KEY'", '"$SYNAPSE_API_KEY"')


def _quote(text: str) -> str:
    if "$SYNAPSE_API_KEY" in text:  # the shell is to put the key there
        return '"' + text.replace('"', '\\"') + '"'
    return "'" + text.replace("'", "'\\''") + "'"


@dataclass
class Record:
    """A line of the report."""

    line: Line
    verdict: Verdict = Verdict.SUPPORTED
    reason: str = ""
    facts: list[tuple[str, str]] = field(default_factory=list)
    stand_ins: list[str] = field(default_factory=list)
    charts: list[Any] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    seconds: float = 0.0
    required: bool = False

    def add(self, verdict: Verdict, reason: str) -> None:
        """Take over the outcome of a test, if it is worse than those before."""
        if verdict.rank > self.verdict.rank:
            self.verdict, self.reason = verdict, reason
