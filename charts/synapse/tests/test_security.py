"""Pod Security, memory limits, tokens and images of every pod that any values file makes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import (
    ALL_VALUES,
    CHART,
    ROOT,
    Pod,
    identify,
    manifests,
    name_of,
    of_kind,
    pods,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

# Third-party images that cannot meet "restricted"; the chart's README gives the reasons.
EXCEPTIONS = {"chatterbox-tts": "baseline", "dcgm-exporter": "privileged"}

CLUSTER_KINDS = ("ClusterRole", "ClusterRoleBinding")
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
BASELINE_VOLUMES = RESTRICTED_VOLUMES


def baseline_problems(pod: Pod) -> Iterator[str]:
    """Pod Security Standards, baseline: kubernetes.io/docs/concepts/security/."""
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(field):
            yield f"{field} is set"
    for volume in pod.spec.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"
    for container in pod.containers:
        context = container.get("securityContext", {})
        if context.get("privileged"):
            yield f"{container['name']} is privileged"
        if context.get("capabilities", {}).get("add"):
            yield f"{container['name']} adds {context['capabilities']['add']}"
        for port in container.get("ports", []):
            if port.get("hostPort"):
                yield f"{container['name']} has a hostPort"


def restricted_problems(pod: Pod) -> Iterator[str]:
    """Pod Security Standards, restricted, without what the pod level may set for a container."""
    yield from baseline_problems(pod)
    whole: dict[str, Any] = pod.spec.get("securityContext", {})
    if whole.get("runAsNonRoot") is not True or whole.get("runAsUser", 1) == 0:
        yield "may run as root"
    if whole.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        yield "has no seccomp profile"
    for volume in pod.spec.get("volumes", []):
        if not RESTRICTED_VOLUMES & set(volume):
            yield f"volume {volume['name']} has a kind that is not allowed"
    for container in pod.containers:
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield f"{container['name']} may gain privileges"
        if context.get("capabilities", {}).get("drop") != ["ALL"]:
            yield f"{container['name']} keeps capabilities"
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{container['name']} may write its root file system"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_pod_is_restricted_but_the_listed_ones(values: Path) -> None:
    problems = {}
    for pod in pods(manifests(values)):
        level = EXCEPTIONS.get(pod.name, "restricted")
        found = list(restricted_problems(pod))
        if level == "restricted" and found:
            problems[pod.owner] = found
        if level == "baseline":
            assert not list(baseline_problems(pod)), pod.owner
    assert problems == {}


def test_every_exception_is_needed_and_explained() -> None:
    everything = pods(manifests(CHART / "ci" / "all-components-values.yaml"))
    readme = (CHART / "README.md").read_text()
    for name, level in EXCEPTIONS.items():
        (pod,) = [pod for pod in everything if pod.name == name]
        assert list(restricted_problems(pod)), f"{name} could be restricted"
        assert f"| {name} | {level} |" in readme


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_container_has_a_memory_limit(values: Path) -> None:
    for pod in pods(manifests(values)):
        for container in pod.containers:
            resources = container.get("resources", {})
            assert resources.get("limits", {}).get("memory"), f"{pod.owner}: {container['name']}"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_only_pods_with_a_role_get_a_token(values: Path) -> None:
    objects = manifests(values)
    bound = {
        subject["name"]
        for binding in of_kind(objects, "RoleBinding")
        for subject in binding["subjects"]
    }
    for pod in pods(objects):
        wants = pod.spec.get("automountServiceAccountToken")
        assert wants is (pod.spec.get("serviceAccountName") in bound), pod.owner


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_roles_name_the_objects_that_they_change(values: Path) -> None:
    for role in of_kind(manifests(values), "Role"):
        for rule in role["rules"]:
            # `create` has no name to be narrowed to.
            assert rule.get("resourceNames") or rule["verbs"] == ["create"], role["metadata"][
                "name"
            ]


def test_nothing_outside_the_namespace_but_the_rights_of_the_move() -> None:
    for values in ALL_VALUES:
        names = {name_of(one) for one in manifests(values) if one["kind"].startswith("Cluster")}
        moves = values.stem == "all-components-values"
        wanted = {f"{kind}/synapse-decommission-llm-infra" for kind in CLUSTER_KINDS}
        assert names == (wanted if moves else set()), values.stem


def test_the_rights_of_the_move_are_those_that_its_own_tests_run_with() -> None:
    role = next(
        one
        for one in manifests(CHART / "ci" / "all-components-values.yaml")
        if one["kind"] == "ClusterRole"
    )
    source = ROOT / "gateway" / "synapse_gateway" / "decommission" / "clusterrole.yaml"
    assert role["rules"] == yaml.safe_load(source.read_text())["rules"]


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_every_image_has_a_fixed_version(values: Path) -> None:
    for pod in pods(manifests(values)):
        for container in pod.containers:
            reference = container["image"].split("/")[-1]
            assert re.fullmatch(r"[a-z0-9._-]+:[A-Za-z0-9._-]+(@sha256:[0-9a-f]{64})?", reference)
            assert ":latest" not in reference


def test_every_third_party_tag_names_the_source_that_was_read() -> None:
    text = (CHART / "values.yaml").read_text()
    tags = re.findall(r"((?:^ *#.*\n)*)^ +tag: (?!\"\")(.+)$", text, re.MULTILINE)
    assert len(tags) >= 10
    for comment, tag in tags:
        assert "# Source of the tag:" in comment, tag


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_no_secret_value_is_rendered(values: Path) -> None:
    objects = manifests(values)
    assert not of_kind(objects, "Secret")
    for pod in pods(objects):
        for container in pod.containers:
            for variable in container.get("env", []):
                if re.search(r"TOKEN|PASSWORD|KEY$", variable["name"]):
                    assert "valueFrom" in variable, f"{pod.owner}: {variable['name']}"


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_service_links_are_off_and_no_service_is_named_vllm(values: Path) -> None:
    objects = manifests(values)
    for pod in pods(objects):
        assert pod.spec.get("enableServiceLinks") is False, pod.owner
    assert "vllm" not in {service["metadata"]["name"] for service in of_kind(objects, "Service")}
