"""Ask the registries for the digest of every tag in values files, and write it beside the tag.

    python hack/pin_digests.py charts/synapse/values.yaml values/*.yaml

Only images of others are looked up (registry, repository and tag are all written there). A registry
that cannot be reached leaves its digests as they are; the exit code is then 1. Python's standard
library only. REGISTRY_SCHEME=http is for a registry without TLS on this machine.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

# An image index first, so that the digest stands for every architecture.
ACCEPT = ", ".join(
    f"application/vnd.{kind}"
    for kind in (
        "oci.image.index.v1+json",
        "docker.distribution.manifest.list.v2+json",
        "oci.image.manifest.v1+json",
        "docker.distribution.manifest.v2+json",
    )
)
DIGEST = re.compile(r"^sha256:[0-9a-f]{64}$")
# Docker Hub's name is not its registry's host.
HOSTS = {"docker.io": "registry-1.docker.io"}
FIELD = re.compile(r"^(?P<indent> +)(?P<key>registry|repository|tag|digest): *(?P<value>.*?) *$")


class RegistryError(Exception):
    """A digest could not be had; the text says why."""


def _open(url: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
    request = urllib.request.Request(url)  # noqa: S310 - http(s), by construction
    request.add_header("Accept", ACCEPT)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()
    except OSError as error:
        raise RegistryError(f"{urllib.parse.urlsplit(url).netloc}: {error}") from error


def _token(challenge: str) -> str:
    """An anonymous pull token, as the registry's challenge says (distribution specification)."""
    fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
    realm = fields.pop("realm", "")
    if not realm.startswith(("https://", "http://")):
        raise RegistryError(f"asks for credentials of a kind that is not known: {challenge}")
    status, _, body = _open(f"{realm}?{urllib.parse.urlencode(fields)}", None)
    if status != 200:
        raise RegistryError(f"gives no anonymous token ({status})")
    answer = json.loads(body)
    return str(answer.get("token") or answer["access_token"])


def digest_of(registry: str, repository: str, tag: str) -> str:
    """Digest of a tag.

    Raises:
        RegistryError: When the registry cannot be reached, or has no such tag.
    """
    host = HOSTS.get(registry, registry)
    if registry == "docker.io" and "/" not in repository:
        repository = f"library/{repository}"
    scheme = os.environ.get("REGISTRY_SCHEME", "https")
    url = f"{scheme}://{host}/v2/{repository}/manifests/{tag}"
    status, headers, _ = _open(url, None)
    if status == 401:
        status, headers, _ = _open(url, _token(headers.get("www-authenticate", "")))
    if status != 200:
        raise RegistryError(f"{registry}/{repository}:{tag}: the registry answers {status}")
    digest = headers.get("docker-content-digest", "")
    if not DIGEST.match(digest):
        raise RegistryError(f"{registry}/{repository}:{tag}: the registry names no digest")
    return digest


def pin(path: Path) -> list[str]:
    """Write every digest that can be had; returns what could not."""
    problems: list[str] = []
    lines = path.read_text().splitlines(keepends=True)
    image: dict[str, str] = {}
    for number, line in enumerate(lines):
        match = FIELD.match(line.rstrip("\n"))
        if match is None:
            if line.strip() and not line.strip().startswith("#"):
                image = {}
            continue
        image[match["key"]] = match["value"].partition(" #")[0].strip("\"' ")
        complete = image.get("registry") and image.get("repository") and image.get("tag")
        if match["key"] != "digest" or not complete:
            continue
        try:
            digest = digest_of(image["registry"], image["repository"], image["tag"])
        except RegistryError as error:
            problems.append(str(error))
            continue
        _, mark, comment = match["value"].partition(" #")
        lines[number] = f"{match['indent']}digest: {digest}{mark}{comment}\n"
        sys.stdout.write(f"{image['repository']}:{image['tag']} {digest}\n")
    path.write_text("".join(lines))
    return problems


def main() -> int:
    """Pin the files of the command line."""
    if len(sys.argv) < 2:
        sys.stderr.write("usage: pin_digests.py VALUES_FILE ...\n")
        return 2
    problems = [problem for name in sys.argv[1:] for problem in pin(Path(name))]
    for problem in problems:
        sys.stderr.write(f"not pinned: {problem}\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
