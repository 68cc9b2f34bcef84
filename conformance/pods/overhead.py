"""Asks a server directly and through the gateway, in turn, and prints how long each answer took.

    overhead.py PLAN

`PLAN` is JSON: `direct` and `through`, each with `url` (HOST:PORT), `path`, `headers` and `body`;
and `rounds`. It prints the seconds of every answer, by way. A connection each, kept throughout.
"""

import http.client
import json
import sys
import time
from typing import Any

WARM = 10
"""Rounds that do not count."""


def ask(connection: http.client.HTTPConnection, way: dict[str, Any]) -> float:
    """Return how long one answer took, in seconds."""
    body = json.dumps(way["body"])
    begun = time.perf_counter()
    connection.request("POST", way["path"], body, way["headers"])
    answer = connection.getresponse()
    text = answer.read()
    taken = time.perf_counter() - begun
    if answer.status != 200:
        sys.exit(f"{way['url']}: {answer.status} {text[:200]!r}")
    return taken


def main(plan: dict[str, Any]) -> dict[str, list[float]]:
    """Ask in turn, each way first as often as last."""
    ways = {name: plan[name] for name in ("direct", "through")}
    open_ = {name: http.client.HTTPConnection(way["url"], timeout=60) for name, way in ways.items()}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(plan["rounds"] + WARM):
        for name in sorted(ways, reverse=bool(number % 2)):
            taken = ask(open_[name], ways[name])
            if number >= WARM:
                found[name].append(taken)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1]))))
