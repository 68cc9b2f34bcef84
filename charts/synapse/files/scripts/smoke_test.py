"""A chat and an embedding through the gateway: what `helm test` runs.

Environment: GATEWAY_URL, CHAT_MODEL, EMBEDDING_MODEL (either may be empty: not tested), TIMEOUT,
API_KEY_FILE (optional). Prints one line for each; exit code 1 with the gateway's own words.
"""

import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


class TestError(Exception):
    """The gateway did not answer as it should."""


def ask(path: str, body: dict[str, Any]) -> tuple[Any, str]:
    """One request; returns the answer and the backend that gave it.

    Raises:
        TestError: On any status but 200.
    """
    request = urllib.request.Request(  # noqa: S310 - the gateway's Service
        os.environ["GATEWAY_URL"] + path, json.dumps(body).encode(), method="POST"
    )
    request.add_header("Content-Type", "application/json")
    key = os.environ.get("API_KEY_FILE")
    if key:
        request.add_header("Authorization", f"Bearer {Path(key).read_text().strip()}")
    try:
        with urllib.request.urlopen(request, timeout=float(os.environ["TIMEOUT"])) as answer:  # noqa: S310
            return json.load(answer), answer.headers.get("x-synapse-backend", "?")
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")[:500]
        raise TestError(f"{path}: {error.code} {text}") from error
    except (OSError, ValueError) as error:
        raise TestError(f"{path}: {error}") from error


def chat(model: str) -> str:
    """Ask for a short answer; any text will do."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    answer, backend = ask(
        "/v1/chat/completions", {"model": model, "messages": messages, "max_tokens": 16}
    )
    text = answer["choices"][0]["message"]["content"]
    if not text.strip():
        raise TestError(f"{model}: an empty answer")
    return f"chat {model} by {backend}: {text.strip()!r}"


def embed(model: str) -> str:
    """Ask for a vector; it must not be all zeros."""
    answer, backend = ask("/v1/embeddings", {"model": model, "input": "hello"})
    vector = answer["data"][0]["embedding"]
    if not any(vector):
        raise TestError(f"{model}: an embedding of zeros")
    return f"embedding {model} by {backend}: {len(vector)} dimensions"


def main() -> int:
    """Test what the environment names."""
    tests = [(chat, os.environ.get("CHAT_MODEL")), (embed, os.environ.get("EMBEDDING_MODEL"))]
    if not any(model for _, model in tests):
        sys.stderr.write("smoke_test: no enabled backend serves a model that chats or embeds\n")
        return 1
    try:
        for test, model in tests:
            if model:
                sys.stdout.write(test(model) + "\n")
            else:
                sys.stdout.write(f"{test.__name__}: no model of the route table does, not tested\n")
    except (TestError, KeyError, IndexError) as error:
        sys.stderr.write(f"smoke_test: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
