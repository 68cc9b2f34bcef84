"""Download model files that are missing; resume what was cut; leave what is whole alone.

Environment: FILES (JSON list of {url, path, optional}), HF_TOKEN (sent to huggingface.co only).
Every file is tried, whatever happened to the others; one that fails is named and the exit code
is 1.
"""

import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

CHUNK = 1 << 20
PROGRESS_SECONDS = 5.0


class FetchError(Exception):
    """A file could not be downloaded; the text says why, `status` is the server's (0 if none)."""

    def __init__(self, sentence: str, status: int = 0) -> None:
        super().__init__(sentence)
        self.status = status


def say(line: str) -> None:
    """One line for the log, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


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
    if token and urllib.parse.urlsplit(url).hostname in (
        "huggingface.co",
        os.environ.get("HF_HOST", ""),
    ):
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
    except OSError as error:
        raise FetchError(f"{error}") from error
    return answer


def fetch(url: str, path: Path) -> str:
    """Bring one file; returns the line that says what was done.

    The part that is there is kept as `NAME.part` until it is whole, so that a pod that dies in the
    middle costs nothing and no server ever reads half a file.

    Raises:
        FetchError: When it cannot be had.
    """
    if path.is_file():
        return f"{path.name}: there already"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    have = part.stat().st_size if part.is_file() else 0
    with open_at(url, have) as answer:
        if have and answer.status != 206:
            have = 0  # the server starts anew; so do we
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with part.open("ab" if have else "wb") as file:
            done = _copy(answer, file, path.name, have, total)
    if total is not None and done != total:
        raise FetchError(f"cut after {done} of {total} bytes; the next try resumes there")
    part.replace(path)
    return f"{path.name}: {done} bytes"


def _copy(
    answer: http.client.HTTPResponse, file: IO[bytes], name: str, done: int, total: int | None
) -> int:
    last = time.monotonic()
    while True:
        try:
            block = answer.read(CHUNK)
        except (OSError, http.client.HTTPException):
            return done
        if not block:
            return done
        file.write(block)
        done += len(block)
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            share = f" of {total} ({100 * done // total} %)" if total else ""
            say(f"{name}: {done} bytes{share}")


def main() -> int:
    """Fetch every file of the environment."""
    failed = 0
    for entry in json.loads(os.environ["FILES"]):
        try:
            say(fetch(entry["url"], Path(entry["path"])))
        except (FetchError, OSError) as error:
            if entry.get("optional") and getattr(error, "status", 0) == 404:
                say(f"{Path(entry['path']).name}: not part of this model")
                continue
            failed += 1
            sys.stderr.write(f"fetch_files: {Path(entry['path']).name}: {error}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
