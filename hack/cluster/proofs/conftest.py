"""Proofs of the cluster itself, run against one that is up: make cluster-proof."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from hack.cluster import addons, inside, lifecycle
from hack.cluster.daemons import kubectl
from hack.cluster.images import PART

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TOOLS = PART["tools"].reference


class Namespace:
    """A namespace for one test."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Output of kubectl in this namespace."""
        return kubectl("-n", self.name, *arguments, text=text, timeout=180)

    def apply(self, *objects: dict[str, Any]) -> None:
        """Apply objects."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", "-f", "-", text=json.dumps(items))

    def get(self, *what: str) -> Any:
        """Objects as the API server has them."""
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def execute(self, pod: str, *command: str) -> str:
        """Output of a command in a pod."""
        return self.kubectl("exec", pod, "--", *command)

    def wait(self, what: str, *names: str, seconds: int = 90) -> None:
        """Return when a condition holds."""
        self.kubectl("wait", f"--for={what}", *names, f"--timeout={seconds}s")


def pod_spec(command: Sequence[str], node: str = "", **more: Any) -> dict[str, Any]:
    """A pod's specification: one container of the tools image."""
    container = {"name": "main", "image": TOOLS, "command": list(command)}
    container |= {key: more.pop(key) for key in ("volumeMounts", "resources") if key in more}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], **more}
    return spec | ({"nodeSelector": {"kubernetes.io/hostname": node}} if node else {})


def web(name: str, node: str) -> list[dict[str, Any]]:
    """A pod that answers with its name over HTTP on port 8080, and its Service."""
    serve = f"cd /tmp && echo {name} > index.html && exec python3 -m http.server 8080"
    metadata = {"name": name, "labels": {"app": name}}
    ports = [{"port": 8080}]
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": pod_spec(["sh", "-c", serve], node),
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": name}, "ports": ports},
        },
    ]


def http(where: str, url: str) -> str:
    """Body of a GET request that `where` makes, or the reason why there is none."""
    words = ["curl", "-gsS", "-m", "3", url]
    command, environment = inside.command(where, words)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr).strip()


@pytest.fixture(scope="session", autouse=True)
def cluster() -> None:
    """A cluster that is up."""
    if not lifecycle.is_up():
        pytest.exit("the cluster is down; run: make cluster", 1)


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[Namespace]:
    """A namespace that goes with the test."""
    name = request.node.name.replace("_", "-").partition("[")[0][:60].rstrip("-")
    addons.make_namespace(name)
    yield Namespace(name)
    kubectl("delete", "namespace", name, "--wait=false")
