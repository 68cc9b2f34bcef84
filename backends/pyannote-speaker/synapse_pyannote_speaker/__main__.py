"""``python -m synapse_pyannote_speaker``: diarization and verification of speakers."""

import argparse
import os
import sys
from collections.abc import Sequence

# Read when NumPy is loaded. The encoder's matrices are small: a second thread gains little, and on
# a busy machine each waits for the other by spinning.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from fastapi import FastAPI

from synapse_serving import AudioLimits, add_options, read_options, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synapse_pyannote_speaker", description=__doc__)
    add_options(parser, port=8092, max_request_mb=200)  # two files
    add = parser.add_argument
    add(
        "--engine",
        choices=["auto", "pyannote", "resemblyzer"],
        default="auto",
        help="auto takes pyannote where its package and weights are there, else resemblyzer",
    )
    add(
        "--pipeline",
        default="pyannote/speaker-diarization-3.1",
        help="pyannote's pipeline: a name in the local Hugging Face cache, or a config.yaml",
    )
    add("--device", default="cpu", help="where pyannote computes: cpu, cuda, cuda:1 ...")
    add("--threshold", type=float, help="likeness of one speaker (default: the engine's own)")
    add("--max-seconds", type=float, default=1800, help="longest audio")
    add("--decode-mb", type=int, default=1024, help="memory to decode an upload")
    add("--decode-seconds", type=int, default=30, help="CPU time to decode one")
    parsed = parser.parse_args(argv)
    options = read_options(parsed)
    limits = AudioLimits(parsed.max_seconds, parsed.decode_mb << 20, parsed.decode_seconds)

    def make() -> FastAPI:
        from .choice import Choice  # noqa: PLC0415 - the libraries must not load before the flags
        from .server import make_app  # noqa: PLC0415 - see above

        choice = Choice(parsed.engine, parsed.pipeline, parsed.device, options.threads)
        return make_app(choice, parsed.threshold, options, limits)

    return run("synapse_pyannote_speaker", options, make)


if __name__ == "__main__":
    sys.exit(main())
