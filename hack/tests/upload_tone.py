"""Run inside a container: sends a second of a tone to the server there, and prints the statuses.

Arguments are paths. It needs nothing but Python, which is all that an image has.
"""

from __future__ import annotations

import io
import math
import sys
import time
import urllib.error
import urllib.request
import wave
from array import array

URL = "http://127.0.0.1:8000"
PATIENCE = 120  # seconds


def status(path: str, body: bytes | None = None) -> int:
    """What the server answers; 0 if it does not."""
    kind = {"content-type": "multipart/form-data; boundary=b"}
    try:
        request = urllib.request.Request(URL + path, body, kind)  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def tone() -> bytes:
    """A WAV file."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        samples = array("h", (int(9000 * math.sin(n / 6)) for n in range(16_000)))
        file.writeframes(samples.tobytes())
    return out.getvalue()


def form() -> bytes:
    """A form with that file; who does not know the other field ignores it."""
    disposition = 'Content-Disposition: form-data; name="{}"\r\n\r\n'
    parts = [
        "--b\r\n" + disposition.format("output_format") + "mp3\r\n",
        "--b\r\n" + disposition.format('file"; filename="a.wav'),
    ]
    return "".join(parts).encode() + tone() + b"\r\n--b--\r\n"


deadline = time.monotonic() + PATIENCE
while status("/readyz") != 200 and time.monotonic() < deadline:
    time.sleep(0.2)
print([status(path, form()) for path in sys.argv[1:]])  # noqa: T201 - its result
