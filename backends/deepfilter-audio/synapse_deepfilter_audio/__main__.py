"""``python -m synapse_deepfilter_audio``: noise removal and conversion of recordings."""

import argparse
import sys
from collections.abc import Sequence

from fastapi import FastAPI

from synapse_serving import AudioLimits, add_options, read_options, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synapse_deepfilter_audio", description=__doc__)
    add_options(parser, port=8093)
    parser.add_argument("--max-seconds", type=float, default=1800, help="longest audio")
    parser.add_argument("--decode-mb", type=int, default=1024, help="memory to decode an upload")
    parser.add_argument("--decode-seconds", type=int, default=60, help="CPU time to decode one")
    parser.add_argument("--max-output-mb", type=int, default=512, help="largest converted file")
    parsed = parser.parse_args(argv)
    options = read_options(parsed)
    limits = AudioLimits(parsed.max_seconds, parsed.decode_mb << 20, parsed.decode_seconds)

    def make() -> FastAPI:
        from .server import make_app  # noqa: PLC0415 - the libraries must not load before the flags

        return make_app(options, limits, parsed.max_output_mb * 1_000_000)

    return run("synapse_deepfilter_audio", options, make)


if __name__ == "__main__":
    sys.exit(main())
