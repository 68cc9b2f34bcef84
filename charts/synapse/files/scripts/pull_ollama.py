"""Bring models into an Ollama server; a second run changes nothing.

Environment: OLLAMA_URL, MODELS (JSON list of {name, source, parameters}), and what fetch_files.py
reads.
`source` is a reference that Ollama pulls itself, or a GGUF file: https://..., hf://ORG/REPO/FILE,
file:///PATH, or packaged:NAME (weights in this image). Parameters (num_thread, num_ctx, ...) are
written into the model. Every model is tried; the exit code is 1 if one failed, with its reason.

Ollama keeps where a model came from only for references (`parent_model`). For a file it is written
where a model has text of its own, its licence, so that a changed source is noticed.
"""

import hashlib
import http.client
import importlib
import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import fetch_files
from progress import Progress, say

BASE = os.environ.get("OLLAMA_URL", "http://ollama:11434")
WORK = Path(os.environ.get("WORK_DIRECTORY", "/tmp/models"))  # noqa: S108 - a volume of the pod
FILE = ("packaged:", "file://", "hf://", "http://", "https://")
START_SECONDS = 300.0


class PullError(Exception):
    """A model could not be brought; the text says why.

    Args:
        sentence: The text.
        lasting: Whether trying again soon would end the same.
    """

    def __init__(self, sentence: str, *, lasting: bool = False) -> None:
        super().__init__(sentence)
        self.lasting = lasting or "file does not exist" in sentence  # of Ollama's library


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


class Found(NamedTuple):
    """What the server says of a model."""

    parameters: dict[str, str]
    """Parameters that are written into it, as text."""
    parent: str
    """Name of the model that it was made from, if it was."""
    licence: str
    blob: str
    """Digest of its weights."""


def look(name: str) -> Found:
    """Ask for a model that is there."""
    parameters: dict[str, str] = {}
    (shown,) = call("POST", "/api/show", {"model": name})
    for line in (shown.get("parameters") or "").splitlines():
        key, _, value = line.strip().partition(" ")
        parameters[key] = value.strip().strip('"')
    parent = (shown.get("details") or {}).get("parent_model") or ""
    blob = re.search(r"^FROM .*sha256-([0-9a-f]{64})$", shown.get("modelfile") or "", re.MULTILINE)
    return Found(
        parameters, parent, shown.get("license") or "", f"sha256:{blob[1]}" if blob else ""
    )


def follow(name: str, events: Iterator[Any], progress: Progress) -> None:
    """Take over a download's steps: a model comes in several parts, each with its own bytes."""
    parts: dict[str, tuple[int, int]] = {}
    for event in events:
        if event.get("total") and event.get("digest"):
            parts[event["digest"]] = (event.get("completed", 0), event["total"])
            done, total = (sum(values) for values in zip(*parts.values(), strict=True))
            progress.moved(name, done, total)


def local_file(source: str, name: str, progress: Progress) -> Path:
    """Path of a GGUF source, downloaded if it has to be.

    Raises:
        PullError, fetch_files.FetchError: When it cannot be had.
    """
    if source.startswith("packaged:"):
        try:
            models = importlib.import_module("synapse_llama_cpp.models")
        except ImportError as error:
            sentence = "packaged: needs ollama.pull.image to hold weights (synapse-llama-cpp)"
            raise PullError(sentence, lasting=True) from error
        return Path(models.find_model(source.removeprefix("packaged:")))
    if source.startswith("file://"):
        path = Path(source.removeprefix("file://"))
        if not path.is_file():
            raise PullError(f"{path}: no such file on the volume", lasting=True)
        return path
    path = WORK / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".gguf")
    say(f"{name}: {fetch_files.bring(name, source, path, progress)}")
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


def from_file(model: dict[str, Any], found: Found | None, progress: Progress) -> str:
    """Make a model from a GGUF file; returns what was done.

    Raises:
        PullError, fetch_files.FetchError, OSError: When that fails.
    """
    name, source = model["name"], model["source"]
    origin = f"Weights from {source}"
    digest = ""
    # A model that does not say where it came from was put there by hand.
    if found and (found.licence == origin or not found.licence.startswith("Weights from ")):
        if settled(model, found):
            return "there already"
        origin, digest = found.licence, found.blob
    creation: dict[str, Any] = {"model": name, "license": origin}
    if digest:
        creation["files"] = {"model.gguf": digest}
    else:
        path = local_file(source, name, progress)
        creation["files"] = {path.name: upload(path)}
        if path.is_relative_to(WORK):
            path.unlink()
    if model["parameters"]:
        creation["parameters"] = model["parameters"]
    follow(name, call("POST", "/api/create", creation), progress)
    return "ready"


def from_reference(model: dict[str, Any], found: Found | None, progress: Progress) -> str:
    """Pull a model, and write its parameters into it; returns what was done.

    Raises:
        PullError: When that fails.
    """
    name, source = model["name"], model["source"]
    renamed = full_name(name) != full_name(source)
    stale = renamed and found is not None and found.parent not in (full_name(source), "")
    if found and settled(model, found) and not stale:
        return "there already"
    if full_name(source) not in installed():
        follow(name, call("POST", "/api/pull", {"model": source}), progress)
    if renamed or model["parameters"]:
        creation: dict[str, Any] = {"model": name, "from": source}
        if model["parameters"]:
            creation["parameters"] = model["parameters"]
        follow(name, call("POST", "/api/create", creation), progress)
    return "ready"


def settled(model: dict[str, Any], found: Found) -> bool:
    """Whether every wanted parameter is written into a model."""
    wanted = {key: str(value) for key, value in model["parameters"].items()}
    return wanted.items() <= found.parameters.items()


def main() -> int:
    """Bring every model of the environment."""
    models = {model["name"]: model for model in json.loads(os.environ["MODELS"])}
    progress = Progress(list(models))
    progress.serve()
    try:
        wait_for_server()
    except PullError as error:
        sys.stderr.write(f"pull_ollama: no Ollama at {BASE}: {error}\n")
        return 1

    def bring_one(name: str) -> str:
        model = models[name]
        found = look(name) if full_name(name) in installed() else None
        make = from_file if model["source"].startswith(FILE) else from_reference
        return make(model, found, progress)

    return 1 if fetch_files.in_rounds(list(models), bring_one, progress, "pull_ollama") else 0


if __name__ == "__main__":
    sys.exit(main())
