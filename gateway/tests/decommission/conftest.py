"""One API server for all tests of this folder; each test has namespaces of its own."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

import synapse_gateway.decommission
from tests.decommission.cluster import ADMIN, ApiServer, Controllers, Missing, Models, programs
from tests.real.stack import ROOT, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from synapse_gateway.decommission import Kube

KEY = "sk-my-app"
ROLE = Path(synapse_gateway.decommission.__file__).with_name("clusterrole.yaml")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    try:
        etcd, server = programs(install=bool(os.environ.get("CI")))
    except Missing as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
    running = ApiServer(tmp_path_factory.mktemp("cluster"), etcd, server)
    try:
        _grant(running.kube())
        yield running
    finally:
        running.stop()


def _grant(kube: Kube) -> None:
    role = yaml.safe_load(ROLE.read_text(encoding="utf-8"))
    kube.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
    binding = {
        "metadata": {"name": "mover"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": role["metadata"]["name"],
        },
        "subjects": [{"kind": "User", "name": "mover", "apiGroup": "rbac.authorization.k8s.io"}],
    }
    kube.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)


@pytest.fixture
def kube(api_server: ApiServer) -> Kube:
    """The admin's client."""
    return api_server.kube(token=ADMIN)


@pytest.fixture
def controllers(kube: Kube) -> Iterator[Controllers]:
    running = Controllers(kube)
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def gateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real gateway that serves anybody; its one backend is not needed for lists of models."""
    with running_gateway(tmp_path_factory.mktemp("gateway"), auth="anonymous") as url:
        yield url


@pytest.fixture(scope="session")
def locked_gateway_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same, but it wants a key."""
    with running_gateway(tmp_path_factory.mktemp("locked"), auth="keys") as url:
        yield url


@contextmanager
def running_gateway(folder: Path, auth: str) -> Iterator[str]:
    target = {"backend": "engine", "model": "llama3.1:8b"}
    settings = {
        "auth": auth,
        "keys": {"my-app": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}},
        "backends": {"engine": {"url": f"http://127.0.0.1:{free_port()}", "type": "ollama"}},
        "models": {
            "llama3.1": {"targets": [target], "aliases": ["llama3.1-8b", "llama3.1:8b"]},
            "mxbai-embed-large": {"targets": [{**target, "model": "mxbai-embed-large"}]},
        },
    }
    config = folder / "backends.yaml"
    config.write_text(json.dumps(settings), encoding="utf-8")
    port = free_port()
    process = Process(
        "gateway",
        [
            *(sys.executable, "-P", "-m", "synapse_gateway", "serve"),
            *("--port", str(port), "--config", str(config)),
        ],
        {"PYTHONPATH": str(ROOT / "gateway")},
        port,
        folder / "gateway.log",
    )
    try:
        process.wait_ready("/livez")
        yield process.url
    finally:
        process.stop()


@pytest.fixture
def ollama() -> Iterator[Callable[..., Models]]:
    """Starts something that answers as an Ollama with some models."""
    with ExitStack() as stack:

        def start(*models: str) -> Models:
            server = Models(*models)
            stack.callback(server.stop)
            return server

        yield start
