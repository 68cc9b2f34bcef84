"""Compare the layers of two images, each an OCI image layout with uncompressed layers.

    python3 compare_layers.py LAYOUT LAYOUT

Prints one line a layer, and below a layer that differs its files with what differs about each.
Exit code 1 if a layer differs. Layouts follow the OCI image specification 1.1, image-layout.md.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LISTED = 50


@dataclass(frozen=True, slots=True)
class Entry:
    """What two files of one path may differ in."""

    content: str
    mode: int
    owner: tuple[int, int]
    time: float
    kind: bytes
    link: str


def blob(layout: Path, digest: str) -> Path:
    """Path of a blob."""
    return layout / "blobs" / digest.replace(":", "/")


def layers(layout: Path) -> list[str]:
    """Digests of an image's layers, the lowest first."""

    def load(path: Path) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return document

    (first,) = load(layout / "index.json")["manifests"]
    manifest = load(blob(layout, first["digest"]))
    return [layer["digest"] for layer in manifest["layers"]]


def entries(path: Path) -> dict[str, Entry]:
    """Every file of a layer by its path."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            data = archive.extractfile(member) if member.isreg() else None
            content = hashlib.sha256(data.read()).hexdigest() if data else ""
            owner = (member.uid, member.gid)
            found[member.name] = Entry(
                content, member.mode, owner, member.mtime, member.type, member.linkname
            )
    return found


def differences(one: dict[str, Entry], other: dict[str, Entry]) -> list[str]:
    """A line for every path that is not the same in both layers."""
    lines = []
    for name in sorted(one.keys() | other.keys()):
        if name not in one or name not in other:
            lines.append(f"{name}: only in the {'second' if name not in one else 'first'}")
            continue
        first, second = asdict(one[name]), asdict(other[name])
        fields = [field for field in first if first[field] != second[field]]
        if fields:
            lines.append(f"{name}: {', '.join(fields)}")
    return lines


def compare(one: Path, other: Path) -> tuple[bool, list[str]]:
    """Whether all layers are the same, and the lines that say so."""
    first, second = layers(one), layers(other)
    if len(first) != len(second):
        return False, [f"{len(first)} layers and {len(second)} layers"]
    lines = []
    for number, (left, right) in enumerate(zip(first, second, strict=True), start=1):
        if left == right:
            lines.append(f"layer {number}: the same, {left}")
            continue
        found = differences(entries(blob(one, left)), entries(blob(other, right)))
        lines.append(f"layer {number}: {len(found) or 'no'} files differ")
        lines += [f"  {line}" for line in found[:LISTED] or ["the order of the files does"]]
        if len(found) > LISTED:
            lines.append(f"  and {len(found) - LISTED} more")
    return first == second, lines


def main(arguments: list[str]) -> int:
    """Print the comparison; returns the exit code."""
    if len(arguments) != 2:
        sys.stderr.write("usage: compare_layers.py LAYOUT LAYOUT\n")
        return 2
    same, lines = compare(Path(arguments[0]), Path(arguments[1]))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
