"""``python -m monitoring.dashboards`` writes dist/*.json; ``--check`` fails where they differ."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import backend, gpu, model, ollama, overview, vllm
from .grafana import render

DIST = Path(__file__).resolve().parent / "dist"
PAGES = (overview.PAGE, model.PAGE, backend.PAGE, gpu.PAGE, ollama.PAGE, vllm.PAGE)


def rendered() -> dict[Path, str]:
    """The files that belong into dist/, with their content."""
    return {DIST / f"{page.uid}.json": render(page) for page in PAGES}


def main() -> int:
    """Run the command line; 1 says that dist/ is not what the builders make."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check = parser.parse_args().check
    files = rendered()
    DIST.mkdir(exist_ok=True)
    for stray in set(DIST.glob("*.json")) - set(files):
        sys.stdout.write(f"{stray.name}: no page makes it\n")
        return 1
    for path, text in files.items():
        if check and (not path.exists() or path.read_text() != text):
            sys.stdout.write(f"{path.name}: run 'python -m monitoring.dashboards'\n")
            return 1
        if not check:
            path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
