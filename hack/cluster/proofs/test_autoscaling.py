"""The gateway's pods follow its load, by metrics-server and the chart's autoscaler."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hack.cluster import inside, release
from hack.cluster.daemons import kubectl
from hack.cluster.settings import NAMESPACE
from hack.cluster.shell import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUTOSCALING = {"enabled": True, "minReplicas": 2, "maxReplicas": 3, "scaleDownSeconds": 0}
# Answered by the gateway alone: the engines are left in peace.
LOAD = """
import sys, threading, urllib.request
url, key = sys.argv[1:]
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + key})
def ask():
    while True:
        try:
            urllib.request.urlopen(request, timeout=10).read()
        except OSError:
            pass
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
threading.Event().wait()
"""


def replicas() -> int:
    """Ready pods of the gateway."""
    status = json.loads(kubectl("-n", NAMESPACE, "get", "deploy/synapse-gateway", "-o", "json"))
    return int(status["status"].get("readyReplicas", 0))


def utilization() -> str:
    """What the autoscaler reads, empty while there is nothing."""
    path = "{.status.currentMetrics[0].resource.current.averageUtilization}"
    return kubectl("-n", NAMESPACE, "get", "hpa/synapse-gateway", "-o", f"jsonpath={path}")


@pytest.fixture(autouse=True)
def autoscaled(tmp_path: Path) -> Iterator[None]:
    """The release with autoscaling on, for the length of a test."""
    values = tmp_path / "autoscaling.json"
    values.write_text(json.dumps({"gateway": {"autoscaling": AUTOSCALING}}))
    release.install(values)
    yield
    release.install()


def test_the_gateway_scales_out_under_load_and_in_afterwards() -> None:
    eventually("the autoscaler reads metrics", lambda: bool(utilization()), 90)
    secret = ["get", "secret", "synapse-api-keys", "-o", "jsonpath={.data.default}"]
    key = base64.b64decode(kubectl("-n", NAMESPACE, *secret)).decode()
    url = f"http://synapse-gateway.{NAMESPACE}:8000/v1/models"
    command, environment = inside.command("clients", [sys.executable, "-c", LOAD, url, key])
    with subprocess.Popen(command, env=environment) as load:
        try:
            eventually("three pods are ready", lambda: replicas() == 3, 120, utilization)
        finally:
            load.kill()
    eventually("two pods are left", lambda: replicas() == 2, 120, utilization)
