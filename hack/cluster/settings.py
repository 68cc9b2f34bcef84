"""Where the cluster keeps its things, which addresses it has, and which versions it is made of."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "synapse"
TOOLS = CACHE / "tools"

# Another name is another cluster: two can run beside each other.
NAME = os.environ.get("CLUSTER_NAME", "synapse")
STATE = CACHE / "cluster" / NAME
RUN = STATE / "run"  # goes with the cluster
LOGS = STATE / "logs"  # of the last start
KUBECONFIG = RUN / "kubeconfig"

NODES = ("node1", "node2")

# 198.18.0.0/15 is reserved for benchmarks (RFC 2544): nothing of it is routed anywhere.
ADDRESS_SPACE = "198.18.0.0/15"
POD_RANGE = "198.18.0.0/16"
SERVICE_RANGE = "198.19.0.0/17"
NODE_ADDRESS = {"node1": "198.19.255.1", "node2": "198.19.255.2"}
API_SERVICE_ADDRESS = "198.19.0.1"
DNS_ADDRESS = "198.19.0.10"
# A host that is neither a pod nor a node: what egress policies keep pods from.
OUTSIDE_ADDRESS = "198.19.254.1"

NAMESPACE = os.environ.get("NAMESPACE", "llm-infra")
RELEASE = os.environ.get("RELEASE", "synapse")
CLIENTS_NAMESPACE = "clients"  # may call the gateway
FOREIGN_NAMESPACE = "foreign"  # may call nothing


class ClusterError(Exception):
    """What went wrong, as a sentence that says what to do."""


def pins() -> dict[str, str]:
    """Every pinned version, read from hack/tools/versions.env."""
    text = (ROOT / "hack" / "tools" / "versions.env").read_text(encoding="utf-8")
    return dict(re.findall(r'^([A-Z0-9_]+)="([^"]*)"', text, re.MULTILINE))
