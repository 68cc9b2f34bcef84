"""``python -m synapse_whisper_stt``: a Whisper model behind OpenAI's transcription API."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fastapi import FastAPI

from synapse_serving import AudioLimits, add_options, read_options, run


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="synapse_whisper_stt", description=__doc__)
    add_options(parser, port=8091)
    parser.add_argument("--model", default="tiny.en", help="'tiny.en', or a model's directory")
    parser.add_argument("--beam", type=int, default=1, help="beam width, 1 is greedy")
    parser.add_argument("--no-vad", action="store_true", help="do not skip silence")
    parser.add_argument("--max-seconds", type=float, default=1800, help="longest audio")
    parser.add_argument("--decode-mb", type=int, default=1024, help="memory to decode an upload")
    parser.add_argument("--decode-seconds", type=int, default=30, help="CPU time to decode one")
    parsed = parser.parse_args(argv)
    options = read_options(parsed)
    limits = AudioLimits(parsed.max_seconds, parsed.decode_mb << 20, parsed.decode_seconds)

    def make() -> FastAPI:
        from .recognizer import find_model  # noqa: PLC0415 - not before the network is forbidden
        from .server import Settings, make_app  # noqa: PLC0415 - see above

        path = find_model(parsed.model)
        name = Path(parsed.model).name
        settings = Settings(path, name, parsed.beam, not parsed.no_vad, limits)
        return make_app(settings, options)

    return run("synapse_whisper_stt", options, make)


if __name__ == "__main__":
    sys.exit(main())
