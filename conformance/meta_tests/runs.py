"""The suite as a user runs it: pytest on its own, in a process of its own.

The processes are forked from one that has the clients' libraries loaded already, which is most of
what a run of a few lines takes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
KEY = "sk-meta-0123456789"
UNSET = ("KUBECONFIG", "GATEWAY_URL", "PYTEST_ADDOPTS", "SYNAPSE_API_KEY")
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["conformance.suite.gateway", "conformance.suite.plugin"])
SECONDS = 300
"""When a run is given up."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        code: Its exit code.
        text: What it printed.
        folder: Where its reports are.
    """

    code: int | None
    text: str
    folder: Path

    def lines(self) -> dict[str, str]:
        """The tag of each line in the JUnit file; empty where it is supported."""
        root = ET.parse(self.folder / "junit.xml").getroot()  # noqa: S314 - our own file
        found = {}
        for case in root.iter("testcase"):
            tags = [child.tag for child in case if child.tag != "properties"]
            found[case.attrib["name"]] = tags[0] if tags else ""
        return found


def run(folder: Path, *arguments: str) -> Outcome:
    """Run the suite; its reports go to a folder."""
    folder.mkdir(exist_ok=True)
    log = folder / "output"
    # What is loaded already cannot be rewritten, and need not be.
    quiet = ["-q", "-W", "ignore"]
    command = ["conformance", *quiet, f"--report-dir={folder}", *arguments]
    process = PROCESSES.Process(target=_main, args=(log, command))
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
    return Outcome(process.exitcode, log.read_text(encoding="utf-8"), folder)


def _main(log: Path, command: Sequence[str]) -> None:
    with log.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    for name in UNSET:
        os.environ.pop(name, None)
    os.chdir(ROOT)
    sys.exit(pytest.main([*command]))
