"""Certificates and kubeconfigs of one start of the cluster, made by openssl."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from hack.cluster.settings import (
    API_SERVICE_ADDRESS,
    KUBECONFIG,
    NAME,
    NODE_ADDRESS,
    NODES,
    RUN,
)
from hack.cluster.shell import run

if TYPE_CHECKING:
    from pathlib import Path

PKI = RUN / "pki"
DAYS = "365"
EC = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
API_URL = f"https://{NODE_ADDRESS['node1']}:6443"


def authority(name: str) -> None:
    """Make a certificate authority."""
    run(
        [
            *("openssl", "req", "-x509", *EC, "-keyout", f"{name}.key", "-out", f"{name}.crt"),
            *("-subj", f"/CN={NAME}-{name}", "-days", DAYS),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        ],
        cwd=PKI,
    )


def certificate(name: str, subject: str, names: str = "", by: str = "ca") -> None:
    """Make a certificate that `by` has signed.

    Args:
        name: Of its files.
        subject: As openssl writes it; O= is the Kubernetes group, CN= the user.
        names: Subject alternative names, for servers.
        by: The authority.
    """
    run(
        ["openssl", "req", *EC, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", subject],
        cwd=PKI,
    )
    # Strict clients, such as Python's since 3.13, want all of these (RFC 5280).
    extensions = [
        f"subjectAltName={names or f'DNS:{name}'}",
        "basicConstraints=CA:FALSE",
        "keyUsage=critical,digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
        "subjectKeyIdentifier=hash",
        "authorityKeyIdentifier=keyid",
    ]
    (PKI / f"{name}.ext").write_text("\n".join(extensions) + "\n")
    run(
        [
            *("openssl", "x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.crt"),
            *("-CA", f"{by}.crt", "-CAkey", f"{by}.key", "-CAcreateserial"),
            *("-days", DAYS, "-extfile", f"{name}.ext"),
        ],
        cwd=PKI,
    )


def kubeconfig(name: str, path: Path) -> None:
    """Write a kubeconfig that carries its certificates, so that it may be copied anywhere."""

    def encoded(file: str) -> str:
        return base64.b64encode((PKI / file).read_bytes()).decode()

    cluster = {"server": API_URL, "certificate-authority-data": encoded("ca.crt")}
    user = {
        "client-certificate-data": encoded(f"{name}.crt"),
        "client-key-data": encoded(f"{name}.key"),
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": NAME, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": name}}],
        "current-context": NAME,
    }
    path.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    path.chmod(0o600)


def make() -> None:
    """Make everything, unless this start of the cluster has it."""
    if KUBECONFIG.exists():
        return
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    authority("ca")
    # Of its own: with the other, whoever has a client certificate could pass for the aggregator.
    authority("front-proxy-ca")
    run(["openssl", "genrsa", "-out", "accounts.key", "2048"], cwd=PKI)
    run(["openssl", "rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub"], cwd=PKI)
    service = "kubernetes.default.svc"
    certificate(
        "apiserver",
        "/CN=kube-apiserver",
        f"DNS:kubernetes,DNS:kubernetes.default,DNS:{service},DNS:{service}.cluster.local,"
        f"IP:127.0.0.1,IP:{NODE_ADDRESS['node1']},IP:{API_SERVICE_ADDRESS}",
    )
    certificate("front-proxy", "/CN=front-proxy-client", by="front-proxy-ca")
    certificate("admin", "/O=system:masters/CN=admin")
    certificate("controllers", "/CN=system:kube-controller-manager")
    certificate("scheduler", "/CN=system:kube-scheduler")
    certificate("proxy", "/CN=system:kube-proxy")
    for node in NODES:
        certificate(
            node,
            f"/O=system:nodes/CN=system:node:{node}",
            f"DNS:{node},IP:{NODE_ADDRESS[node]}",
        )
    for name in ("controllers", "scheduler", "proxy", *NODES):
        kubeconfig(name, PKI / f"{name}.kubeconfig")
    kubeconfig("admin", KUBECONFIG)
