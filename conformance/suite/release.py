"""What was deployed: the chart's values, and the objects that were made from them."""

from __future__ import annotations

import base64
import functools
import gzip
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from conformance.suite.lines import SuiteError

if TYPE_CHECKING:
    from conformance.suite.cluster import Cluster, Object

GATEWAY = "synapse-gateway"
PART_OF = "app.kubernetes.io/part-of=synapse"


class Edge(NamedTuple):
    """Who may call whom; a name of a pod, or of a peer outside the release with an @."""

    source: str
    target: str
    port: int
    why: str


class Release:
    """The release of a namespace.

    Args:
        cluster: Where.
        namespace: Its namespace.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self.namespace = namespace

    @functools.cached_property
    def stored(self) -> dict[str, Any]:
        """What Helm has stored of the newest revision; empty where Helm installed nothing."""
        secrets = self._cluster.all("Secret", self.namespace, "owner=helm,status=deployed")
        ours = [one for one in secrets if _chart(one) == "synapse"]
        return _decode(ours[-1]) if ours else {}

    @functools.cached_property
    def objects(self) -> list[dict[str, Any]]:
        """The objects that the chart has rendered, as Helm has stored them."""
        manifest = self.stored.get("manifest", "")
        return [one for one in yaml.safe_load_all(manifest) if one]

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The values that are in effect: the chart's defaults and what was given over them."""
        defaults = self.stored.get("chart", {}).get("values", {})
        merged: dict[str, Any] = over(defaults, self.given)
        return merged

    @property
    def given(self) -> dict[str, Any]:
        """The values that were given."""
        found: dict[str, Any] = self.stored.get("config") or {}
        return found

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """The gateway's configuration; empty where there is no gateway."""
        found = self._cluster.find("ConfigMap", GATEWAY, self.namespace)
        read: dict[str, Any] = yaml.safe_load(found["data"]["backends.yaml"]) if found else {}
        return read

    @functools.cached_property
    def edges(self) -> list[Edge]:
        """The table of edges, as the release's own policy carries it."""
        policy = self._cluster.find("NetworkPolicy", "default-deny", self.namespace)
        if policy is None:
            return []
        table = policy["metadata"]["annotations"]["synapse.io/edges"]
        return [Edge(e["from"], e["to"], e["port"], e["why"]) for e in json.loads(table)]

    @functools.cached_property
    def components(self) -> list[str]:
        """Names of its Deployments."""
        found = self._cluster.all("Deployment", self.namespace, PART_OF)
        return sorted(one["metadata"]["name"] for one in found)

    @functools.cached_property
    def gateway(self) -> Object:
        """The gateway's Deployment.

        Raises:
            SuiteError: There is none.
        """
        found = self._cluster.find("Deployment", GATEWAY, self.namespace)
        if found is None:
            raise SuiteError(f"the namespace {self.namespace} has no Deployment {GATEWAY}")
        return found

    @property
    def image(self) -> str:
        """The gateway's image, which holds a Python for probes."""
        return str(self.gateway["spec"]["template"]["spec"]["containers"][0]["image"])

    @functools.cached_property
    def secrets(self) -> dict[str, str]:
        """Every caller's API key, by the caller's name."""
        keys = self.values.get("gateway", {}).get("keys", {})
        found = self._cluster.find(
            "Secret", keys.get("secretName", "synapse-api-keys"), self.namespace
        )
        entries: dict[str, str] = found["data"] if found else {}
        return {name: base64.b64decode(text).decode().strip() for name, text in entries.items()}

    def key(self) -> str:
        """Return an API key without limits, empty where callers need none."""
        for name, allowed in self.config.get("keys", {}).items():
            if set(allowed) <= {"file", "env", "sha256"} and name in self.secrets:
                return self.secrets[name]
        return ""


def _chart(secret: Object) -> str:
    try:
        return str(_decode(secret)["chart"]["metadata"]["name"])
    except (KeyError, ValueError, OSError):
        return ""


def _decode(secret: Object) -> dict[str, Any]:
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    found: dict[str, Any] = json.loads(gzip.decompress(packed))
    return found


def over(defaults: Any, given: Any) -> Any:
    """Lay values over others, as Helm does: maps are merged, everything else is replaced."""
    if not isinstance(defaults, dict) or not isinstance(given, dict):
        return given
    merged = dict(defaults)
    for name, value in given.items():
        merged[name] = over(defaults[name], value) if name in defaults else value
    return merged
