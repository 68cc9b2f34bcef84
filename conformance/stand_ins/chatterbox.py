"""Stands in for Chatterbox TTS Server: its paths and its rules, and a tone instead of a voice.

After `server.py` and `models.py` of github.com/devnen/Chatterbox-TTS-Server. It speaks WAV alone.
Runs as `python3 -c` in any image with Python.
"""

import io
import json
import math
import signal
import struct
import sys
import wave
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PORT = 8004
RATE = 24000
SECONDS_A_CHARACTER = 0.05
INFO = {
    "loaded": True,
    "type": "stand-in",
    "sample_rate": RATE,
    "supported_languages": {"en": "English"},
}
PAGES: dict[str, Any] = {
    "/api/model-info": INFO,
    "/api/ui/initial-data": {"model_info": INFO},
    "/v1/audio/voices": {"status": "ok", "voices": ["Emily.wav"]},
}


def tone(seconds: float) -> bytes:
    """Return a WAV file: mono, 16 bits, 440 Hz."""
    count = int(RATE * seconds)
    samples = (int(8000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(count))
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(struct.pack(f"<{count}h", *samples))
    return file.getvalue()


def speak(body: dict[str, Any]) -> tuple[int, bytes, str]:
    """Answer `POST /tts`: status, body and media type."""
    wrong = ""
    if not isinstance(body.get("text"), str) or not body["text"]:
        wrong = "text: must be a text that is not empty"
    elif body.get("voice_mode") != "predefined":
        wrong = "voice_mode: the stand-in knows no recordings to clone"
    elif body.get("output_format") != "wav":
        wrong = "output_format: the stand-in speaks wav alone"
    if wrong:
        return 400, json.dumps({"detail": wrong}).encode(), "application/json"
    return 200, tone(SECONDS_A_CHARACTER * len(body["text"])), "audio/wav"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """Answer a page."""
        found = PAGES.get(self.path)
        body = json.dumps(found or {"detail": "Not Found"}).encode()
        self._send(200 if found else 404, body, "application/json")

    def do_POST(self) -> None:
        """Speak."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path != "/tts":
            self._send(404, b'{"detail": "Not Found"}', "application/json")
        else:
            self._send(*speak(json.loads(body)))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ThreadingHTTPServer(("", PORT), Handler).serve_forever()
