"""One request to the API server with the pod's own token; Python's standard library only."""

import json
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path(os.environ.get("ACCOUNT_DIRECTORY", "/var/run/secrets/kubernetes.io/serviceaccount"))


class ApiError(Exception):
    """The API server refused; `status` is its HTTP status."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def api_url() -> str:
    """Address of the API server, as Kubernetes tells every pod."""
    given = os.environ.get("KUBERNETES_API")
    if given:
        return given
    host = os.environ["KUBERNETES_SERVICE_HOST"]
    host = f"[{host}]" if ":" in host else host
    return f"https://{host}:{os.environ['KUBERNETES_SERVICE_PORT']}"


def call(method: str, path: str, body: object = None, content: str = "application/json") -> Any:
    """One request to the API server.

    Raises:
        ApiError: When the answer's status is not 2xx.
    """
    request = urllib.request.Request(api_url() + path, method=method)  # noqa: S310 - the API server
    request.add_header("Authorization", f"Bearer {(ACCOUNT / 'token').read_text().strip()}")
    data = None
    if body is not None:
        request.add_header("Content-Type", content)
        data = json.dumps(body).encode()
    ca = ACCOUNT / "ca.crt"
    context = ssl.create_default_context(cafile=str(ca)) if ca.is_file() else None
    try:
        with urllib.request.urlopen(request, data, timeout=30, context=context) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise ApiError(error.code, f"{method} {path}: {error.code} {error.reason}") from error
