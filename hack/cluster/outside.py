"""What the host outside of the cluster serves: it says who called, over HTTP on several ports."""

from __future__ import annotations

import http.server
import json
import threading

PORTS = (80, 443, 8080)


class Caller(http.server.BaseHTTPRequestHandler):
    """Answers every request with its path and the caller's address."""

    def do_GET(self) -> None:
        """Answer."""
        body = json.dumps({"host": "outside", "caller": self.client_address[0], "path": self.path})
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


def main() -> None:
    """Serve for ever."""
    servers = [http.server.ThreadingHTTPServer(("", port), Caller) for port in PORTS]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
