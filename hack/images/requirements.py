"""Print the entries of a lock that one image installs, for `pip install --require-hashes`.

    python3 requirements.py LOCK NAMES        entries of the packages that the file NAMES lists
    python3 requirements.py LOCK --not NAMES  entries of all others

NAMES has one package a line; `#` begins a comment. Nothing is resolved here: versions and hashes
are the lock's, so an image never holds what the tests did not run with.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

EMPTY = "names no package"


def entries(lock: str) -> dict[str, str]:
    """Entries of a lock by package name, each with its hashes."""
    found = {}
    for block in re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE):
        match = re.match(r"[A-Za-z0-9._-]+", block)
        if match:
            found[match[0].lower()] = block
    return found


def names(text: str) -> list[str]:
    """Package names of a list."""
    lines = (line.split("#", maxsplit=1)[0].strip() for line in text.splitlines())
    return [line.lower() for line in lines if line]


def select(lock: str, wanted: list[str], *, invert: bool = False) -> str:
    """The entries of ``wanted``, or of all others.

    Raises:
        ValueError: A name is not in the lock, or there is none.
    """
    known = entries(lock)
    if not wanted:
        raise ValueError(EMPTY)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise ValueError(f"not in the lock: {', '.join(unknown)}")
    chosen = [name for name in known if (name in wanted) is not invert]
    return "".join(known[name] for name in chosen)


def main(arguments: list[str]) -> int:
    """Print the selection; returns the exit code."""
    invert = "--not" in arguments
    files = [one for one in arguments if one != "--not"]
    if len(files) != 2:
        sys.stderr.write("usage: requirements.py LOCK [--not] NAMES\n")
        return 2
    lock, listed = (Path(one).read_text(encoding="utf-8") for one in files)
    try:
        sys.stdout.write(select(lock, names(listed), invert=invert))
    except ValueError as error:
        sys.stderr.write(f"{files[1]}: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
