"""What downloads have done so far: lines for the log, and JSON for whoever asks over HTTP.

Environment: BACKEND (whose models they are), PROGRESS_PORT (unset: nobody can ask). GET / gives
{"backend": NAME, "downloads": {MODEL: {"state", "completed", "total", "detail"}}}; `state` is
`waiting`, `downloading`, `done` or `failed`, `completed` and `total` are bytes.
"""

import http.server
import json
import os
import sys
import threading
import time
from typing import Any

LINE_SECONDS = 5.0


def say(line: str) -> None:
    """One line for the log, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def complain(line: str) -> None:
    """One line for the log that somebody should act on."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


class Progress:
    """What every download has done; read by another thread while it changes."""

    def __init__(self, models: list[str]) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, dict[str, Any]] = {name: {"state": "waiting"} for name in models}
        self._said: dict[str, float] = {}

    def note(self, model: str, state: str, detail: str = "") -> None:
        """A model waits, is done, or has failed."""
        with self._lock:
            self._models[model] = {"state": state} | ({"detail": detail} if detail else {})

    def moved(self, model: str, completed: int, total: int | None) -> None:
        """A download has so many bytes; logged at most once in five seconds."""
        with self._lock:
            entry: dict[str, Any] = {"state": "downloading", "completed": completed}
            if total:
                entry["total"] = total
            self._models[model] = entry
        now = time.monotonic()
        if now - self._said.setdefault(model, now) > LINE_SECONDS:
            self._said[model] = now
            share = f" of {total} ({100 * completed // total} %)" if total else ""
            say(f"{model}: {completed} bytes{share}")

    def text(self) -> bytes:
        """All of it as JSON."""
        with self._lock:
            return json.dumps(
                {"backend": os.environ.get("BACKEND", ""), "downloads": self._models}
            ).encode()

    def serve(self) -> None:
        """Answer on PROGRESS_PORT, in the background, until the process ends."""
        port = os.environ.get("PROGRESS_PORT")
        if not port:
            return
        progress = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = progress.text()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("", int(port)), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
