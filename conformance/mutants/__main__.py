"""Makes each defect in a live release, and sees that its line catches it.

    KUBECONFIG=... python -m conformance.mutants [NAME ...]

It breaks the release on purpose, one defect at a time, and puts it back after each. Exit code 1 if
a defect was not caught, or if the release is not as it was before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

from conformance.mutants.bench import Bench
from conformance.mutants.defects import DEFECTS, Defect
from conformance.suite.lines import SuiteError
from conformance.suite.options import Options
from conformance.suite.session import Session
from synapse_gateway.decommission.errors import KubeError

ROOT = Path(__file__).resolve().parents[2]
TRAFFIC = "6x6"
"""Enough to meet the defect, and no more: many runs follow each other."""
SECONDS = 400


class Result(NamedTuple):
    """What a line said of a defect."""

    verdict: str
    reason: str
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether the line has failed by what it is about."""
        return self.verdict == "failed"


def judge(options: Options, lines: list[str], folder: Path) -> dict[str, tuple[str, str]]:
    """Run lines of the suite, and return verdict and reason of each."""
    folder.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "pytest", "conformance", "-q", "--disruptive"]
    words += [f"--traffic={TRAFFIC}", f"--report-dir={folder}", f"--namespace={options.namespace}"]
    words += [f"--kubeconfig={options.kubeconfig}", *(f"--only={name}" for name in lines)]
    required = folder / "require.txt"
    required.write_text("\n".join(lines) + "\n", encoding="utf-8")
    words += [f"--require={required}"]
    with (folder / "output").open("w", encoding="utf-8") as output:
        subprocess.run(  # noqa: S603 - the suite
            words, cwd=ROOT, stdout=output, stderr=output, timeout=SECONDS, check=False
        )
    found: dict[str, tuple[str, str]] = {}
    if not (folder / "junit.xml").is_file():
        return found
    root = ET.parse(folder / "junit.xml").getroot()  # noqa: S314 - our own file
    for case in root.iter("testcase"):
        tags = {child.tag: child.get("message") or "" for child in case}
        kind = next((tag for tag in ("failure", "error", "skipped") if tag in tags), "")
        verdict = {"failure": "failed", "": "supported"}.get(kind, kind)
        found[case.attrib["name"]] = (verdict, tags.get(kind, ""))
    return found


def try_out(deployment: Session, defect: Defect, folder: Path) -> Result:
    """Make a defect, have its line look, and put everything back."""
    begun = time.monotonic()
    try:
        with Bench(deployment) as bench:
            defect.make(bench)
            verdicts = judge(deployment.options, [defect.line], folder)
        verdict, reason = verdicts.get(defect.line, ("not there", f"see {folder / 'output'}"))
    except (AssertionError, SuiteError, KubeError, subprocess.TimeoutExpired) as error:
        verdict, reason = "not made, or not undone", str(error)
    return Result(verdict, reason, time.monotonic() - begun)


def main() -> int:
    """Try every defect, or those that are named."""
    parser = argparse.ArgumentParser(prog="conformance.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="defects; all if none is named")
    parser.add_argument("--kubeconfig", default=os.environ.get("KUBECONFIG", ""))
    parser.add_argument("--namespace", default="llm-infra")
    parser.add_argument("--report-dir", type=Path, default=Path("build/conformance-mutants"))
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {defect.name for defect in DEFECTS}
    if unknown:
        parser.error(f"there is no defect {', '.join(sorted(unknown))}")
    chosen = [one for one in DEFECTS if not arguments.names or one.name in arguments.names]
    options = Options(
        gateway_url="",
        api_key="",
        kubeconfig=arguments.kubeconfig,
        context="",
        namespace=arguments.namespace,
        require=(),
        only=(),
        report_dir=arguments.report_dir,
        disruptive=True,
        streams=1,
        rate=1.0,
        allow_empty=False,
    )
    deployment = Session(options)
    try:
        return report(deployment, chosen, arguments.report_dir)
    finally:
        deployment.close()


def report(deployment: Session, chosen: list[Defect], folder: Path) -> int:
    """Try defects, print and write the table, and return the exit code."""
    rows = ["| defect | line | caught |", "| --- | --- | --- |"]
    missed = []
    for defect in chosen:
        result = try_out(deployment, defect, folder / defect.name)
        said = result.reason.splitlines()[0][:150] if result.reason else ""
        word = "yes" if result.caught else f"no: {result.verdict}"
        sys.stdout.write(
            f"{defect.name:28} {word:10} {result.seconds:5.0f} s  {defect.line}: {said}\n"
        )
        sys.stdout.flush()
        rows.append(f"| {defect.about} | `{defect.line}` | {word}: {said} |")
        if not result.caught:
            missed.append(defect.name)
    lines = sorted({defect.line for defect in chosen})
    after = judge(deployment.options, lines, folder / "afterwards")
    broken = {name: after.get(name, ("not there", "")) for name in lines}
    broken = {name: found for name, found in broken.items() if found[0] != "supported"}
    (folder / "report.md").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for name, (verdict, reason) in broken.items():
        sys.stdout.write(f"afterwards {name} is {verdict}: {reason}\n")
    sys.stdout.write(
        f"{len(chosen) - len(missed)} of {len(chosen)} defects caught; afterwards "
        f"{len(lines) - len(broken)} of {len(lines)} lines supported\n"
    )
    return 1 if missed or broken else 0


if __name__ == "__main__":
    sys.exit(main())
