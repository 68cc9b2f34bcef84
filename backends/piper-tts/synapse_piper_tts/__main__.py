"""``python -m synapse_piper_tts``: a Piper voice behind OpenAI's speech API."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from synapse_serving import add_options, read_options, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synapse_piper_tts", description=__doc__)
    # A text is some kilobytes.
    add_options(parser, port=8090, max_request_mb=1)
    parser.add_argument("--voice", default="joe", help="'joe', or the path of a .onnx voice")
    parser.add_argument("--max-characters", type=int, default=5000, help="longest text")
    parsed = parser.parse_args(argv)
    options = read_options(parsed)

    def make() -> FastAPI:
        from .server import make_app  # noqa: PLC0415 - the libraries must not load before the flags
        from .voice import find_voice  # noqa: PLC0415 - see above

        path = find_voice(parsed.voice)
        name = Path(parsed.voice).stem
        return make_app(path, name, options, parsed.max_characters)

    return run("synapse_piper_tts", options, make)


if __name__ == "__main__":
    sys.exit(main())
