"""The Python that the gateway is measured on: the distribution's, as in the gateway's image.

One that was built on the spot may be without the compiler's optimisations, which a distribution's
has, and then the figures would be of the build.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.bench.processes import apt_install, can_apt_install

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
DISTRIBUTION = "/usr/bin/python3"
OLDEST, NEWEST = (3, 11), (3, 13)


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """A Python that has the gateway's packages.

    Attributes:
        path: The executable.
        name: What the report calls it.
    """

    path: str
    name: str


def own() -> Interpreter:
    """Return the one that runs this."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Interpreter(path=sys.executable, name=f"Python {version} of this virtual environment")


def for_gateway(say: Callable[[str], None]) -> Interpreter:
    """Return the distribution's Python with the packages of locks/gateway.txt; this one where the
    distribution has none that will do.
    """
    if can_apt_install() and not _makes_environments(DISTRIBUTION):
        say("installing python3-venv with apt-get")
        apt_install(["python3-venv"])
    version = version_of(DISTRIBUTION)
    if not OLDEST <= version[:2] <= NEWEST or not _makes_environments(DISTRIBUTION):
        return own()
    venv = Path(sys.prefix) / "bench"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, str(ROOT / "hack" / "install.py"), "gateway"],
        env={**os.environ, "VENV": str(venv), "PYTHON": DISTRIBUTION},
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        say("the gateway's packages could not be installed for it: this Python is measured")
        return own()
    name = f"the distribution's Python {'.'.join(map(str, version))}"
    return Interpreter(path=str(venv / "bin" / "python"), name=name)


def version_of(python: str) -> tuple[int, ...]:
    """Return major, minor and micro version of an interpreter; nothing if it does not run."""
    code = "import platform; print(platform.python_version())"
    found = _output(python, code)
    numbers = found.strip().split(".")
    return tuple(map(int, numbers)) if all(part.isdecimal() for part in numbers) else ()


def _makes_environments(python: str) -> bool:
    return _output(python, "import ensurepip, venv; print(True)").strip() == "True"


def _output(python: str, code: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - an interpreter that the caller names
            [python, "-I", "-c", code], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout
