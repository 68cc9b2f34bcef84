"""JUnit's XML, as CI servers read it: one test case a line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from conformance.suite.lines import Verdict

if TYPE_CHECKING:
    from conformance.suite.lines import Record
    from conformance.suite.report.run import Run

TAGS = {
    Verdict.FAILED: "failure",
    Verdict.ERROR: "error",
    Verdict.NOT_SUPPORTED: "skipped",
    Verdict.SKIPPED: "skipped",
}
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(run: Run) -> str:
    """Return the document."""
    root = ET.Element("testsuites", name="conformance", time=f"{run.seconds:.3f}")
    for section, records in run.sections():
        tags = [_tag(record) for record in records]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=section.title,
            tests=str(len(records)),
            failures=str(tags.count("failure")),
            errors=str(tags.count("error")),
            skipped=str(tags.count("skipped")),
            time=f"{sum(record.seconds for record in records):.3f}",
        )
        for record in records:
            suite.append(_case(record))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _tag(record: Record) -> str:
    tag = TAGS.get(record.verdict, "")
    return "failure" if record.required and tag == "skipped" else tag


def _case(record: Record) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=f"conformance.{record.line.section}",
        name=record.line.id,
        time=f"{record.seconds:.3f}",
    )
    if record.facts:
        properties = ET.SubElement(case, "properties")
        for name, value in record.facts:
            ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    tag = _tag(record)
    if tag:
        message = f"{record.verdict.value}: {record.reason}".splitlines()[0]
        ET.SubElement(case, tag, message=_clean(message)).text = _clean(record.reason)
    return case


def _clean(text: str) -> str:
    return NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
