"""What the documentation of the deployment says is so."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import yaml
from charts.synapse.tests.chart import CHART, PHASES, ROOT, VALUES, manifests

if TYPE_CHECKING:
    from pathlib import Path

DOCS = [
    ROOT / "docs" / "DEPLOYMENT.md",
    ROOT / "docs" / "gitops.md",
    *sorted((ROOT / "docs" / "phases").glob("*.md")),
]


def identify(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", [*DOCS, CHART / "README.md"], ids=identify)
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCS, ids=identify)
def test_every_make_target_exists(path: Path) -> None:
    files = [ROOT / "Makefile", *ROOT.glob("hack/**/*.mk")]
    known = {
        target
        for file in files
        for target in re.findall(r"^([a-z0-9-]+):", file.read_text(), re.MULTILINE)
    }
    for line in re.findall(r"^make (.+)$", path.read_text(), re.MULTILINE):
        words = line.partition("#")[0].split()
        for word in words:
            if re.fullmatch(r"[a-z0-9-]+", word) and not word.startswith("sudo"):
                if "=" in word or word in ("ssh", "forge", "kubectl", "helm"):
                    continue
                assert word in known, f"make {line}"


@pytest.mark.parametrize("path", DOCS, ids=identify)
def test_every_value_that_is_named_exists(path: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for name in re.findall(r"`([a-z][\w-]*(?:\.[\w-]+)+)", path.read_text()):
        first, *rest = name.split(".")
        if first not in values or first == "models":
            continue
        node = values[first]
        for key in rest:
            if not isinstance(node, dict) or not node:
                break  # a map that people fill
            assert key in node, name
            node = node[key]


@pytest.mark.parametrize("values", VALUES, ids=identify)
def test_every_values_file_is_in_the_guide(values: Path) -> None:
    text = (ROOT / "docs" / "DEPLOYMENT.md").read_text()
    name = "phase1.yaml ... phase6.yaml" if values.stem.startswith("phase") else values.name
    assert name in text


def test_every_phase_has_its_page_with_acceptance_figures() -> None:
    for number in range(1, 7):
        text = (ROOT / "docs" / "phases" / f"phase{number}.md").read_text()
        assert "## Acceptance" in text
        assert "## Back" in text


def test_the_example_of_the_guide_adds_a_model(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "DEPLOYMENT.md").read_text()
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "qwen3" in one]
    more = tmp_path / "more.yaml"
    more.write_text(block + "vllm: {instances: {second: {}}}\ngpu: {memory: 80Gi, timeSlices: 4}\n")
    config = next(
        one["data"]["backends.yaml"]
        for one in manifests(PHASES[2], more)
        if one["kind"] == "ConfigMap" and "backends.yaml" in one["data"]
    )
    targets = yaml.safe_load(config)["models"]["qwen3-8b"]["targets"]
    assert [target["backend"] for target in targets] == ["vllm-second", "ollama"]


def test_shell_scripts_parse() -> None:
    for path in sorted((ROOT / "hack").glob("chart-*.sh")):
        done = subprocess.run(
            ["/bin/bash", "-n", path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_metric_that_pods_scale_by_is_one_of_the_gateways() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    metric = values["gateway"]["autoscaling"]["inFlight"]["metric"]
    assert f"| `{metric}` |" in (ROOT / "docs" / "metrics.md").read_text()


def test_every_environment_variable_of_the_gateway_is_one_that_it_documents() -> None:
    """The chart's own ones, which expand in others, are left out."""
    text = (CHART / "templates" / "gateway" / "_env.tpl").read_text()
    names = set(re.findall(r"SYNAPSE_[A-Z_]+", text))
    contract = (ROOT / "docs" / "configuration.md").read_text()
    known = {name for name in names if name in contract}
    # Read by rooms that the configuration page does not cover.
    assert names - known <= {
        "SYNAPSE_DASHBOARD_ACCESS_TOKEN",
        "SYNAPSE_DASHBOARD_COOKIE_SECURE",
        "SYNAPSE_LLAMA_ROUTER_CONTAINER_NAME",
        "SYNAPSE_LLAMA_ROUTER_DEPLOYMENT_NAME",
        "SYNAPSE_LLAMA_ROUTER_DEPLOYMENT_NAMESPACE",
        "SYNAPSE_MODEL_PROFILES_PATH",
        "SYNAPSE_RUNTIME_RECONFIGURE_TIMEOUT_SECONDS",
        "SYNAPSE_TERMINAL_FEED_BUS_MODE",
        "SYNAPSE_TERMINAL_FEED_MODE",
        "SYNAPSE_TERMINAL_FEED_REDIS_URL",
        "SYNAPSE_VOICE_LIBRARY_DIR",
    }
