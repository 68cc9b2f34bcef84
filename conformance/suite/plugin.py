"""Turns pytest's outcomes into the lines of a report, and holds a run to its list of lines."""

from __future__ import annotations

import difflib
import fnmatch
import time
from typing import TYPE_CHECKING, Any

import pytest

from conformance.suite import report
from conformance.suite.lines import (
    SECTIONS,
    Evidence,
    Exchange,
    NotLookedAt,
    NotSupported,
    Record,
    SuiteError,
    Verdict,
    line_of,
)

if TYPE_CHECKING:
    from collections.abc import Generator

    from conformance.suite.lines import Line
    from conformance.suite.options import Options
    from conformance.suite.session import Session

EVIDENCE = pytest.StashKey[Evidence]()
EXCHANGES = pytest.StashKey[list[Exchange]]()
SHOWN = 3
"""Exchanges before a failure that are shown with it."""


class Recorder:
    """The plugin of one run.

    Args:
        options: The run's options.
        session: The deployment that it looks at.
    """

    def __init__(self, options: Options, session: Session) -> None:
        self.options = options
        self.session = session
        self.records: dict[str, Record] = {}
        self.begun = time.time()
        self._written: list[str] = []

    # -- which lines there are

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Choose lines, put the sections in order, and see that every required line is there.

        Raises:
            pytest.UsageError: A required line does not exist, or was not chosen.
        """
        order = {section.name: number for number, section in enumerate(SECTIONS)}
        lines = {item: line_of(item) for item in items}
        if self.options.only:
            left_out = [item for item in items if not _matches(lines[item], self.options.only)]
            config.hook.pytest_deselected(items=left_out)
            items[:] = [item for item in items if item not in left_out]
        items.sort(key=lambda item: order[found.section] if (found := lines[item]) else -1)
        there = {found.id for item in items if (found := lines[item])}
        missing = [name for name in self.options.require if name not in there]
        if missing:
            raise pytest.UsageError("\n".join(_missing(name, there) for name in missing))

    # -- how each came out

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Add an outcome to its line."""
        outcome = yield
        line = line_of(item)
        if line is None:
            return outcome
        record = self._record(line)
        record.seconds += call.duration
        verdict, reason = _judge(call, outcome)
        record.add(verdict, reason)
        if verdict in (Verdict.FAILED, Verdict.ERROR):
            record.exchanges += item.stash.get(EXCHANGES, [])[-SHOWN:]
        if call.when == "teardown":
            evidence = item.stash.get(EVIDENCE, Evidence())
            record.facts += evidence.facts
            record.stand_ins += evidence.stand_ins
            record.charts += evidence.charts
        if verdict in (Verdict.NOT_SUPPORTED, Verdict.SKIPPED):
            where, number, _ = item.location
            outcome.outcome, outcome.longrepr = "skipped", (where, number or 0, reason)
            if record.required:
                outcome.outcome = "failed"
                outcome.longrepr = f"{line.id} is required, but {verdict.value}: {reason}"
        return outcome

    def _record(self, line: Line) -> Record:
        return self.records.setdefault(
            line.id, Record(line, required=line.id in self.options.require)
        )

    # -- the end

    def pytest_sessionfinish(self) -> None:
        """Write the reports."""
        if not self.records:
            return
        run = report.Run(
            facts=self.session.facts(),
            begun=self.begun,
            seconds=time.time() - self.begun,
            records=list(self.records.values()),
        )
        self._written = [str(path) for path in report.write(run, self.options.report_dir)]

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the report's table, before pytest's own last line."""
        if not self.records:
            return
        terminalreporter.section("conformance")
        for text in report.table(list(self.records.values())):
            terminalreporter.write_line(text)
        for path in self._written:
            terminalreporter.write_line(path)


def _matches(line: Line | None, patterns: tuple[str, ...]) -> bool:
    return line is not None and any(fnmatch.fnmatchcase(line.id, one) for one in patterns)


def _judge(call: pytest.CallInfo[None], outcome: pytest.TestReport) -> tuple[Verdict, str]:
    if call.excinfo is None:
        return Verdict.SUPPORTED, ""
    error = call.excinfo.value
    if isinstance(error, NotSupported):
        return Verdict.NOT_SUPPORTED, str(error)
    if isinstance(error, NotLookedAt):
        return Verdict.SKIPPED, str(error)
    if outcome.outcome == "skipped":
        return Verdict.ERROR, f"skipped without a verdict: {error}"
    reason = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else ""
    reason = reason or str(error) or call.excinfo.exconly()
    if isinstance(error, SuiteError) or call.when != "call":
        return Verdict.ERROR, reason
    return Verdict.FAILED, reason


def _missing(name: str, there: set[str]) -> str:
    near = difflib.get_close_matches(name, there, 1)
    hint = f"; is {near[0]} meant?" if near else ""
    return f"--require: no chosen test has the line {name}{hint}"
