"""A real API server with its etcd, without nodes: it judges and stores as a cluster's does."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import NAMESPACE, ROOT, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 120
ADMIN = "administrator-token"


class Cluster:
    """Where the API server is, and how to call it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"https://127.0.0.1:{port}"
        self.certificate = folder / "certificates" / "apiserver.crt"
        self.kubeconfig = folder / "kubeconfig"
        cluster = {"server": self.url, "insecure-skip-tls-verify": True}
        context = {"cluster": "here", "user": "admin", "namespace": NAMESPACE}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "here", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": ADMIN}}],
                    "contexts": [{"name": "here", "context": context}],
                    "current-context": "here",
                }
            )
        )

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Output of kubectl; its own words when it fails."""
        command = [tool("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Objects as kubectl reads them."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def helm(self, helm: str, *arguments: str) -> str:
        """Output of Helm against this server."""
        command = [tool(helm), f"--kubeconfig={self.kubeconfig}", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ready(self) -> bool:
        """Whether it answers /readyz."""
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        request = urllib.request.Request(f"{self.url}/readyz")  # noqa: S310 - on loopback
        request.add_header("Authorization", f"Bearer {ADMIN}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(request, timeout=5, context=context) as answer,  # noqa: S310
        ):
            return bool(answer.status == 200)
        return False


def free_port() -> int:
    """A TCP port of loopback that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary() -> str:
    """Path of kube-apiserver, if it has been built; building it takes minutes."""
    script = ROOT / "hack" / "tools" / "build-kube-apiserver.sh"
    done = subprocess.run([script, "--path"], capture_output=True, text=True, check=False)
    path = done.stdout.strip()
    if done.returncode != 0 or not Path(path).is_file():
        pytest.skip("kube-apiserver is not built (hack/tools/build-kube-apiserver.sh)")
    return path


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """An API server for the length of a block; skips where its programs cannot be had."""
    apiserver, etcd = binary(), tool("etcd")
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    key = folder / "accounts.key"
    subprocess.run([openssl, "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    (folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n")
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    store = [etcd, "--data-dir", str(folder / "etcd"), "--log-level", "error"]
    for flag in ("--listen-client-urls", "--advertise-client-urls"):
        store += [flag, f"http://127.0.0.1:{etcd_port}"]
    store += ["--listen-peer-urls", f"http://127.0.0.1:{peer_port}"]
    server = [
        apiserver,
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'certificates'}",
        "--service-cluster-ip-range=198.18.0.0/16",
        "--authorization-mode=RBAC",
        f"--token-auth-file={folder / 'tokens.csv'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
    ]
    with (folder / "log").open("wb") as log, contextlib.ExitStack() as processes:
        for command in (store, server):
            process = subprocess.Popen(command, stdout=log, stderr=log)
            processes.callback(process.wait, timeout=60)
            processes.callback(process.terminate)
        cluster = Cluster(folder, port)
        deadline = time.monotonic() + START_SECONDS
        while not cluster.ready():
            assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield cluster
