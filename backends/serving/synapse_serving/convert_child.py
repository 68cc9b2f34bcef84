"""Converts one untrusted audio file in a process that can do nothing else.

Run by :mod:`synapse_serving.audio_convert`, never imported by it. The file comes as standard input;
standard output is a file, so that an encoder can go back and write how long its sound is. The last
line of standard error is one JSON object: ``{"seconds", "rate", "channels"}``, or ``{"error",
"status"}``. The limits are those of ``decode_child``, and the size of the output.
"""

import argparse
import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from decode_child import (  # type: ignore[import-not-found]
    LAYOUTS,
    Decoder,
    RefusedError,
    limit_process,
    open_whole,
    report_of,
)


def nearest(rate: int, rates: list[int]) -> int:
    """The rate that loses nothing of ``rate`` and adds least, or the highest there is."""
    return min((one for one in rates if one >= rate), default=max(rates))


def convert(source: Any, sink: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Convert ``source`` into ``sink``; what it has become.

    Raises:
        RefusedError: When the file is not whole, sound audio within the limits.
    """
    import av  # noqa: PLC0415 - the limits must hold before FFmpeg is loaded

    container, stream, promised, _ = open_whole(source, options.max_seconds)
    rate = nearest(stream.rate, options.rates)
    # Closed only when all went well: closing what could not be written hides why.
    made = av.open(sink, "w", format=options.container)
    target: Any = made.add_stream(options.codec, rate=rate)
    kept = stream.channels <= options.max_channels
    target.layout = LAYOUTS[stream.channels if kept else 2]
    target.format = options.sample_format
    if options.bit_rate:
        target.bit_rate = options.bit_rate
    resampler = av.AudioResampler(format=target.format, layout=target.layout, rate=rate)
    decoder = Decoder(resampler, rate, options.max_seconds)
    position = 0
    for frame in decoder.frames(container, stream):
        frame.pts = position  # gaps and jumps in the file's own times are no part of the sound
        position += frame.samples
        made.mux(target.encode(frame))
    decoder.check_is_whole(promised)
    made.mux(target.encode(None))
    made.close()
    return {"seconds": position / rate, "rate": rate, "channels": target.channels}


def main() -> int:
    """Convert standard input to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--container", required=True)
    parser.add_argument("--codec", required=True)
    parser.add_argument("--sample-format", required=True)
    parser.add_argument("--rates", type=lambda text: [*map(int, text.split(","))], required=True)
    parser.add_argument("--bit-rate", type=int, default=0)
    parser.add_argument("--max-channels", type=int, required=True)
    parser.add_argument("--max-seconds", type=float, required=True)
    parser.add_argument("--max-bytes", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--cpu-seconds", type=int, required=True)
    options = parser.parse_args()
    limit_process(options.memory, options.cpu_seconds, options.max_bytes)

    def work() -> dict[str, Any]:
        source, sink = os.fdopen(0, "rb"), os.fdopen(1, "w+b")
        try:
            report = convert(source, sink, options)
            sink.flush()
        except OSError as error:
            if error.errno not in {errno.EFBIG, errno.ENOSPC}:
                raise
            raise RefusedError("the converted file would be too large", 413) from error
        return report

    report = report_of(work)
    sys.stderr.write(json.dumps(report) + "\n")
    sys.stderr.flush()
    # Without closing the files: what did not fit would not fit again.
    os._exit(1 if "error" in report else 0)


if __name__ == "__main__":
    main()
