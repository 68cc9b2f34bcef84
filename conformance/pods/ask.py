"""Asks servers the requests of standard input, and prints what they say: JSON in, JSON out."""

import json
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

AT_ONCE = 6


def ask(request: dict[str, Any]) -> dict[str, str]:
    """Send one request; its answer's text and who gave it, or why there is none."""
    body = json.dumps(request["body"]).encode()
    headers = {"content-type": "application/json", **request.get("headers", {})}
    asked = urllib.request.Request(request["url"], body, headers)  # noqa: S310 - of the plan
    try:
        with urllib.request.urlopen(asked, timeout=120) as answer:  # noqa: S310
            text = answer.read().decode(errors="replace")
            return {"text": text, "backend": answer.headers.get("x-synapse-backend", "")}
    except (OSError, urllib.error.URLError) as error:
        return {"error": str(error)}


if __name__ == "__main__":
    # Several at a time, so that an answer that depends on its neighbours is seen to.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sys.stdout.write(json.dumps(list(pool.map(ask, json.loads(sys.argv[1])))))
