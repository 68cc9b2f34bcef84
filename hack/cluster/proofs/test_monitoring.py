"""The live Prometheus scrapes by the chart's monitors and evaluates the chart's rules."""

from __future__ import annotations

import json
from typing import Any

from hack.cluster.daemons import kubectl
from hack.cluster.proofs.conftest import http
from hack.cluster.settings import NAMESPACE
from hack.cluster.shell import eventually

PROMETHEUS = "http://prometheus.monitoring:9090/api/v1"


def ask(path: str) -> Any:
    """The data of an answer of Prometheus' API."""
    return json.loads(http("clients", f"{PROMETHEUS}/{path}"))["data"]


def names(kind: str) -> set[str]:
    """Names of the release's objects of a kind."""
    listed = kubectl("-n", NAMESPACE, "get", kind, "-o", "name")
    return {line.rpartition("/")[2] for line in listed.splitlines()}


def unhealthy() -> set[str]:
    """Monitors of the release without a target that is up."""
    up = {
        target["labels"]["job"]
        for target in ask("targets?state=active")["activeTargets"]
        if target["health"] == "up" and target["labels"].get("namespace") == NAMESPACE
    }
    return names("servicemonitors") - up


def test_every_monitor_has_a_target_that_is_up() -> None:
    assert names("servicemonitors")
    eventually("every target is up", lambda: not unhealthy(), 60, lambda: str(unhealthy()))


def test_every_rule_is_loaded_and_evaluates() -> None:
    files = {group["file"].rpartition("/")[2] for group in ask("rules")["groups"]}
    for rule in names("prometheusrules"):
        assert any(rule in file for file in files), rule
    broken = [
        (rule["name"], rule["lastError"])
        for group in ask("rules")["groups"]
        for rule in group["rules"]
        if rule["health"] == "err"
    ]
    assert not broken


def test_containers_and_volumes_are_measured() -> None:
    for metric in ("container_memory_working_set_bytes", "kubelet_volume_stats_used_bytes"):
        query = f'query?query=count({metric}{{namespace="{NAMESPACE}"}})'
        eventually(metric, lambda query=query: bool(ask(query)["result"]), 60)  # type: ignore[misc]
