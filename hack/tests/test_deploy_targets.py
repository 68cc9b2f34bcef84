"""The make targets that deploy: what they send to kubectl and Helm, and what they refuse."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from hack import chart_render

MAKE = shutil.which("make") or "make"
ROOT = Path(__file__).resolve().parents[2]
CONTRACT = [
    "deploy",
    "deploy-phase1",
    "deploy-infra",
    "deploy-ollama",
    "deploy-llm",
    "deploy-stt",
    "deploy-speaker",
    "deploy-audio",
    "deploy-terminal-feed-bus",
    "deploy-gateway-secrets",
    "build-gateway",
    "release-gateway-remote",
    "manifests",
    "pull-models",
    "test-health",
    "test-embed",
    "test-tts",
    "logs",
    "logs-feed-bus",
    "show-routes",
    "validate",
    "clean",
]

# Stands for kubectl and helm: writes down how it was called, and answers from files whose first
# line is a part of the call.
RECORDER = """#!/usr/bin/env bash
name="$(basename "$0")"
printf '%s' "$name" >>"$RECORD"
printf ' %q' "$@" >>"$RECORD"
echo >>"$RECORD"
call="$name $*"
for answer in "$ANSWERS"/*; do
  [[ -f "$answer" ]] || continue
  pattern="$(head -n 1 "$answer")"
  if [[ "$call" == *"$pattern"* ]]; then
    tail -n +2 "$answer"
    exit 0
  fi
done
case "$call" in
  *" get "*) exit 1 ;;
esac
cat >/dev/null # what is piped into it; nothing otherwise
exit 0
"""


class Machine:
    """Recorded kubectl and Helm, and the targets run against them."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "record"
        self.answers = folder / "answers"
        self.answers.mkdir()
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("kubectl", "helm-recorded"):
            path = self.bin / name
            path.write_text(RECORDER)
            path.chmod(0o755)

    def answers_to(self, pattern: str, text: str) -> None:
        """Let calls that contain `pattern` succeed and print `text`."""
        path = self.answers / f"{len(list(self.answers.iterdir())):02}"
        path.write_text(f"{pattern}\n{text}")

    def ollama_leads_to(self, name: str) -> None:
        """Let the Service `ollama` be there, and select the pods of that name."""
        selector = f"    app.kubernetes.io/name: {name}\n"
        self.answers_to("get service ollama", f"spec:\n  selector:\n{selector}  type: x\n")

    def make(self, target: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"RECORD": str(self.record), "ANSWERS": str(self.answers)}
        settings = {
            "KUBECTL": str(self.bin / "kubectl"),
            "HELM": str(self.bin / "helm-recorded"),
        } | variables
        words = [f"{name}={value}" for name, value in settings.items()]
        return subprocess.run(
            [MAKE, "--no-print-directory", target, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )

    def calls(self) -> list[str]:
        return self.record.read_text().splitlines() if self.record.is_file() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    try:
        chart_render.tool("helm4")
    except chart_render.RenderError as error:
        pytest.skip(str(error))
    return Machine(tmp_path)


def test_every_target_of_the_contract_exists() -> None:
    for target in CONTRACT:
        done = subprocess.run(
            [MAKE, "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{target}: {done.stderr}"


def test_deploy_upgrades_with_the_values_and_the_registry(machine: Machine) -> None:
    done = machine.make("deploy", VALUES="values/phase1.yaml", REGISTRY="registry.example/ai")
    assert done.returncode == 0, done.stderr
    (upgrade,) = [call for call in machine.calls() if call.startswith("helm-recorded upgrade")]
    assert (
        "upgrade --install synapse charts/synapse --namespace llm-infra --create-namespace"
        in upgrade
    )
    assert "--values values/phase1.yaml --set images.registry=registry.example/ai" in upgrade


def test_deploy_phase1_is_the_starter_file(machine: Machine) -> None:
    assert machine.make("deploy-phase1").returncode == 0
    assert any("--values values/starter.yaml" in call for call in machine.calls())


def test_the_service_ollama_changes_hands_only_when_the_gateway_is_ready(machine: Machine) -> None:
    machine.ollama_leads_to("ollama")
    done = machine.make("deploy", VALUES="values/phase3.yaml", HELM="")
    # The pinned Helm has no cluster here; what matters is what it was asked first.
    assert "step 1 of 2" in done.stdout
    assert done.returncode != 0
    assert "step 2 of 2" not in done.stdout


def test_back_to_phase_2_the_gateway_ends_before_it_goes(machine: Machine) -> None:
    machine.ollama_leads_to("synapse-gateway")
    machine.answers_to("templates/ollama/service.yaml", "metadata:\n  name: ollama\n")
    done = machine.make("deploy", VALUES="values/phase2.yaml")
    assert done.returncode == 0, done.stderr
    looks = (" get ", "helm-recorded template")
    steps = [call for call in machine.calls() if not any(look in call for look in looks)]
    held, scaled, waited, upgraded = steps
    assert "--reset-then-reuse-values" in held
    assert "gateway.ollamaService.holdBack=true" in held
    assert "scale deployment/synapse-gateway --replicas=0" in scaled
    assert "wait --for=delete pod" in waited
    assert "--values values/phase2.yaml" in upgraded
    assert "holdBack" not in upgraded


def test_the_engine_beside_a_gateway_has_another_name(machine: Machine) -> None:
    machine.ollama_leads_to("synapse-gateway")
    machine.answers_to("templates/ollama/service.yaml", "metadata:\n  name: ollama-engine\n")
    done = machine.make("deploy", VALUES="values/phase4.yaml")
    assert done.returncode == 0, done.stderr
    assert "step" not in done.stdout


def test_a_service_that_is_the_gateways_already_needs_one_step(machine: Machine) -> None:
    machine.ollama_leads_to("synapse-gateway")
    done = machine.make("deploy", VALUES="values/phase3.yaml")
    assert done.returncode == 0
    assert "step" not in done.stdout


@pytest.mark.parametrize(
    ("target", "values", "sentence"),
    [
        pytest.param(
            "deploy-llm",
            "values/starter.yaml",
            "values/starter.yaml does not switch llama-router on; add to it:",
            id="absent",
        ),
        pytest.param(
            "deploy-stt",
            "values/phase1.yaml",
            "values/phase1.yaml does not switch whisper-stt on; add to it:",
            id="none-of-several",
        ),
        pytest.param(
            "deploy-terminal-feed-bus",
            "values/phase1.yaml",
            "values/phase1.yaml:13: terminal-feed-redis.enabled is false; change that line",
            id="false",
        ),
        pytest.param("deploy-audio", "values/missing.yaml", "there is no file", id="no-file"),
    ],
)
def test_a_component_that_is_off_is_refused_with_the_line_to_change(
    machine: Machine, target: str, values: str, sentence: str
) -> None:
    done = machine.make(target, VALUES=values)
    assert done.returncode != 0
    assert sentence in done.stderr
    assert not machine.calls()


@pytest.mark.parametrize(
    "target", ["ollama", "llm", "stt", "speaker", "audio", "terminal-feed-bus"]
)
def test_a_component_that_is_on_is_deployed(machine: Machine, target: str) -> None:
    done = machine.make(f"deploy-{target}", VALUES="values/forge.yaml")
    assert done.returncode == 0, done.stderr
    assert any(call.startswith("helm-recorded upgrade") for call in machine.calls())


def test_any_engine_of_a_kind_will_do(machine: Machine) -> None:
    assert machine.make("deploy-llm", VALUES="values/phase2.yaml").returncode == 0


def test_secrets_with_a_placeholder_are_refused(machine: Machine, tmp_path: Path) -> None:
    done = machine.make("deploy-gateway-secrets")
    assert done.returncode != 0
    assert "still hold the placeholder REPLACE_ME" in done.stderr
    assert not machine.calls()
    real = tmp_path / "secrets.yaml"
    example = (ROOT / "values" / "examples" / "gateway-secrets.yaml").read_text()
    real.write_text(re.sub(r"^([^#\n]*)REPLACE_ME", r"\1f00d", example, flags=re.MULTILINE))
    assert machine.make("deploy-gateway-secrets", GATEWAY_SECRETS_FILE=str(real)).returncode == 0
    assert machine.calls() == ["kubectl -n llm-infra apply -f -"]


def test_a_helm_elsewhere_gets_the_packed_chart_and_the_values(
    machine: Machine, tmp_path: Path
) -> None:
    """HELM="ssh forge sudo helm"; this `ssh` runs the command here."""
    ssh = machine.bin / "ssh"
    ssh.write_text('#!/bin/sh\nshift\nexec sh -c "$*"\n')
    ssh.chmod(0o755)
    remote = machine.bin / "helm-recorded"
    temporary = tmp_path / "elsewhere"
    temporary.mkdir()
    done = machine.make(
        "deploy",
        VALUES="values/phase1.yaml",
        HELM=f"{ssh} forge env TMPDIR={temporary} {remote}",
    )
    assert done.returncode == 0, done.stderr
    (upgrade,) = [call for call in machine.calls() if "upgrade" in call]
    assert re.search(rf"{temporary}/[^ /]+/chart.tgz --namespace", upgrade)
    assert re.search(rf"--values {temporary}/[^ /]+/values.yaml", upgrade)
    assert not list(temporary.iterdir()), "nothing is left behind there"


def test_a_helm_with_flags_of_its_own_is_run_here(machine: Machine) -> None:
    helm = f"{machine.bin / 'helm-recorded'} --kube-context=lab"
    done = machine.make("deploy", VALUES="values/phase1.yaml", HELM=helm)
    assert done.returncode == 0, done.stderr
    (upgrade,) = [call for call in machine.calls() if "upgrade" in call]
    assert "--kube-context=lab upgrade --install synapse charts/synapse" in upgrade


def test_clean_lists_what_is_lost_and_wants_the_name(machine: Machine) -> None:
    machine.answers_to("get namespace llm-infra", "llm-infra Active")
    machine.answers_to("-o name", "deployment.apps/ollama\npersistentvolumeclaim/ollama-models\n")
    done = machine.make("clean")
    assert done.returncode != 0
    assert "persistentvolumeclaim/ollama-models" in done.stdout
    assert "CONFIRM must be llm-infra" in done.stderr
    assert not [call for call in machine.calls() if "uninstall" in call or "delete" in call]


def test_clean_keeps_volumes_unless_purged(machine: Machine) -> None:
    machine.answers_to("get namespace llm-infra", "llm-infra Active")
    machine.answers_to("-o name", "deployment.apps/ollama\n")
    assert machine.make("clean", CONFIRM="llm-infra").returncode == 0
    assert any("uninstall synapse" in call for call in machine.calls())
    assert not any("delete namespace" in call for call in machine.calls())
    assert machine.make("clean", CONFIRM="llm-infra", PURGE="1").returncode == 0
    assert any("delete namespace llm-infra" in call for call in machine.calls())


def test_manifests_are_sorted_for_kubectl(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "manifests"
    done = machine.make("manifests", VALUES="values/phase5.yaml", MANIFESTS=str(out))
    # A recorded Helm renders nothing; the pinned one does.
    done = machine.make("manifests", VALUES="values/phase5.yaml", MANIFESTS=str(out), HELM="none")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {"infra", "apps", "monitoring"}
    assert (out / "infra" / "network-default-deny.yaml").is_file()
    assert (out / "apps" / "gateway-deployment.yaml").is_file()
    assert (out / "monitoring" / "monitoring-rules.yaml").is_file()
    assert not list(out.rglob("*smoke*")), "the test pod belongs to helm test"


def test_validate_dry_runs_where_a_cluster_answers(machine: Machine) -> None:
    machine.answers_to("get --raw /readyz", "ok")
    machine.answers_to("get namespace llm-infra", "llm-infra Active")
    settings = {"VALUES": "values/phase1.yaml", "HELM": "none"}
    done = machine.make("validate", **settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert any("apply --dry-run=server -f -" in call for call in machine.calls())
    assert "accepted by the cluster" in done.stdout


def test_pull_models_runs_the_job_again(machine: Machine) -> None:
    done = machine.make("pull-models", VALUES="values/phase1.yaml", HELM="none")
    assert done.returncode == 0, done.stderr
    verbs = [shlex.split(call)[3] for call in machine.calls()]
    assert verbs == ["delete", "apply", "wait", "logs", "wait"]
    without = machine.make("pull-models", VALUES="values/starter.yaml", HELM="none")
    assert without.returncode != 0
    assert "there is nothing to pull" in without.stderr


def test_probes_go_into_the_gateways_pod_or_else_ollamas(machine: Machine) -> None:
    done = machine.make("test-embed")
    assert done.returncode != 0
    assert "neither the gateway nor Ollama runs" in done.stderr
    machine.answers_to("get deployment ollama", "ollama")
    assert machine.make("test-embed").returncode == 0
    assert "exec -i deployment/ollama -- bash -s embed mxbai-embed-large" in machine.calls()[-1]
    machine.answers_to("get deployment synapse-gateway", "synapse-gateway")
    assert machine.make("test-tts").returncode == 0
    assert "deployment/synapse-gateway -c gateway -- python3 - tts" in machine.calls()[-1]


def test_infra_makes_the_namespace_and_names_what_is_missing(machine: Machine) -> None:
    done = machine.make("deploy-infra", VALUES="values/forge.yaml", HELM="none")
    assert done.returncode != 0
    assert "create namespace llm-infra" in " ".join(machine.calls())
    assert any("pod-security.kubernetes.io/enforce=privileged" in call for call in machine.calls())
    for thing in ("the StorageClass local-path", "nodes with nvidia.com/gpu", "hugging-face"):
        assert f"missing: {thing}" in done.stderr or thing in done.stderr
    assert "synapse-api-keys" not in done.stderr, "the Job makes it"
