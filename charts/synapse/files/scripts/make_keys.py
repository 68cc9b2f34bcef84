"""Make the Secrets that are missing, and add the entries that are missing; change nothing else.

Environment: SECRETS (JSON: Secret name -> list of entry names), NAMESPACE, RELEASE. Talks to the
API server with the pod's own token. Exit code 0 when everything is there, else 1 with a sentence.
"""

import base64
import json
import os
import secrets
import sys

from kube_api import ApiError, call

ATTEMPTS = 5


def encode(names: list[str]) -> dict[str, str]:
    """A new random value (256 bits, hexadecimal) for each name, as Secrets want it."""
    return {name: base64.b64encode(secrets.token_hex(32).encode()).decode() for name in names}


def ensure(namespace: str, secret: str, entries: list[str]) -> str:
    """Bring one Secret to hold all entries; returns the line to log, which names no value.

    Raises:
        ApiError: When the API server refuses.
    """
    collection = f"/api/v1/namespaces/{namespace}/secrets"
    labels = {
        "app.kubernetes.io/part-of": "synapse",
        "app.kubernetes.io/instance": os.environ.get("RELEASE", "synapse"),
    }
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret, "labels": labels},
        "type": "Opaque",
        "data": encode(entries),
    }
    for _ in range(ATTEMPTS):
        try:
            call("POST", collection, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            return f"{secret}: made, with {', '.join(entries)}"
        found = call("GET", f"{collection}/{secret}")
        missing = [name for name in entries if name not in (found.get("data") or {})]
        if not missing:
            return f"{secret}: there already"
        # The version makes a change by somebody else in between a conflict and not a loss.
        version = {"resourceVersion": found["metadata"]["resourceVersion"]}
        patch = {"metadata": version, "data": encode(missing)}
        try:
            call("PATCH", f"{collection}/{secret}", patch, "application/merge-patch+json")
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            return f"{secret}: added {', '.join(missing)}"
    raise ApiError(409, f"{secret}: changed by somebody else {ATTEMPTS} times in a row")


def main() -> int:
    """Ensure every Secret of the environment."""
    try:
        for secret, entries in json.loads(os.environ["SECRETS"]).items():
            sys.stdout.write(ensure(os.environ["NAMESPACE"], secret, entries) + "\n")
    except (ApiError, OSError) as error:
        sys.stderr.write(f"make_keys: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
