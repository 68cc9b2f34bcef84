"""Bring models into an Ollama server; a second run changes nothing.

Environment: OLLAMA_URL; MODELS (JSON list of {name, source, parameters}); HF_TOKEN (optional).
`source` is a reference that Ollama pulls itself, or a GGUF file: https://..., hf://ORG/REPO/FILE,
file:///PATH, or packaged:NAME (weights in this image). Parameters (num_thread, num_ctx, ...) are
written into the model. Every model is tried; the exit code is 1 if one failed, with its reason.
"""

import hashlib
import http.client
import importlib
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fetch_files

BASE = os.environ.get("OLLAMA_URL", "http://ollama:11434")
WORK = Path(os.environ.get("WORK_DIRECTORY", "/tmp/models"))  # noqa: S108 - a volume of the pod
PROGRESS_SECONDS = 5.0
START_SECONDS = 300.0


class PullError(Exception):
    """A model could not be brought; the text says why."""


def call(method: str, path: str, body: object = None, timeout: float = 3600) -> Iterator[Any]:
    """One request; yields the JSON lines of the answer.

    Raises:
        PullError: When Ollama refuses, with its own sentence.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(BASE + path, data, method=method)  # noqa: S310 - our Service
    request.add_header("Content-Type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            for line in answer:
                if line.strip():
                    event = json.loads(line)
                    if "error" in event:
                        raise PullError(str(event["error"]))
                    yield event
    except urllib.error.HTTPError as error:
        text = error.read().decode(errors="replace")
        raise PullError(f"{method} {path}: {error.code} {text.strip()}") from error
    except (OSError, http.client.HTTPException) as error:
        raise PullError(f"{method} {path}: {error}") from error


def wait_for_server() -> None:
    """Return when Ollama answers.

    Raises:
        PullError: When it has not within five minutes.
    """
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            list(call("GET", "/api/version", timeout=10))
        except PullError:
            if time.monotonic() > deadline:
                raise
            time.sleep(2)
        else:
            return


def full_name(name: str) -> str:
    """The name as Ollama lists it: a name without a tag means `latest`."""
    return name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"


def installed() -> set[str]:
    """Names of the models that the server has."""
    return {model["name"] for event in call("GET", "/api/tags") for model in event["models"]}


def parameters_of(name: str) -> dict[str, str]:
    """Parameters that are written into a model, as text."""
    found: dict[str, str] = {}
    for event in call("POST", "/api/show", {"model": name}):
        for line in (event.get("parameters") or "").splitlines():
            key, _, value = line.strip().partition(" ")
            found[key] = value.strip().strip('"')
    return found


def progress(name: str, events: Iterator[Any]) -> None:
    """Log a download's steps, at most one line in five seconds for each."""
    status, last = "", 0.0
    for event in events:
        new = event.get("status", "")
        now = time.monotonic()
        if new == status and now - last < PROGRESS_SECONDS:
            continue
        status, last = new, now
        total, done = event.get("total"), event.get("completed", 0)
        share = f" {100 * done // total} % of {total} bytes" if total else ""
        fetch_files.say(f"{name}: {new}{share}")


def local_file(source: str, name: str) -> Path:
    """Path of a GGUF source, downloaded if it has to be.

    Raises:
        PullError: When there is no such file.
    """
    if source.startswith("packaged:"):
        try:
            models = importlib.import_module("synapse_llama_cpp.models")
        except ImportError as error:
            raise PullError(
                "packaged: needs ollama.pull.image to hold weights (synapse-llama-cpp)"
            ) from error
        return Path(models.find_model(source.removeprefix("packaged:")))
    if source.startswith("file://"):
        path = Path(source.removeprefix("file://"))
        if not path.is_file():
            raise PullError(f"{path}: no such file in this pod")
        return path
    url = source
    if source.startswith("hf://"):
        owner, repository, file = source.removeprefix("hf://").split("/", 2)
        url = f"https://huggingface.co/{owner}/{repository}/resolve/main/{file}"
    path = WORK / (name.replace("/", "_").replace(":", "_") + ".gguf")
    fetch_files.say(fetch_files.fetch(url, path))
    return path


def upload(path: Path) -> str:
    """Send a file to the server unless it has it; returns its digest."""
    with path.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    head = urllib.request.Request(f"{BASE}/api/blobs/{digest}", method="HEAD")  # noqa: S310
    try:
        urllib.request.urlopen(head, timeout=60).close()  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise PullError(f"blob {digest}: {error.code}") from error
    else:
        return digest
    with path.open("rb") as file:
        request = urllib.request.Request(f"{BASE}/api/blobs/{digest}", file, method="POST")  # noqa: S310
        request.add_header("Content-Length", str(path.stat().st_size))
        urllib.request.urlopen(request, timeout=3600).close()  # noqa: S310
    return digest


def bring(model: dict[str, Any]) -> None:
    """Bring one model to what is asked.

    Raises:
        PullError, fetch_files.FetchError, OSError: When that fails.
    """
    name, source = model["name"], model["source"]
    wanted = {key: str(value) for key, value in (model.get("parameters") or {}).items()}
    there = full_name(name) in installed()
    if there and wanted.items() <= parameters_of(name).items():
        fetch_files.say(f"{name}: there already")
        return
    creation: dict[str, Any] = {"model": name}
    if source.startswith(("packaged:", "file://", "hf://", "http://", "https://")):
        if there:
            creation["from"] = name
        else:
            path = local_file(source, name)
            creation["files"] = {path.name: upload(path)}
    else:
        if not there:
            progress(name, call("POST", "/api/pull", {"model": source}))
        creation["from"] = name if there else source
        if not wanted and full_name(name) == full_name(source):
            return
    if wanted:
        creation["parameters"] = model["parameters"]
    progress(name, call("POST", "/api/create", creation))
    fetch_files.say(f"{name}: ready")


def main() -> int:
    """Bring every model of the environment."""
    failed = 0
    try:
        wait_for_server()
    except PullError as error:
        sys.stderr.write(f"pull_ollama: no Ollama at {BASE}: {error}\n")
        return 1
    for model in json.loads(os.environ["MODELS"]):
        try:
            bring(model)
        except (PullError, fetch_files.FetchError, OSError) as error:
            failed += 1
            sys.stderr.write(f"pull_ollama: {model['name']}: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
