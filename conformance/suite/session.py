"""The deployment that a run looks at."""

from __future__ import annotations

import functools
import re
import subprocess
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from conformance.suite.cluster import Cluster
from conformance.suite.gateway import Gateway
from conformance.suite.lab import Lab
from conformance.suite.lines import NotLookedAt, SuiteError
from conformance.suite.release import GATEWAY, Release
from synapse_gateway.decommission.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.suite.options import Options


IN_CLUSTER = "http://{name}.{namespace}.svc.cluster.local:8000"


class Session:
    """What was found at the addresses that the options name.

    Args:
        options: The run's options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._closing = ExitStack()

    @functools.cached_property
    def cluster(self) -> Cluster:
        """The cluster.

        Raises:
            NotLookedAt: None was named.
            SuiteError: It cannot be reached.
        """
        if not self.options.kubeconfig:
            raise NotLookedAt("no --kubeconfig: only the API was looked at")
        cluster = Cluster(self.options)
        self._closing.callback(cluster.hand_back)
        return cluster

    @functools.cached_property
    def release(self) -> Release:
        """The release in the namespace of the options."""
        return Release(self.cluster, self.options.namespace)

    @functools.cached_property
    def lab(self) -> Lab:
        """The suite's own pods."""
        lab = Lab(self.cluster, self.release)
        self._closing.callback(lab.close)
        return lab

    def need_disruptive(self) -> None:
        """Go on only where the deployment may be broken.

        Raises:
            NotLookedAt: It may not.
        """
        _ = self.cluster
        if not self.options.disruptive:
            raise NotLookedAt("it breaks a part of the deployment: --disruptive allows that")

    @functools.cached_property
    def gateway(self) -> Gateway:
        """The gateway.

        Raises:
            pytest.UsageError: Nothing answers there.
        """
        key = self.options.api_key
        if not key and self.options.kubeconfig:
            key = self.release.key()
        gateway = Gateway(self.options.gateway_url or self._address(), key)
        self._closing.callback(gateway.close)
        try:
            answer = gateway.http.get("/health", timeout=20)
        except httpx.HTTPError as error:
            raise pytest.UsageError(f"no gateway answers at {gateway.url}: {error}") from None
        if answer.status_code != 200:
            raise pytest.UsageError(
                f"{gateway.url}/health answers {answer.status_code}: is this a Synapse gateway?"
            )
        return gateway

    def _address(self) -> str:
        """Return where the cluster's gateway is, from inside the cluster or through kubectl."""
        _ = self.release.gateway
        inside = IN_CLUSTER.format(name=GATEWAY, namespace=self.release.namespace)
        try:
            httpx.get(f"{inside}/livez", timeout=5, trust_env=False)
        except httpx.HTTPError:
            return self._closing.enter_context(forwarded(self.cluster, GATEWAY, 8000))
        return inside

    def check(self) -> None:
        """See that there is something to look at.

        Raises:
            pytest.UsageError: There is not.
        """
        try:
            _ = self.gateway
        except (SuiteError, KubeError) as error:
            raise pytest.UsageError(str(error)) from None

    def facts(self) -> list[tuple[str, str]]:
        """What heads a report."""
        facts = [("gateway", self.gateway.url)]
        facts += [("version", str(self.gateway.health.get("version", "unknown")))]
        facts += [("configuration", self.gateway.config_hash()[:12] or "unknown")]
        names = [model["id"] for model in self.gateway.models]
        facts += [("models", ", ".join(names) or "none")]
        backends = self.gateway.health.get("backends", {})
        facts += [("backends", ", ".join(f"{n} ({b.get('type')})" for n, b in backends.items()))]
        if self.options.kubeconfig:
            nodes = self.cluster.all("Node", "")
            facts += [("Kubernetes", f"{self.cluster.version}, {len(nodes)} nodes")]
            stored = self.release.stored
            chart = stored.get("chart", {}).get("metadata", {}).get("version", "unknown")
            facts += [("release", f"{self.release.namespace}, chart {chart}")]
        facts += [
            (
                "traffic under faults",
                f"{self.options.streams} streams, {self.options.rate:g} requests/s",
            )
        ]
        facts += [("disruptive", "yes" if self.options.disruptive else "no")]
        return facts

    def close(self) -> None:
        """Let go of everything, and remove what was made."""
        self._closing.close()


@contextmanager
def forwarded(cluster: Cluster, service: str, port: int) -> Iterator[str]:
    """Give a local URL by which kubectl leads to a Service of the release.

    Raises:
        SuiteError: It does not.
    """
    command = [*cluster.kubectl, "port-forward", "-n", cluster.namespace]
    with subprocess.Popen(  # noqa: S603 - kubectl
        [*command, f"service/{service}", f":{port}"], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not found:
                raise SuiteError(f"kubectl port-forward service/{service} did not begin: {line}")
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()


SESSION = pytest.StashKey[Session]()
"""Where a run's deployment is kept."""
