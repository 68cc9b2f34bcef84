"""Where the API server is and how to prove who we are: a kubeconfig, or a pod's own account.

Formats: kubeconfig v1 (kubernetes.io/docs/reference/config-api/kubeconfig.v1) with certificates,
tokens, basic authentication and exec plugins (client.authentication.k8s.io/v1 and v1beta1: what
EKS, GKE and AKS use). Not understood, and said so: `auth-provider` (removed from Kubernetes 1.26)
and `proxy-url`.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import ssl
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from synapse_gateway.decommission.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes mounts the token of a pod's service account."""


@dataclass(kw_only=True)
class Credentials:
    """The `Authorization` of requests.

    Attributes:
        token: A bearer token.
        token_file: A file that holds it and is written anew now and then.
        basic: User and password, joined by a colon.
        plugin: The `exec` of a kubeconfig's user.
        folder: The folder of the kubeconfig, where the plugin's relative path starts.
    """

    token: str = ""
    token_file: Path | None = None
    basic: str = ""
    plugin: Mapping[str, Any] | None = None
    folder: Path = field(default_factory=Path)

    def authorization(self) -> str | None:
        """Return the header's value; None where a certificate says it all."""
        if self.token_file is not None:
            return f"Bearer {_read(self.token_file).strip()}"
        if self.token:
            return f"Bearer {self.token}"
        if self.basic:
            return f"Basic {base64.b64encode(self.basic.encode()).decode()}"
        return None


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """An API server.

    Attributes:
        url: Such as `https://10.0.0.1:6443`, without a slash at the end.
        tls: For https; holds the client's certificate, if there is one.
        server_name: The name that the server's certificate must hold, where it is not the URL's.
        credentials: How requests are authorized.
        inside: Whether this process is a pod of the cluster, and can call Services directly.
    """

    url: str
    tls: ssl.SSLContext | None
    credentials: Credentials
    server_name: str | None = None
    inside: bool = False

    def renew(self) -> bool:
        """Ask the exec plugin for new credentials; False where there is none."""
        if self.credentials.plugin is None:
            return False
        _ask_plugin(self.credentials, self.tls)
        return True


def find_cluster(
    kubeconfig: str | None, context: str | None, environ: Mapping[str, str]
) -> Cluster:
    """Return the cluster that is meant.

    Args:
        kubeconfig: A file; None takes the first that exists of those of KUBECONFIG, then
            `~/.kube/config`, then the account of the pod that this process runs in.
        context: A context of the file; None takes its current one.
        environ: The process's environment.

    Raises:
        Refusal: There is none, or it holds what cannot be used.
    """
    if kubeconfig is not None:
        return from_kubeconfig(Path(kubeconfig), context)
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    for path in named or [Path.home() / ".kube" / "config"]:
        if path.is_file():
            return from_kubeconfig(path, context)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return from_pod(environ)
    raise Refusal("no cluster: give --kubeconfig FILE, or set KUBECONFIG, or run it in a pod")


def from_pod(environ: Mapping[str, str], account: Path = ACCOUNT) -> Cluster:
    """Return the cluster that this process is a pod of."""
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not (account / "token").is_file():
        raise Refusal("this pod has no account: set automountServiceAccountToken: true")
    tls = ssl.create_default_context(cafile=str(account / "ca.crt"))
    return Cluster(
        url=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=tls,
        credentials=Credentials(token_file=account / "token"),
        inside=True,
    )


def from_kubeconfig(path: Path, context: str | None = None) -> Cluster:
    """Return the cluster of a context of a kubeconfig file.

    Raises:
        Refusal: The text names the file, the field, and what would be right.
    """
    try:
        config = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise Refusal(f"{path}: not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(config, dict):
        raise Refusal(f"{path}: must be a mapping with clusters, users and contexts")
    name = context or config.get("current-context")
    if not name:
        raise Refusal(f"{path}: has no current-context; choose one with --context NAME")
    chosen = _entry(path, config, "contexts", "context", name)
    cluster = _entry(path, config, "clusters", "cluster", chosen.get("cluster", ""))
    user = _entry(path, config, "users", "user", chosen["user"]) if chosen.get("user") else {}
    for holder, key in ((cluster, "proxy-url"), (user, "auth-provider")):
        if holder.get(key):
            raise Refusal(f"{path}: {key} is not supported; use a context without it")
    url = str(cluster.get("server", "")).rstrip("/")
    if not url.startswith(("https://", "http://")):
        raise Refusal(f"{path}: clusters[{chosen.get('cluster')}].cluster.server must be a URL")
    tls = _tls(cluster, user, path.parent) if url.startswith("https://") else None
    credentials = _credentials(user, path.parent)
    if credentials.plugin is not None:
        _ask_plugin(credentials, tls)
    return Cluster(
        url=url, tls=tls, credentials=credentials, server_name=cluster.get("tls-server-name")
    )


def _entry(path: Path, config: Mapping[str, Any], kind: str, key: str, name: str) -> dict[str, Any]:
    for entry in config.get(kind) or []:
        if entry.get("name") == name:
            found = entry.get(key)
            return found if isinstance(found, dict) else {}
    there = ", ".join(str(entry.get("name")) for entry in config.get(kind) or []) or "none"
    raise Refusal(f"{path}: {kind} has no '{name}' (there: {there})")


def _tls(cluster: Mapping[str, Any], user: Mapping[str, Any], folder: Path) -> ssl.SSLContext:
    authority = _pem(cluster, "certificate-authority", folder)
    try:
        tls = ssl.create_default_context(cadata=authority or None)
    except ssl.SSLError:
        raise Refusal("kubeconfig: certificate-authority must be a certificate in PEM") from None
    if cluster.get("insecure-skip-tls-verify"):
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    certificate = _pem(user, "client-certificate", folder)
    if certificate:
        _load_pair(tls, certificate, _pem(user, "client-key", folder))
    return tls


def _pem(holder: Mapping[str, Any], key: str, folder: Path) -> str:
    data = holder.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise Refusal(f"kubeconfig: {key}-data must be PEM in base64") from None
    return _read(folder / holder[key]) if holder.get(key) else ""


def _load_pair(tls: ssl.SSLContext, certificate: str, key: str) -> None:
    # `ssl` reads certificates from files only; this one is readable by its owner, and gone at once.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as pair:
        pair.write(f"{certificate}\n{key}\n")
        pair.flush()
        try:
            tls.load_cert_chain(pair.name)
        except ssl.SSLError as error:
            raise Refusal(f"kubeconfig: client certificate and key: {error.reason}") from None


def _credentials(user: Mapping[str, Any], folder: Path) -> Credentials:
    basic = f"{user['username']}:{user.get('password', '')}" if user.get("username") else ""
    file = user.get("tokenFile")
    return Credentials(
        token=str(user.get("token") or ""),
        token_file=folder / file if file else None,
        basic=basic,
        plugin=user.get("exec"),
        folder=folder,
    )


def _ask_plugin(credentials: Credentials, tls: ssl.SSLContext | None) -> None:
    plugin = credentials.plugin or {}
    version = plugin.get("apiVersion", "client.authentication.k8s.io/v1")
    asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
    extra = {entry["name"]: str(entry["value"]) for entry in plugin.get("env") or []}
    command = str(plugin.get("command", ""))
    if "/" in command:
        command = str(credentials.folder / command)
    try:
        done = subprocess.run(  # noqa: S603 - the command that the user's own kubeconfig names
            [command, *map(str, plugin.get("args") or [])],
            env={**os.environ, **extra, "KUBERNETES_EXEC_INFO": json.dumps(asked)},
            stdout=subprocess.PIPE,
            check=True,
            timeout=60,
        )
        status = json.loads(done.stdout)["status"]
    except FileNotFoundError:
        hint = plugin.get("installHint") or "install it, or choose another context"
        raise Refusal(f"kubeconfig: the plugin '{command}' is not there; {hint}") from None
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError, OSError) as error:
        raise Refusal(f"kubeconfig: the plugin '{command}' gave no credential: {error}") from None
    credentials.token = str(status.get("token") or "")
    if tls is not None and status.get("clientCertificateData"):
        _load_pair(tls, status["clientCertificateData"], status.get("clientKeyData", ""))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refusal(f"{path}: {error.strerror}") from None
