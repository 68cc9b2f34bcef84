"""Installs and upgrades against a real API server: what it refuses, what a step leaves alone."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.api_server import Cluster, running
from charts.synapse.tests.chart import (
    ALL_VALUES,
    CHART,
    HELMS,
    NAMESPACE,
    PHASES,
    RELEASE,
    identify,
    template,
    tool,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow
SCRIPTS = CHART / "files" / "scripts"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("cluster")) as found:
        for path in sorted(Path(tool("crds")).iterdir()):
            if path.suffix in (".yaml", ".yml", ".json"):
                found.kubectl("apply", "--server-side", "-f", str(path))
        found.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
        found.kubectl("create", "namespace", NAMESPACE)
        # What a controller would make, were there one.
        found.kubectl("create", "serviceaccount", "default", "-n", NAMESPACE)
        found.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/warn=restricted")
        yield found


@pytest.fixture
def release(cluster: Cluster) -> Iterator[Cluster]:
    """A namespace without a release, before and after."""
    yield cluster
    cluster.helm("helm4", "uninstall", RELEASE, "-n", NAMESPACE, "--ignore-not-found")
    for kind in ("persistentvolumeclaims", "secrets"):
        names = [one["metadata"]["name"] for one in cluster.get(kind)["items"]]
        for name in names:
            patch = '{"metadata": {"finalizers": null}}'
            cluster.kubectl("patch", kind, name, "--type=merge", "-p", patch)
            cluster.kubectl("delete", kind, name, "--wait=false", "--ignore-not-found")


def upgrade(cluster: Cluster, helm: str, values: Path, *more: str) -> None:
    cluster.helm(
        helm,
        *("upgrade", "--install", RELEASE, str(CHART), "-n", NAMESPACE),
        *("--values", str(values), *more),
    )


def pod_templates(cluster: Cluster) -> dict[str, Any]:
    """Templates of what runs, by name, as the server stores them."""
    return {
        f"{one['kind']}/{one['metadata']['name']}": one["spec"]["template"]
        for one in cluster.get("deployments,daemonsets")["items"]
    }


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_the_server_takes_every_object_and_warns_of_listed_pods_only(
    cluster: Cluster, values: Path
) -> None:
    text = template(values)
    command = [tool("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "-n", NAMESPACE]
    command += ["apply", "--dry-run=server", "--validate=strict", "-f", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if "Warning" in line]
    assert bool(warnings) == ("name: chatterbox-tts" in text), "does the server judge at all?"
    # Pod Security, judged by the server itself; the chart's README lists these two.
    assert not [
        line for line in warnings if not re.search(r'"(chatterbox-tts|dcgm-exporter)"', line)
    ]


@pytest.mark.parametrize("helm", HELMS)
def test_phases_upgrade_one_into_the_next_and_back(release: Cluster, helm: str) -> None:
    before: dict[str, Any] = {}
    for phase in PHASES:
        upgrade(release, helm, phase)
        now = pod_templates(release)
        assert {name: now[name] for name in before} == before, f"{phase.stem} restarted something"
        before = now
    for phase in reversed(PHASES[:-1]):
        upgrade(release, helm, phase)
        now = pod_templates(release)
        assert now == {name: before[name] for name in now}, f"back to {phase.stem}"
    assert set(pod_templates(release)) == {"Deployment/ollama"}


def test_volumes_are_still_there_when_the_release_is_gone(release: Cluster) -> None:
    upgrade(release, "helm4", PHASES[3])
    release.helm("helm4", "uninstall", RELEASE, "-n", NAMESPACE)
    names = {one["metadata"]["name"] for one in release.get("persistentvolumeclaims")["items"]}
    assert {"ollama-models", "synapse-voices"} <= names
    upgrade(release, "helm4", PHASES[3], "--take-ownership")


def account(cluster: Cluster, name: str, folder: Path) -> dict[str, str]:
    """Environment of a pod that runs as a service account."""
    folder.mkdir()
    (folder / "token").write_text(cluster.kubectl("create", "token", name, "-n", NAMESPACE))
    (folder / "ca.crt").write_text(cluster.certificate.read_text())
    return {
        "KUBERNETES_API": cluster.url,
        "ACCOUNT_DIRECTORY": str(folder),
        "NAMESPACE": NAMESPACE,
        "RELEASE": RELEASE,
    }


def run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-S", str(SCRIPTS / f"{script}.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_keys_job_makes_secrets_with_the_role_that_it_has(
    release: Cluster, tmp_path: Path
) -> None:
    upgrade(release, "helm4", PHASES[2])
    (job,) = [
        one
        for one in release.get("jobs")["items"]
        if one["metadata"]["name"].startswith("synapse-keys-")
    ]
    container = job["spec"]["template"]["spec"]["containers"][0]
    wanted = next(one["value"] for one in container["env"] if one["name"] == "SECRETS")
    environment = account(release, "synapse-keys", tmp_path / "account") | {"SECRETS": wanted}
    first = run("make_keys", environment)
    assert first.returncode == 0, first.stderr
    made = release.get("secret", "synapse-api-keys")["data"]
    assert len(base64.b64decode(made["default"])) == 64
    release.kubectl("patch", "secret", "synapse-api-keys", "-p", '{"stringData": {"mine": "kept"}}')
    release.kubectl(
        *("patch", "secret", "synapse-internal", "--type=json"),
        *("-p", '[{"op": "remove", "path": "/data/redis-password"}]'),
    )
    second = run("make_keys", environment)
    assert "synapse-api-keys: there already" in second.stdout
    assert "synapse-internal: added redis-password" in second.stdout
    after = release.get("secret", "synapse-api-keys")["data"]
    assert after["default"] == made["default"]
    assert base64.b64decode(after["mine"]) == b"kept"


def test_the_keys_account_may_do_nothing_else(release: Cluster) -> None:
    upgrade(release, "helm4", PHASES[2])
    who = f"--as=system:serviceaccount:{NAMESPACE}:synapse-keys"
    rights = release.kubectl("auth", "can-i", "--list", who, "-n", NAMESPACE)
    secrets = [line.split() for line in rights.splitlines() if line.startswith("secrets")]
    assert sorted(line[1:] for line in secrets) == [
        ["[]", "[]", "[create]"],
        ["[]", "[synapse-api-keys]", "[get", "patch]"],
        ["[]", "[synapse-internal]", "[get", "patch]"],
    ]
    assert not [line for line in rights.splitlines() if line.startswith(("pods", "deployments"))]


def test_the_daily_roll_changes_the_one_deployment_that_it_may(
    release: Cluster, tmp_path: Path
) -> None:
    upgrade(release, "helm4", CHART / "ci" / "all-components-values.yaml")
    before = pod_templates(release)
    environment = account(release, "litellm-roll", tmp_path / "account")
    done = run("roll_deployment", environment | {"DEPLOYMENT": "litellm-proxy"})
    assert done.returncode == 0, done.stderr
    changed = [name for name, one in pod_templates(release).items() if one != before[name]]
    assert changed == ["Deployment/litellm-proxy"]
    refused = run("roll_deployment", environment | {"DEPLOYMENT": "synapse-gateway"})
    assert refused.returncode == 1
    assert "403" in refused.stderr
