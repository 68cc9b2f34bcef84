"""A client of the Kubernetes API, as far as moving Services and scaling workloads needs one.

Standard library and PyYAML only. The official client brings 40 MB and nine packages into an image
that is kept small, lightkube a second HTTP stack and every resource's model; of all that, this
command needs five verbs on plain JSON, once, by hand. Nothing of it is near the hot path.

Conventions followed: kubernetes.io/docs/reference/using-api/api-concepts (lists in chunks, merge
patches with `metadata.resourceVersion` as the precondition, Status objects).
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from synapse_gateway.decommission.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from synapse_gateway.decommission.kubeconfig import Cluster

Object: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON."""

PATHS = {
    "Namespace": "api/v1/namespaces",
    "Service": "api/v1/services",
    "Pod": "api/v1/pods",
    "EndpointSlice": "apis/discovery.k8s.io/v1/endpointslices",
    "Deployment": "apis/apps/v1/deployments",
    "StatefulSet": "apis/apps/v1/statefulsets",
    "NetworkPolicy": "apis/networking.k8s.io/v1/networkpolicies",
}
"""The resources that are used: kind and path of its list over all namespaces."""

TIMEOUT = 30.0
"""Seconds for one request."""
_CHUNK = 500
_MERGE = {"Content-Type": "application/merge-patch+json"}


def path_of(kind: str, namespace: str = "", name: str = "") -> str:
    """Return the path of an object, or of a list (of one namespace, or of all)."""
    group, _, plural = PATHS[kind].rpartition("/")
    scope = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
    return f"/{group}{scope}/{plural}" + (f"/{quote(name, safe='')}" if name else "")


def service_proxy_path(namespace: str, name: str, port: int | str, path: str) -> str:
    """Return the path by which the API server passes a request on to a Service."""
    return f"{path_of('Service', namespace)}/{quote(name, safe='')}:{port}/proxy{path}"


class Kube:
    """Requests to one API server, a connection each.

    Args:
        cluster: Where it is.
        timeout: Seconds for one request.
    """

    def __init__(self, cluster: Cluster, timeout: float = TIMEOUT) -> None:
        self.cluster = cluster
        self._timeout = timeout

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """Return an object."""
        found: Object = self.call("GET", path_of(kind, namespace, name))
        return {"kind": kind, **found}

    def list(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        """Return the objects of a namespace, or of all; each with its `kind`.

        Args:
            kind: A key of `PATHS`.
            namespace: Empty for all.
            selector: A label selector.
        """
        query = {"limit": str(_CHUNK), "labelSelector": selector}
        objects: list[Object] = []
        while True:
            chunk = self.call("GET", f"{path_of(kind, namespace)}?{urlencode(query)}")
            # The members of a list come without their kind.
            objects += ({**item, "kind": kind} for item in chunk.get("items") or [])
            query["continue"] = chunk.get("metadata", {}).get("continue") or ""
            if not query["continue"]:
                return objects

    def create(self, thing: Object) -> Object:
        """Create an object in its namespace."""
        path = path_of(thing["kind"], thing["metadata"]["namespace"])
        created: Object = self.call("POST", path, thing)
        return created

    def patch(self, thing: Object, patch: Object) -> Object:
        """Apply a JSON merge patch (RFC 7396), on condition that nobody changed the object.

        Raises:
            KubeError: Status 409 where its `resourceVersion` is no longer that of `thing`.
        """
        meta = thing["metadata"]
        guarded = {"resourceVersion": meta["resourceVersion"]}
        body = {**patch, "metadata": {**patch.get("metadata", {}), **guarded}}
        path = path_of(thing["kind"], meta["namespace"], meta["name"])
        patched: Object = self.call("PATCH", path, body, _MERGE)
        return {"kind": thing["kind"], **patched}

    def delete(self, thing: Object) -> None:
        """Delete an object; it is no error if it is gone."""
        meta = thing["metadata"]
        try:
            self.call("DELETE", path_of(thing["kind"], meta["namespace"], meta["name"]))
        except KubeError as error:
            if error.status != 404:
                raise

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request and return the answer's JSON.

        Args:
            method: HTTP method.
            path: Path and query.
            body: Sent as JSON; None for none.
            headers: More headers, or others than usual.

        Raises:
            KubeError: The answer is no 2xx, is no JSON, or there is none.
        """
        status, text = self._send(method, path, body, headers or {})
        if status == 401 and self.cluster.renew():
            status, text = self._send(method, path, body, headers or {})
        if not 200 <= status < 300:
            raise _refused(method, path, status, text)
        try:
            return json.loads(text)
        except ValueError:
            raise KubeError(
                f"{method} {_plain(path)}: the answer is no JSON", status=status
            ) from None

    def _send(
        self, method: str, path: str, body: object, more: Mapping[str, str]
    ) -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "User-Agent": "synapse-decommission"}
        authorization = self.cluster.credentials.authorization()
        if authorization:
            headers["Authorization"] = authorization
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        headers.update(more)
        url = urlsplit(self.cluster.url)
        connection = self._connection(url.hostname or "", url.port)
        try:
            connection.request(method, url.path + path, data, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise KubeError(f"the API server at {self.cluster.url}: {error}") from None
        finally:
            connection.close()

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self.cluster.tls is None:
            return http.client.HTTPConnection(host, port, timeout=self._timeout)
        return _Https(self.cluster, host, port, self._timeout)


class _Https(http.client.HTTPSConnection):
    """HTTPS to a server whose certificate may hold another name than its address."""

    def __init__(self, cluster: Cluster, host: str, port: int | None, timeout: float) -> None:
        super().__init__(host, port, timeout=timeout, context=cluster.tls)
        self._cluster = cluster

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        if self._cluster.tls is not None:
            name = self._cluster.server_name or self.host
            self.sock = self._cluster.tls.wrap_socket(self.sock, server_hostname=name)


def _refused(method: str, path: str, status: int, text: bytes) -> KubeError:
    try:
        answer: Mapping[str, Any] = json.loads(text)
        message, reason = str(answer["message"]), str(answer.get("reason", ""))
    except (ValueError, KeyError, TypeError):
        message, reason = text[:200].decode(errors="replace").strip() or "no reason given", ""
    return KubeError(f"{method} {_plain(path)}: {status}: {message}", status=status, reason=reason)


def _plain(path: str) -> str:
    return path.partition("?")[0]
