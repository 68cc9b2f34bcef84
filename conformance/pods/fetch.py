"""Gets the URLs that are named, and prints what they answer: a JSON list of texts."""

import json
import sys
import urllib.error
import urllib.request


def fetch(url: str) -> str:
    """Return the body, empty where there is no answer."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - of the suite
            body: bytes = answer.read()
            return body.decode()
    except (OSError, urllib.error.URLError):
        return ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps([fetch(url) for url in sys.argv[1:]]))
