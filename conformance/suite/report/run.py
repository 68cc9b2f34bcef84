"""A run as its reports see it."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.suite.lines import SECTIONS, Verdict

if TYPE_CHECKING:
    from conformance.suite.lines import Record, Section


@dataclass(frozen=True)
class Run:
    """Everything that a report tells.

    Attributes:
        facts: What was looked at, name and value.
        begun: Seconds since the epoch.
        seconds: How long it took.
        records: Its lines.
    """

    facts: list[tuple[str, str]]
    begun: float
    seconds: float
    records: list[Record]

    @property
    def date(self) -> str:
        """When it began, in UTC."""
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.begun))

    @property
    def counts(self) -> Counter[Verdict]:
        """Lines by verdict."""
        return Counter(record.verdict for record in self.records)

    @property
    def good(self) -> bool:
        """Whether nothing failed, and all that is required is supported."""
        return not any(
            record.verdict in (Verdict.FAILED, Verdict.ERROR)
            or (record.required and record.verdict is not Verdict.SUPPORTED)
            for record in self.records
        )

    def sections(self) -> list[tuple[Section, list[Record]]]:
        """The sections that have lines, in the report's order, their lines by id."""
        found = []
        by_id = sorted(self.records, key=lambda record: record.line.id)
        for section in SECTIONS:
            lines = [record for record in by_id if record.line.section == section.name]
            if lines:
                found.append((section, lines))
        return found

    @property
    def stand_ins(self) -> list[str]:
        """What stood in the place of something else, each once."""
        return list(dict.fromkeys(text for record in self.records for text in record.stand_ins))
