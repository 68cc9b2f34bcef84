"""A real kube-apiserver and etcd on loopback, and what stands in for the controllers.

No kubelet, no network of pods: objects only. `Controllers` does what three loops of
kube-controller-manager would: pods become ready, Services with a selector get endpoints.
"""

from __future__ import annotations

import http.server
import json
import shutil
import ssl
import subprocess
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synapse_gateway.decommission import Kube, KubeError
from synapse_gateway.decommission.find import leads_to
from synapse_gateway.decommission.kube import path_of
from synapse_gateway.decommission.kubeconfig import from_kubeconfig
from tests.real.stack import ROOT, Process, free_port, until

if TYPE_CHECKING:
    from tests.decommission.objects import Object

TOOLS = ROOT / "hack" / "tools"
ADMIN, MOVER = "admin-token", "mover-token"
"""Tokens of a user who may do all, and of one who has the ClusterRole that is shipped."""


class Missing(Exception):
    """A program that the API server needs is not there; the text says which."""


def programs(*, install: bool) -> tuple[str, str]:
    """Return the paths of etcd and kube-apiserver.

    Args:
        install: Whether to fetch and build them; takes minutes.
    """
    build = TOOLS / "build-kube-apiserver.sh"
    ask = [str(build)] if install else [str(build), "--path"]
    server = subprocess.run(ask, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603
    if not Path(server).exists():
        raise Missing("kube-apiserver is missing; hack/tools/build-kube-apiserver.sh builds it")
    if not shutil.which("openssl"):
        raise Missing("openssl is missing, which makes the certificates")
    etcd = shutil.which("etcd")
    if etcd is None:
        found = subprocess.run(  # noqa: S603
            [TOOLS / "install.sh", "etcd"], check=False, capture_output=True, text=True
        )
        if found.returncode:
            raise Missing(f"etcd is missing: {found.stderr.strip()}")
        etcd = found.stdout.strip()
    return etcd, server


class ApiServer:
    """A kube-apiserver with an empty etcd, on free ports of 127.0.0.1."""

    def __init__(self, folder: Path, etcd: str, server: str) -> None:
        self.folder = folder
        self._started: list[Process] = []
        self._certificates()
        try:
            self._start(etcd, server)
        except BaseException:
            self.stop()
            raise

    def _start(self, etcd: str, server: str) -> None:
        folder = self.folder
        store, peer, port = free_port(), free_port(), free_port()
        listen = f"http://127.0.0.1:{store}"
        database = Process(
            "etcd",
            [
                etcd,
                *("--data-dir", str(folder / "etcd"), "--listen-client-urls", listen),
                *("--advertise-client-urls", listen),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            ],
            {},
            store,
            folder / "etcd.log",
        )
        self._started.append(database)
        database.wait_ready("/health")
        tokens = folder / "tokens.csv"
        tokens.write_text(f'{ADMIN},admin,1,"system:masters"\n{MOVER},mover,2\n', encoding="utf-8")
        self.url = f"https://127.0.0.1:{port}"
        api = Process(
            "kube-apiserver",
            [
                server,
                f"--etcd-servers={listen}",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--tls-cert-file={folder}/server.crt",
                f"--tls-private-key-file={folder}/server.key",
                f"--client-ca-file={folder}/ca.crt",
                f"--token-auth-file={tokens}",
                f"--service-account-key-file={folder}/accounts.key",
                f"--service-account-signing-key-file={folder}/accounts.key",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                "--authorization-mode=RBAC",
                # Pods need no account here, and nothing is at the end of a loopback address.
                "--disable-admission-plugins=ServiceAccount",
                "--endpoint-reconciler-type=none",
            ],
            {},
            port,
            folder / "kube-apiserver.log",
        )
        self._started.append(api)
        self._wait_ready(api)

    def _certificates(self) -> None:
        def openssl(*arguments: str) -> None:
            subprocess.run(  # noqa: S603
                ["openssl", *arguments],  # noqa: S607
                cwd=self.folder,
                check=True,
                capture_output=True,
            )

        new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=ca")
        openssl("genrsa", "-out", "accounts.key", "2048")
        for name, subject in (
            ("server", "/CN=kube-apiserver"),
            ("admin", "/O=system:masters/CN=a"),
        ):
            request = f"{name}.csr"
            openssl("req", *new, "-keyout", f"{name}.key", "-out", request, "-subj", subject)
            (self.folder / "san").write_text("subjectAltName=IP:127.0.0.1\n", encoding="utf-8")
            openssl(
                *("x509", "-req", "-in", request, "-CA", "ca.crt", "-CAkey", "ca.key"),
                *("-CAcreateserial", "-out", f"{name}.crt", "-days", "30", "-extfile", "san"),
            )

    def _wait_ready(self, api: Process) -> None:
        tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        asked = urllib.request.Request(  # noqa: S310 - https, to loopback
            f"{self.url}/readyz", headers={"Authorization": f"Bearer {ADMIN}"}
        )

        def ready() -> bool | None:
            assert api._process.poll() is None, f"kube-apiserver: {api.log.read_text()[-2000:]}"
            with suppress(OSError), urllib.request.urlopen(asked, context=tls, timeout=5):  # noqa: S310
                return True
            return None

        until(ready, f"kube-apiserver ({api.log})", 180)

    def kubeconfig(self, **user: str) -> Path:
        """Write a kubeconfig whose user has these fields; return its path."""
        path = self.folder / f"kubeconfig-{abs(hash(tuple(user.items())))}"
        cluster = {"server": self.url, "certificate-authority": "ca.crt"}
        config = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": user}],
        }
        path.write_text(json.dumps(config), encoding="utf-8")
        return path

    def kube(self, **user: str) -> Kube:
        """Return a client; the admin's where no user is given."""
        return Kube(from_kubeconfig(self.kubeconfig(**(user or {"token": ADMIN}))))

    def stop(self) -> None:
        for process in reversed(self._started):
            process.stop()


class Controllers(threading.Thread):
    """Makes pods ready and writes endpoints, until it is stopped."""

    def __init__(self, kube: Kube) -> None:
        super().__init__(name="controllers", daemon=True)
        self._kube = kube
        self._stopped = threading.Event()
        self.ready = True
        """Whether pods become ready."""

    def run(self) -> None:
        while not self._stopped.wait(0.1):
            # Objects come and go between a list and a write, as in any cluster.
            with suppress(KubeError):
                self._round()

    def _round(self) -> None:
        workloads = [w for kind in ("Deployment", "StatefulSet") for w in self._kube.list(kind)]
        for workload in workloads:
            self._set_ready(workload)
        for service in self._kube.list("Service"):
            spec = service["spec"]
            if spec["type"] == "ClusterIP" and spec.get("selector"):
                self._set_endpoints(service, workloads)

    def _set_ready(self, workload: Object) -> None:
        replicas = workload["spec"]["replicas"] if self.ready else 0
        meta, known = workload["metadata"], workload.get("status", {})
        seen = meta["generation"]
        status = {"replicas": replicas, "readyReplicas": replicas, "observedGeneration": seen}
        if {key: known.get(key, 0) for key in status} == status:
            return
        path = path_of(workload["kind"], meta["namespace"], meta["name"]) + "/status"
        merge = {"Content-Type": "application/merge-patch+json"}
        self._kube.call("PATCH", path, {"status": status}, merge)

    def _set_endpoints(self, service: Object, workloads: list[Object]) -> None:
        namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
        ready = any(w["status"].get("readyReplicas") for w in workloads if leads_to(service, w))
        owned = "endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io"
        selector = f"kubernetes.io/service-name={name},{owned}"
        there = self._kube.list("EndpointSlice", namespace, selector)
        if ready and not there:
            self._kube.create(endpoint_slice(namespace, name))
        for found in there if not ready else ():
            self._kube.delete(found)

    def stop(self) -> None:
        self._stopped.set()
        self.join(timeout=30)


def endpoint_slice(namespace: str, service: str) -> Object:
    """Return what the endpoints controller writes for a Service with one pod."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-abcde",
            "namespace": namespace,
            "labels": {
                "kubernetes.io/service-name": service,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.0.3"], "conditions": {"ready": True}}],
        "ports": [{"name": "http", "port": 11434, "protocol": "TCP"}],
    }


class Models(http.server.ThreadingHTTPServer):
    """Answers `/api/tags` with some models' names, as an Ollama does; knows no others."""

    daemon_threads = True

    def __init__(self, *models: str) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.models = models
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join(timeout=10)


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Models

    def _answer(self, status: int, value: Any) -> None:
        self.server.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        models = [{"name": name, "model": name, "size": 1} for name in self.server.models]
        self._answer(200, {"models": models})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["model"]
        there = asked in self.server.models
        self._answer(200 if there else 404, {} if there else {"error": f"'{asked}' not found"})

    def log_message(self, *_: object) -> None:
        pass
