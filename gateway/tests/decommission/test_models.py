from __future__ import annotations

import http.server
import json
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from synapse_gateway.decommission import Cluster, Kube
from synapse_gateway.decommission.kubeconfig import Credentials
from synapse_gateway.decommission.models import (
    Ollama,
    OllamaError,
    by_proxy,
    by_url,
    missing_models,
)
from tests.real.stack import ROOT, Process, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.decommission.cluster import Models


@pytest.mark.parametrize(
    ("there", "central", "missing"),
    [
        (["a"], ["a"], []),
        (["a:latest"], ["a"], []),
        (["a"], ["a:latest"], []),
        (["a:8b"], ["a"], ["a:8b"]),
        (["b", "a"], [], ["b", "a"]),
        ([], ["a"], []),
        (["host/x/a:latest"], ["host/x/a"], []),
    ],
)
def test_models_are_the_same_with_and_without_the_tag_latest(
    ollama: Callable[..., Models], there: list[str], central: list[str], missing: list[str]
) -> None:
    gateway = Ollama("the gateway", by_url(ollama(*central).url))
    assert missing_models(there, gateway) == tuple(missing)


def test_an_alias_of_the_gateway_is_a_model_it_has(gateway_url: str) -> None:
    gateway = Ollama("the gateway", by_url(gateway_url))
    assert "llama3.1:8b" not in gateway.tags()
    assert missing_models(["llama3.1:8b", "phi4"], gateway) == ("phi4",)


def test_a_real_ollama_is_understood(tmp_path: Path) -> None:
    asked = [str(ROOT / "hack" / "build-ollama.sh"), "--path"]
    binary = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
    if not Path(binary).exists():
        pytest.skip("Ollama's engine is missing; hack/build-ollama.sh builds it")
    port = free_port()
    environment = {"OLLAMA_HOST": f"127.0.0.1:{port}", "HOME": str(tmp_path)}
    environment["OLLAMA_MODELS"] = str(tmp_path / "models")
    engine = Process("ollama", [binary, "serve"], environment, port, tmp_path / "log")
    try:
        engine.wait_ready("/api/version")
        real = Ollama("ollama", by_url(engine.url))
        assert real.tags() == ()
        assert not real.knows("phi4")
        assert missing_models(["phi4"], real) == ("phi4",)
    finally:
        engine.stop()


def test_what_does_not_answer_is_named() -> None:
    gone = Ollama("my-app/ollama", by_url(f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(OllamaError, match=r"my-app/ollama does not answer: .*refused"):
        gone.tags()


Asked: TypeAlias = tuple[str, str, dict[str, str]]
"""Method, path and headers of a request."""
Proxied: TypeAlias = "Callable[[int, object], tuple[Ollama, list[Asked]]]"


class Status(http.server.BaseHTTPRequestHandler):
    """Stands where an API server's proxy is: answers with one status and body."""

    status: int
    body: bytes
    asked: list[Asked]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.command, self.path, dict(self.headers)))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxied() -> Iterator[Proxied]:
    servers = []

    def start(status: int, body: object) -> tuple[Ollama, list[Asked]]:
        class Handler(Status):
            pass

        Handler.status, Handler.body, Handler.asked = status, json.dumps(body).encode(), []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        credentials = Credentials(token="mine")
        url = f"http://127.0.0.1:{server.server_port}"
        kube = Kube(Cluster(url=url, tls=None, credentials=credentials))
        way = by_proxy(kube, "my-app", "ollama", 11434, key="sk-1")
        return Ollama("my-app/ollama", way), Handler.asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_api_servers_proxy_is_asked_with_both_credentials(
    proxied: Proxied,
) -> None:
    ollama, asked = proxied(200, {"models": [{"name": "a"}]})
    assert ollama.tags() == ("a",)
    ((method, path, headers),) = asked
    expected = "/api/v1/namespaces/my-app/services/ollama:11434/proxy/api/tags"
    assert (method, path) == ("GET", expected)
    assert (headers["Authorization"], headers["x-api-key"]) == ("Bearer mine", "sk-1")


def test_a_model_that_ollama_does_not_know_is_told_from_a_path_that_the_api_server_does_not(
    proxied: Proxied,
) -> None:
    unknown, _ = proxied(404, {"error": "model 'a' not found"})
    assert not unknown.knows("a")
    status = {"kind": "Status", "message": 'services "ollama" not found', "reason": "NotFound"}
    gone, _ = proxied(404, status)
    with pytest.raises(OllamaError, match='services "ollama" not found'):
        gone.knows("a")


@pytest.mark.parametrize("body", [{}, [], {"models": [{}]}, "text"])
def test_what_is_no_ollama_is_told(proxied: Proxied, body: object) -> None:
    ollama, _ = proxied(200, body)
    with pytest.raises(OllamaError, match="as no Ollama does"):
        ollama.tags()
