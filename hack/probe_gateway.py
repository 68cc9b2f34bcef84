"""Ask the gateway of this pod: health, an embedding, or speech. Run inside its container.

Arguments: the verb, then the model and the voice, where `-` takes the first that fits. Sends the
first key of the pod. Exit code 1 with the gateway's own words when it does not answer as it should.
"""

import json
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

BASE = "http://127.0.0.1:8000"
KEYS = Path("/etc/synapse/keys")
CONFIG = Path("/config/backends.yaml")


class ProbeError(Exception):
    """The gateway did not answer as it should."""


def ask(path: str, body: dict[str, Any] | None = None) -> tuple[bytes, dict[str, str]]:
    """One request with the pod's key; returns the body and the headers (names in lower case).

    Raises:
        ProbeError: On a status of 400 or more other than the 503 of an unhealthy /health.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data)  # noqa: S310 - this pod
    request.add_header("Content-Type", "application/json")
    keys = sorted(one for one in KEYS.glob("*") if one.is_file()) if KEYS.is_dir() else []
    if keys:
        request.add_header("Authorization", f"Bearer {keys[0].read_text().strip()}")
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return answer.read(), {name.lower(): text for name, text in answer.headers.items()}
    except urllib.error.HTTPError as error:
        text = error.read()
        if path == "/health":
            return text, {}
        raise ProbeError(f"{path}: {error.code} {text.decode(errors='replace')[:500]}") from error
    except OSError as error:
        raise ProbeError(f"{path}: {error}") from error


def first_model(service: str) -> str:
    """The first model of the mounted route table with a service."""
    name = None
    inside = False
    for line in CONFIG.read_text().splitlines():
        if not line.startswith(" "):
            inside = line.startswith("models:")
        elif inside and line.startswith("  ") and line[2] not in " -":
            name = line.strip().rstrip(":").strip("'\"")
        elif inside and line.strip() == f"service: {service}" and name:
            return name
    raise ProbeError(f"the route table has no model for {service}")


def health() -> None:
    """Print the state of every backend."""
    report = json.loads(ask("/health")[0])
    sys.stdout.write(f"gateway: {report['status']}\n")
    for name, backend in sorted(report.get("backends", {}).items()):
        sys.stdout.write(f"  {name}: {backend.get('status', '?')}\n")
    if report["status"] == "unhealthy":
        raise ProbeError("no backend can serve")


def embed(model: str) -> None:
    """Print the size of an embedding."""
    started = time.monotonic()
    body, headers = ask("/v1/embeddings", {"model": model, "input": "hello"})
    vector = json.loads(body)["data"][0]["embedding"]
    took = 1000 * (time.monotonic() - started)
    backend = headers.get("x-synapse-backend", "?")
    sys.stdout.write(f"embedding {model} by {backend}: {len(vector)} dimensions, {took:.0f} ms\n")


def speak(model: str, voice: str) -> None:
    """Print the size of a spoken sentence."""
    request = {"model": model, "input": "Hello from Synapse.", "response_format": "wav"}
    body, headers = ask("/v1/audio/speech", request | {"voice": voice})
    if len(body) < 1000:
        raise ProbeError(f"{model}: {len(body)} bytes are no speech")
    backend = headers.get("x-synapse-backend", "?")
    sys.stdout.write(f"speech {model} by {backend}: {len(body)} bytes\n")


def main() -> int:
    """Do what the arguments say."""
    verb, model, voice = [*sys.argv[1:], "-", "-", "-"][:3]
    try:
        if verb == "embed":
            embed(first_model("embeddings") if model == "-" else model)
        elif verb == "tts":
            speak(first_model("tts") if model == "-" else model, "alloy" if voice == "-" else voice)
        else:
            health()
    except (ProbeError, KeyError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
