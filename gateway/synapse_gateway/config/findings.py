"""What is wrong or doubtful in a configuration: collected, so that a file is told off once."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

Path: TypeAlias = tuple[str | int, ...]
"""Way from the root of a configuration to a value: keys and list indices."""

_BARE = re.compile(r"[A-Za-z_][\w-]*")


def render(path: Path) -> str:
    """Write a path as people do: `models.llama3.targets[1].order`, `models["a:b"].aliases`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _BARE.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += '["' + step.replace('"', '\\"') + '"]'
    return text


class Place(msgspec.Struct, frozen=True):
    """Where a value was written."""

    file: str
    line: int
    """From 1; 0 where there are no lines, as in an environment variable."""
    path: Path = ()

    def at(self, line: int, *steps: str | int) -> Place:
        """Return the place of a part of the value."""
        return Place(self.file, line, (*self.path, *steps))


class Finding(msgspec.Struct, frozen=True):
    """One sentence about one value; `str()` gives `file:line: path: message`."""

    place: Place
    message: str

    def __str__(self) -> str:
        where = f"{self.place.file}:{self.place.line}" if self.place.line else self.place.file
        path = render(self.place.path)
        return f"{where}: {path}: {self.message}" if path else f"{where}: {self.message}"


class Findings:
    """Collects errors and warnings in the order of the lines that they are about."""

    def __init__(self) -> None:
        self._errors: list[Finding] = []
        self._warnings: list[Finding] = []

    def error(self, place: Place, message: str) -> None:
        """Note something that makes the configuration unusable."""
        self._errors.append(Finding(place, message))

    def warn(self, place: Place, message: str) -> None:
        """Note something that works, but hardly as it was meant."""
        self._warnings.append(Finding(place, message))

    def told(self, place: Place) -> bool:
        """Say whether an error was noted of exactly this value."""
        return any(error.place == place for error in self._errors)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The warnings so far, by file and line."""
        return tuple(sorted(self._warnings, key=_position))

    def raise_errors(self) -> None:
        """Do nothing, unless there are errors.

        Raises:
            ConfigError: With a line for each.
        """
        if self._errors:
            errors = dict.fromkeys(map(str, sorted(self._errors, key=_position)))
            raise ConfigError("\n".join(errors))


def _position(finding: Finding) -> tuple[str, int]:
    return finding.place.file, finding.place.line


def suggest(name: str, known: Iterable[str], *, most: int = 0) -> str:
    """Return words that name the nearest known name, or else all that there are.

    Args:
        name: What was written.
        known: What could have been meant.
        most: Up to so many names, all of them are given beside the nearest.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    all_of_them = f"there are: {', '.join(names)}" if names else "there are none"
    if not near:
        return all_of_them
    hint = f"did you mean {near[0]!r}?"
    return f"{hint} ({all_of_them})" if len(names) <= most else hint
