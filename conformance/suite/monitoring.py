"""The live Prometheus: what it scrapes, which rules it has, what the dashboards find in it."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import yaml

from conformance.suite.lines import NotSupported
from synapse_gateway.decommission.errors import KubeError

if TYPE_CHECKING:
    from conformance.suite.session import Session

EMPTY_PANELS = Path(__file__).resolve().parents[1] / "empty-panels.yaml"
OPERATED = "services/prometheus-operated:web/proxy"
"""The Service that the operator makes before every Prometheus, by the API server."""
WINDOW = "10m"
"""What stands for Grafana's interval: long enough to hold what the suite has just done."""


class Panel(NamedTuple):
    """A panel of a dashboard.

    Attributes:
        dashboard: The dashboard's uid.
        title: The panel's.
        queries: Its expressions.
    """

    dashboard: str
    title: str
    queries: tuple[str, ...]

    @property
    def name(self) -> str:
        """How the list of empty panels names it."""
        return f"{self.dashboard}: {self.title}"


class Prometheus:
    """The Prometheus that takes the release's monitors and rules.

    Args:
        deployment: Where.

    Raises:
        NotSupported: There is none.
    """

    def __init__(self, deployment: Session) -> None:
        self._deployment = deployment
        found = deployment.cluster.all("Prometheus", "")
        if not found:
            raise NotSupported("the cluster has no Prometheus of the operator's")
        self._path = f"/api/v1/namespaces/{found[0]['metadata']['namespace']}/{OPERATED}/api/v1"

    def ask(self, what: str, **query: str) -> Any:
        """Return the data of an answer.

        Raises:
            KubeError: It does not understand, or does not answer.
        """
        path = f"{self._path}/{what}" + (f"?{urlencode(query)}" if query else "")
        return self._deployment.cluster.kube.call("GET", path)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression finds now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """Return the targets of the release's namespace."""
        every: list[dict[str, Any]] = self.ask("targets", state="active")["activeTargets"]
        ours = self._deployment.release.namespace
        return [one for one in every if one["labels"].get("namespace") == ours]

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules that were loaded from the release's namespace."""
        groups: list[dict[str, Any]] = self.ask("rules")["groups"]
        ours = f"/{self._deployment.release.namespace}-"
        return [rule for group in groups if ours in group["file"] for rule in group["rules"]]

    def firing(self, alert: str, **labels: str) -> bool:
        """Whether an alert of the release fires."""
        labels = {"namespace": self._deployment.release.namespace, **labels}
        chosen = "".join(f', {name}="{value}"' for name, value in labels.items())
        return bool(self.query(f'ALERTS{{alertname="{alert}", alertstate="firing"{chosen}}}'))


class Rendered:
    """What the chart has rendered about monitoring, as Helm has stored it.

    Args:
        deployment: Whose release.
    """

    def __init__(self, deployment: Session) -> None:
        self._objects = deployment.release.objects

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self._objects if one["kind"] == kind]

    @property
    def monitors(self) -> list[str]:
        """Names of the ServiceMonitors."""
        return [one["metadata"]["name"] for one in self._of("ServiceMonitor")]

    def rules(self) -> list[dict[str, Any]]:
        """Return the rules."""
        groups = [group for one in self._of("PrometheusRule") for group in one["spec"]["groups"]]
        return [rule for group in groups for rule in group["rules"]]

    @functools.cached_property
    def panels(self) -> list[Panel]:
        """The panels of the dashboards."""
        found = []
        for one in self._of("ConfigMap"):
            for name, text in (one.get("data") or {}).items():
                if name.endswith(".json") and '"panels"' in text:
                    found += _panels(json.loads(text))
        return found


def _panels(dashboard: dict[str, Any]) -> list[Panel]:
    return [
        Panel(dashboard["uid"], panel["title"], tuple(one["expr"] for one in panel["targets"]))
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    ]


def with_choices(expression: str, namespace: str) -> str:
    """Return a panel's expression with everything chosen, and an interval of its own."""
    chosen = expression.replace("$__rate_interval", WINDOW)
    chosen = re.sub(r'=~?"\$namespace"', f'="{namespace}"', chosen)
    return re.sub(r'=~?"\$\w+"', '=~".+"', chosen)


def may_be_empty(*, disruptive: bool) -> dict[str, str]:
    """Return why a panel may have no data, by its name or its dashboard's.

    Args:
        disruptive: Whether the run has made the trouble that some panels show.
    """
    found: dict[str, dict[str, str]] = yaml.safe_load(EMPTY_PANELS.read_text(encoding="utf-8"))
    return found["parts"] | ({} if disruptive else found["trouble"])


def broken(prometheus: Prometheus, expressions: list[str]) -> list[str]:
    """Return what is wrong with each expression that Prometheus does not evaluate."""
    found = []
    for expression in expressions:
        try:
            prometheus.query(expression)
        except KubeError as error:
            found.append(f"{expression}: {error}")
    return found
