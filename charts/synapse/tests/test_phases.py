"""What a step from one phase to the next does, and what it must leave alone."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import (
    CHART,
    PHASES,
    Manifest,
    identify,
    manifests,
    name_of,
    of_kind,
    pods,
    template,
)
from hack import chart_steps

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
STEPS = list(itertools.pairwise(PHASES))


def step_id(value: object) -> str | None:
    return identify(value)


@pytest.mark.parametrize(("before", "after"), STEPS, ids=step_id)
def test_a_step_restarts_nothing_of_an_earlier_phase(before: Path, after: Path) -> None:
    old = {pod.owner: pod for pod in pods(manifests(before)) if pod.long_running}
    new = {pod.owner: pod for pod in pods(manifests(after)) if pod.long_running}
    for owner, pod in old.items():
        assert new[owner] == pod, owner


@pytest.mark.parametrize(("before", "after"), STEPS, ids=step_id)
def test_a_step_changes_no_immutable_field(before: Path, after: Path) -> None:
    """A Deployment's selector, a Job's pod, a claim's class and a Service's address."""
    old = {name_of(one): one for one in manifests(before)}
    for one in manifests(after):
        was = old.get(name_of(one))
        if was is None:
            continue
        if one["kind"] in ("Deployment", "DaemonSet"):
            assert one["spec"]["selector"] == was["spec"]["selector"]
        if one["kind"] in ("Job", "PersistentVolumeClaim"):
            assert one["spec"] == was["spec"], name_of(one)


@pytest.mark.parametrize(("before", "after"), STEPS, ids=step_id)
def test_a_step_removes_nothing_but_finished_jobs(before: Path, after: Path) -> None:
    old = {name_of(one) for one in manifests(before)}
    new = {name_of(one) for one in manifests(after)}
    assert not [name for name in old - new if not name.startswith("Job/")]


def test_the_reviewed_files_are_what_the_steps_do() -> None:
    for path, text in chart_steps.texts().items():
        assert path.read_text() == text, "run `make chart` and review the difference"


def ollama_service(objects: list[Manifest]) -> dict[str, Any]:
    (service,) = [one for one in objects if name_of(one) == "Service/ollama"]
    spec: dict[str, Any] = service["spec"]
    return spec


def test_the_service_ollama_is_the_gateways_from_phase_3_on() -> None:
    names = [
        ollama_service(manifests(phase))["selector"]["app.kubernetes.io/name"] for phase in PHASES
    ]
    assert names == ["ollama", "ollama", *["synapse-gateway"] * 4]
    for phase in PHASES:
        assert ollama_service(manifests(phase))["ports"][0]["port"] == 11434


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """Values that leave the name `ollama` to the engine."""
    path = tmp_path / "hold.yaml"
    path.write_text("gateway: {ollamaService: {holdBack: true}}\n")
    return path


def test_held_back_the_service_stays_with_the_engine(hold: Path) -> None:
    phase3 = PHASES[2]
    held = manifests(phase3, hold)
    assert ollama_service(held)["selector"]["app.kubernetes.io/name"] == "ollama"
    # Everything else is there already, so that only the selector is left for the second step.
    rest = [one for one in held if name_of(one) != "Service/ollama"]
    assert rest == [one for one in manifests(phase3) if name_of(one) != "Service/ollama"]


def test_held_back_the_engine_is_open_to_applications(hold: Path) -> None:
    phase5 = PHASES[4]  # where applications may call no engine directly

    def callers(*files: Path) -> set[str]:
        (policy,) = [one for one in manifests(*files) if name_of(one) == "NetworkPolicy/ollama"]
        return {
            port["port"]
            for rule in policy["spec"]["ingress"]
            for port in rule["ports"]
            if "synapse.io/access" in str(rule)
        }

    assert callers(phase5) == set()
    assert callers(phase5, hold) == {11434}


def test_sleep_mode_is_off_in_every_phase() -> None:
    for phase in PHASES:
        assert "--enable-sleep-mode" not in template(phase)


def test_phase_1_is_ollama_alone() -> None:
    names = {name_of(one) for one in of_kind(manifests(PHASES[0]), "Deployment", "DaemonSet")}
    assert names == {"Deployment/ollama"}


def test_every_phase_pulls_the_models_of_the_contract() -> None:
    for phase in PHASES:
        text = template(phase)
        assert "mxbai-embed-large" in text
        assert "llama3.1:8b" in text


def test_defaults_of_ollama_are_those_of_the_contract() -> None:
    (ollama,) = [pod for pod in pods(manifests(PHASES[0])) if pod.name == "ollama"]
    (container,) = ollama.containers
    environment = {one["name"]: one.get("value") for one in container["env"]}
    assert environment["OLLAMA_KEEP_ALIVE"] == "-1"
    assert environment["OLLAMA_NUM_PARALLEL"] == "8"
    assert environment["OLLAMA_MAX_LOADED_MODELS"] == "2"
    assert environment["CUDA_VISIBLE_DEVICES"] == ""
    assert container["resources"] == {
        "requests": {"cpu": "8", "memory": "32Gi"},
        "limits": {"cpu": "32", "memory": "96Gi"},
    }


def test_threads_become_a_parameter_of_the_models(tmp_path: Path) -> None:
    threads = tmp_path / "threads.yaml"
    threads.write_text("ollama: {numThreads: 16}\n")
    text = template(PHASES[0], threads)
    assert '\\"num_thread\\":16' in text
    assert "OLLAMA_NUM_THREADS" not in text
    assert '\\"num_thread\\"' not in template(PHASES[0])


def test_every_template_of_the_chart_is_rendered_by_some_scenario() -> None:
    rendered = "".join(template(path) for path in [*PHASES, *(CHART / "ci").glob("*-values.yaml")])
    for path in (CHART / "templates").rglob("*.yaml"):
        relative = path.relative_to(CHART)
        if relative.name != "validate.yaml":
            assert f"# Source: synapse/{relative}" in rendered, relative


def test_argo_cd_moves_the_name_after_the_gateway_and_waits_for_no_download() -> None:
    waves = {
        name_of(one).rpartition("-")[0] if one["kind"] == "Job" else name_of(one): int(
            one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0")
        )
        for one in manifests(PHASES[2])
    }
    assert waves["Service/ollama"] > waves["Deployment/synapse-gateway"]
    assert waves["Job/ollama-pull"] == max(waves.values())
