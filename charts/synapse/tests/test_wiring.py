"""What refers to something refers to something that is there, and nothing is left over."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import (
    ALL_VALUES,
    CHART,
    Manifest,
    identify,
    manifests,
    matches,
    name_of,
    of_kind,
    pods,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# Secrets that people make themselves, by the values that name them.
GIVEN_SECRETS = {"hugging-face", "arunlabs-vllm", "shared-redis"}
# Contract: names and ports that applications call.
CONTRACT = {
    "synapse-gateway": 8000,
    "ollama": 11434,
    "vllm-inference": 8001,
    "dcgm-exporter": 9400,
    "llama-embed": 8081,
    "llama-router": 8082,
    "litellm-proxy": 8000,
    "speaches": 8000,
    "whisper-stt": 8000,
    "piper-tts": 5000,
    "openvoice": 8000,
    "chatterbox-tts": 8004,
    "pyannote-speaker": 8000,
    "deepfilter-audio": 8000,
    "terminal-feed-redis": 6379,
}


def test_services_have_the_names_and_ports_of_the_contract() -> None:
    objects = manifests(CHART / "ci" / "all-components-values.yaml")
    ports = {
        service["metadata"]["name"]: service["spec"]["ports"][0]["port"]
        for service in of_kind(objects, "Service")
    }
    assert CONTRACT.items() <= ports.items()


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_service_selects_pods_that_have_its_ports(values: Path) -> None:
    objects = manifests(values)
    for service in of_kind(objects, "Service"):
        selector = service["spec"]["selector"]
        behind = [pod for pod in pods(objects) if matches(selector, pod.labels)]
        assert behind, name_of(service)
        for port in service["spec"]["ports"]:
            for pod in behind:
                assert port["targetPort"] in pod.ports(), f"{name_of(service)}: {port['name']}"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_selector_matches_a_pod(values: Path) -> None:
    objects = manifests(values)
    labels = [pod.labels for pod in pods(objects)]
    for manifest in of_kind(objects, "Deployment", "DaemonSet", "PodDisruptionBudget"):
        selector = manifest["spec"]["selector"]["matchLabels"]
        assert [found for found in labels if matches(selector, found)], name_of(manifest)
    for policy in of_kind(objects, "NetworkPolicy"):
        selector = policy["spec"]["podSelector"].get("matchLabels", {})
        assert [found for found in labels if matches(selector, found)], name_of(policy)


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_monitor_finds_its_service_and_port(values: Path) -> None:
    objects = manifests(values)
    services = of_kind(objects, "Service")
    for monitor in of_kind(objects, "ServiceMonitor"):
        selector = monitor["spec"]["selector"]["matchLabels"]
        found = [one for one in services if matches(selector, one["metadata"]["labels"])]
        assert len(found) == 1, name_of(monitor)
        names = {port["name"] for port in found[0]["spec"]["ports"]}
        assert {end["port"] for end in monitor["spec"]["endpoints"]} <= names, name_of(monitor)


def _references(objects: list[Manifest]) -> Iterator[tuple[str, str, str]]:
    """Kind, name and user of everything that a pod names."""
    for pod in pods(objects):
        for volume in pod.spec.get("volumes", []):
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for source in sources:
                if "configMap" in source:
                    yield "ConfigMap", source["configMap"]["name"], pod.owner
                if "secret" in source:
                    secret = source["secret"]
                    yield "Secret", secret.get("secretName") or secret["name"], pod.owner
                if "persistentVolumeClaim" in source:
                    claim = source["persistentVolumeClaim"]["claimName"]
                    yield "PersistentVolumeClaim", claim, pod.owner
        for container in pod.containers:
            for variable in container.get("env", []):
                key = variable.get("valueFrom", {}).get("secretKeyRef")
                if key and not key.get("optional"):
                    yield "Secret", key["name"], pod.owner
        account = pod.spec.get("serviceAccountName")
        if account:
            yield "ServiceAccount", account, pod.owner


def _made_secrets(objects: list[Manifest]) -> set[str]:
    """Secrets that the Job or External Secrets makes."""
    made = {secret["metadata"]["name"] for secret in of_kind(objects, "ExternalSecret")}
    for pod in pods(objects):
        for container in pod.containers:
            for variable in container.get("env", []):
                if variable["name"] == "SECRETS":
                    made |= set(json.loads(variable["value"]))
    return made


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_everything_that_a_pod_names_exists(values: Path) -> None:
    objects = manifests(values)
    there = {(one["kind"], one["metadata"]["name"]) for one in objects}
    secrets = _made_secrets(objects) | GIVEN_SECRETS
    if "external" in values.stem:
        secrets |= {"synapse-api-keys", "synapse-internal"}  # keys.source: existing
    for kind, name, owner in _references(objects):
        found = name in secrets if kind == "Secret" else (kind, name) in there
        assert found, f"{owner} names {kind}/{name}"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_no_object_is_left_over(values: Path) -> None:
    objects = manifests(values)
    named = {(kind, name) for kind, name, _ in _references(objects)}
    for one in of_kind(objects, "ConfigMap", "PersistentVolumeClaim", "ServiceAccount"):
        if "grafana_dashboard" in one["metadata"]["labels"]:
            continue  # read by Grafana's sidecar
        assert (one["kind"], one["metadata"]["name"]) in named, name_of(one)


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_volumes_outlive_the_release(values: Path) -> None:
    for claim in of_kind(manifests(values), "PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_mount_has_a_volume_and_every_volume_a_mount(values: Path) -> None:
    for pod in pods(manifests(values)):
        volumes = {volume["name"] for volume in pod.spec.get("volumes", [])}
        mounts = {
            mount["name"]
            for container in pod.containers
            for mount in container.get("volumeMounts", [])
        }
        assert mounts == volumes, pod.owner


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_long_running_containers_are_probed(values: Path) -> None:
    for pod in pods(manifests(values)):
        if not pod.long_running:
            continue
        main = pod.spec["containers"][0]
        assert {"readinessProbe", "livenessProbe"} <= set(main), pod.owner


def test_the_grace_of_the_gateway_covers_its_drain() -> None:
    (gateway,) = [pod for pod in pods(manifests()) if pod.name == "synapse-gateway"]
    (container,) = gateway.containers
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    config = next(
        one for one in of_kind(manifests(), "ConfigMap") if one["metadata"]["name"] == gateway.name
    )
    (drain,) = re.findall(r"shutdown_grace: (\d+)", config["data"]["backends.yaml"])
    assert gateway.spec["terminationGracePeriodSeconds"] > pause + int(drain)


def test_a_changed_route_table_rolls_no_gateway_pod(tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text("ollama: {enabled: true}\npiper-tts: {enabled: true}\n")

    def gateway(*values: Path) -> Any:
        return next(pod for pod in pods(manifests(*values)) if pod.name == "synapse-gateway")

    assert gateway() == gateway(more)
