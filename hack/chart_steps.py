"""Write what each step from one phase to the next adds, changes and removes.

    python hack/chart_steps.py          writes charts/synapse/tests/phase-steps/
    python hack/chart_steps.py --check  exit code 1 if one of them differs

The files are reviewed: a step that touches more than it says is a step that somebody would notice.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from hack.chart_render import CHART, ROOT, Manifest, manifests, name_of

STEPS = CHART / "tests" / "phase-steps"


def objects_of(phase: int) -> dict[str, Manifest]:
    """Objects of a phase by name; a Job's hash is dropped, as its name follows from its content."""
    found = {}
    for manifest in manifests(ROOT / "values" / f"phase{phase}.yaml"):
        name = name_of(manifest)
        if manifest["kind"] == "Job":
            name = name.rpartition("-")[0] + "-HASH"
        found[name] = manifest
    return found


def differences(before: object, after: object, path: str = "") -> list[str]:
    """Paths of the fields that differ, short of what a person would read as one change."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for key in sorted({*before, *after}):
            found += differences(before.get(key), after.get(key), f"{path}.{key}")
        return found
    return [path.lstrip(".")]


def step(before: dict[str, Manifest], after: dict[str, Manifest]) -> str:
    """The reviewed text of one step."""
    lines = ["added:", *(f"  {name}" for name in sorted({*after} - {*before}))]
    lines += ["removed:", *(f"  {name}" for name in sorted({*before} - {*after}))]
    lines.append("changed:")
    for name in sorted({*before} & {*after}):
        fields = differences(before[name], after[name])
        if fields:
            lines.append(f"  {name}: {', '.join(fields)}")
    return "\n".join(lines) + "\n"


def texts() -> dict[Path, str]:
    """Every step's file with the text that it should have."""
    phases = {number: objects_of(number) for number in range(1, 7)}
    return {
        STEPS / f"phase{number}-to-phase{number + 1}.txt": step(phases[number], phases[number + 1])
        for number in range(1, 6)
    }


def main() -> int:
    """Write or check the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    stale = [p for p, text in texts().items() if not p.is_file() or p.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run make chart\n")
        else:
            path.parent.mkdir(exist_ok=True)
            path.write_text(texts()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
