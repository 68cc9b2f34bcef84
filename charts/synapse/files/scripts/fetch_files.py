"""Download model weights that are missing; resume what was cut; leave what is whole alone.

Environment: FILES (JSON list of {model, source, path}), HF_ENDPOINT (the hub; huggingface.co unless
set), HF_TOKEN (sent to the hub only), NEED (`all`, or `any`: one model is enough to go on with),
RETRY_SECONDS (pauses before what failed is tried again), and what progress.py reads.

`source` is a file, hf://ORG/REPO[@REVISION]/FILE or http(s)://..., or a whole repository,
hf://ORG/REPO[@REVISION], whose `path` is a folder. Beside each stands a note of where it came from,
so that a changed source is downloaded anew, and what is whole needs no network. Every model is
tried, whatever happened to the others; one that fails is named and the exit code is 1.
"""

import hashlib
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

from progress import Progress, complain, say

CHUNK = 1 << 20
HUB = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
# Weights in a repository, best first: an engine reads one kind, and a repository may hold several.
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
# Neither weights that the engines read, nor anything else that they need.
UNUSED = (
    *(".gguf", ".onnx", ".h5", ".msgpack", ".ot", ".tflite", ".mlmodel", ".mlpackage"),
    *(".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".md"),
)
UNUSED_FOLDERS = ("original/", "onnx/", "openvino/", "coreml/", "metal/")


class FetchError(Exception):
    """A download failed; the text says why, `status` is the server's (0 if it gave none)."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status

    @property
    def lasting(self) -> bool:
        """Whether trying again soon would end the same."""
        return 400 <= self.status < 500 and self.status not in (408, 429)


class _TokenStaysHome(urllib.request.HTTPRedirectHandler):
    """Hub downloads redirect to a storage host, which must not see the token."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        same = (
            urllib.parse.urlsplit(newurl).hostname == urllib.parse.urlsplit(req.full_url).hostname
        )
        if request is not None and not same:
            request.remove_header("Authorization")
        return request


def open_at(url: str, offset: int) -> http.client.HTTPResponse:
    """Start or resume a download at `offset` bytes.

    Raises:
        FetchError: With the server's status, and what to do about a missing permission.
    """
    request = urllib.request.Request(url)  # noqa: S310 - http(s) only, by the chart's check
    request.add_header("User-Agent", "synapse")
    token = os.environ.get("HF_TOKEN")
    if token and url.startswith(HUB + "/"):
        request.add_header("Authorization", f"Bearer {token}")
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    try:
        answer: http.client.HTTPResponse = urllib.request.build_opener(_TokenStaysHome).open(
            request, timeout=60
        )
    except urllib.error.HTTPError as error:
        hint = ""
        if error.code in (401, 403):
            hint = "; a gated model wants huggingFace.tokenSecret and its licence accepted"
        sentence = f"the server answers {error.code} {error.reason}{hint}"
        raise FetchError(sentence, error.code) from error
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{error}") from error
    return answer


def download(
    url: str, path: Path, moved: Callable[[int, int | None], None], sha256: str | None = None
) -> int:
    """Bring one file; returns its bytes.

    The part that is there is kept in a file of its own until it is whole, so that a pod that dies
    in the middle costs nothing and no server ever reads half a file.

    Raises:
        FetchError: When it cannot be had, or is not what the hub says it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Named after the URL: what another source has begun is not gone on with.
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    part = path.with_name(f"{path.name}.{mark}.part")
    have = part.stat().st_size if part.is_file() else 0
    try:
        opened = open_at(url, have)
    except FetchError as error:
        if error.status != 416 or not have:
            raise
        have, opened = 0, open_at(url, 0)  # nothing is left to resume
    with opened as answer:
        if have and answer.status != 206:
            have = 0  # the server starts anew; so do we
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            done = _copy(answer, file, have, lambda done: moved(done, total))
    if total is not None and done != total:
        raise FetchError(f"cut after {done} of {total} bytes; the next try resumes there")
    if sha256 and digest_of(part) != sha256:
        part.unlink()
        raise FetchError("its digest is not the one that the hub names; it is downloaded anew")
    part.replace(path)
    for other in path.parent.glob(f"{path.name}.*.part"):
        other.unlink()
    return done


def _copy(
    answer: http.client.HTTPResponse, file: IO[bytes], done: int, moved: Callable[[int], None]
) -> int:
    moved(done)
    while True:
        try:
            block = answer.read(CHUNK)
        except (OSError, http.client.HTTPException):
            return done
        if not block:
            return done
        file.write(block)
        done += len(block)
        moved(done)


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Source(NamedTuple):
    """A place on the hub."""

    repository: str
    revision: str
    file: str
    """Empty: the whole repository."""


def parse(source: str) -> Source | None:
    """Take hf://ORG/REPO[@REVISION][/FILE] apart; None if it is none."""
    if not source.startswith("hf://"):
        return None
    owner, repository, *rest = source.removeprefix("hf://").split("/", 2)
    repository, _, revision = repository.partition("@")
    return Source(f"{owner}/{repository}", revision or "main", rest[0] if rest else "")


def file_url(source: str) -> str:
    """Where a file is downloaded from."""
    on_hub = parse(source)
    if on_hub is None:
        return source
    revision, file = urllib.parse.quote(on_hub.revision, safe=""), urllib.parse.quote(on_hub.file)
    return f"{HUB}/{on_hub.repository}/resolve/{revision}/{file}"


def fetch_file(source: str, path: Path, moved: Callable[[int, int | None], None]) -> str:
    """Bring one file; returns what was done.

    Raises:
        FetchError: When it cannot be had.
    """
    note = path.with_name(path.name + ".source")
    # Without a note it was put there by hand.
    if path.is_file() and (not note.is_file() or note.read_text() == source):
        return "there already"
    done = download(file_url(source), path, moved)
    note.write_text(source)
    return f"{done} bytes"


def wanted(siblings: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Files of a repository that an engine reads: one kind of weights, and what is not weights."""
    files = {one["rfilename"]: one for one in siblings}
    kept = {
        name: one
        for name, one in files.items()
        if not name.startswith((".", "/", *UNUSED_FOLDERS))
        and not name.lower().endswith(UNUSED)
        and ".." not in name.split("/")
    }
    kinds = [kind for kind in WEIGHTS if any(name.endswith(kind) for name in kept)]
    return {name: one for name, one in kept.items() if not name.endswith(tuple(kinds[1:]))}


def fetch_repository(source: str, folder: Path, moved: Callable[[int, int | None], None]) -> str:
    """Bring a repository's files into a folder; returns what was done.

    Raises:
        FetchError: When one of them cannot be had.
    """
    note = folder / ".source"
    known: dict[str, Any] = json.loads(note.read_text()) if note.is_file() else {}
    there = all((folder / name).is_file() for name in known.get("files", {}))
    if known.get("whole") and known["source"] == source and there:
        return "there already"
    place = parse(source)
    assert place is not None  # noqa: S101 - by the caller
    revision = urllib.parse.quote(place.revision, safe="")
    url = f"{HUB}/api/models/{place.repository}/revision/{revision}?blobs=true"
    with open_at(url, 0) as answer:
        try:
            listing = json.load(answer)
            commit, files = listing["sha"], wanted(listing["siblings"])
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError("the hub's list of files cannot be read") from error
    sizes = {name: int(one.get("size") or 0) for name, one in files.items()}
    if not sizes:
        raise FetchError("the repository holds no file that an engine reads")
    folder.mkdir(parents=True, exist_ok=True)
    state = {"source": source, "commit": commit, "files": sizes}
    # Files of another revision are not this one's, whatever their size.
    for name, size in known.get("files", {}).items():
        if known.get("commit") != commit or sizes.get(name) != size:
            (folder / name).unlink(missing_ok=True)
    note.write_text(json.dumps(state))
    total, before = sum(sizes.values()), 0
    for name, one in sorted(files.items()):
        path = folder / name
        if not path.is_file() or path.stat().st_size != sizes[name]:
            address = f"{HUB}/{place.repository}/resolve/{commit}/{urllib.parse.quote(name)}"
            begun = before
            digest = (one.get("lfs") or {}).get("sha256")
            download(address, path, lambda done, _, begun=begun: moved(begun + done, total), digest)
        before += sizes[name]
    note.write_text(json.dumps(state | {"whole": True}))
    return f"{len(files)} files, {total} bytes, commit {commit[:12]}"


def bring(model: str, source: str, path: Path, progress: Progress) -> str:
    """Bring what a source names to a path; returns what was done.

    Raises:
        FetchError, OSError: When it cannot be had.
    """
    place = parse(source)
    fetch = fetch_file if place is None or place.file else fetch_repository
    return fetch(source, path, lambda done, total: progress.moved(model, done, total))


def in_rounds(
    models: list[str], bring_one: Callable[[str], str], progress: Progress, program: str
) -> list[str]:
    """Bring every model; try those that failed again after a while, unless that would not help.

    Returns:
        The models that could not be brought.
    """
    pauses = [float(word) for word in os.environ.get("RETRY_SECONDS", "10 30 60 120").split()]
    failed: list[str] = []
    for pause in [*pauses, None]:
        later: list[str] = []
        for model in models:
            try:
                say(f"{model}: {bring_one(model)}")
                progress.note(model, "done")
            except Exception as error:  # noqa: BLE001 - one model must not stop the others
                lasting = getattr(error, "lasting", False)
                again = f"; tried again in {pause:.0f} s" if pause and not lasting else ""
                progress.note(model, "failed", f"{error}{again}")
                complain(f"{program}: {model}: {error}{again}")
                (failed if lasting else later).append(model)
        models = later
        if not models or pause is None:
            break
        time.sleep(pause)
    return failed + models


def main() -> int:
    """Bring every model of the environment."""
    entries = {entry["model"]: entry for entry in json.loads(os.environ["FILES"])}
    progress = Progress(list(entries))
    progress.serve()

    def bring_one(model: str) -> str:
        entry = entries[model]
        return bring(model, entry["source"], Path(entry["path"]), progress)

    failed = in_rounds(list(entries), bring_one, progress, "fetch_files")
    if failed and os.environ.get("NEED") == "any" and len(failed) < len(entries):
        complain(f"fetch_files: goes on without {', '.join(failed)}; a restart tries again")
        return 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
