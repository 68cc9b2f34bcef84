"""``python -m synapse_openvoice``: speech in the voice of reference recordings."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from synapse_serving import AudioLimits, add_options, read_options, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synapse_openvoice", description=__doc__)
    add_options(parser, port=8094, max_request_mb=510)  # ten references of 50 MB
    add = parser.add_argument
    folder = Path("/cache/checkpoints_v2")
    add("--checkpoints", type=Path, default=folder, help="OpenVoice's published folder")
    add("--languages", default="en", help="codes of the languages to load, with commas between")
    add("--device", default="cpu", help="where it computes: cpu, cuda, cuda:1 ...")
    add("--max-characters", type=int, default=5000, help="longest text")
    add("--max-voices", type=int, default=256, help="voices of references that are cached")
    add(
        "--max-seconds", type=float, default=7200, help="longest reference; its first minute counts"
    )
    add("--decode-mb", type=int, default=1024, help="memory to decode an upload")
    add("--decode-seconds", type=int, default=30, help="CPU time to decode one")
    parsed = parser.parse_args(argv)
    options = read_options(parsed)
    codes = [code.strip() for code in parsed.languages.split(",") if code.strip()]

    def make() -> FastAPI:
        from .openvoice_engine import LANGUAGES, OpenVoiceEngine  # noqa: PLC0415 - see run
        from .server import Bounds, make_app  # noqa: PLC0415 - see run

        if unknown := [code for code in codes if code not in LANGUAGES]:
            parser.error(f"--languages: {unknown[0]} is not one of {', '.join(LANGUAGES)}")
        bounds = Bounds(
            parsed.max_characters,
            parsed.max_voices,
            AudioLimits(parsed.max_seconds, parsed.decode_mb << 20, parsed.decode_seconds),
        )

        def load() -> OpenVoiceEngine:
            return OpenVoiceEngine(parsed.checkpoints, codes, parsed.device)

        return make_app(load, options, bounds)

    return run("synapse_openvoice", options, make)


if __name__ == "__main__":
    sys.exit(main())
