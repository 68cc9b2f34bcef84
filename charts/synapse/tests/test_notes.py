"""What `helm install` prints: a line that works, the models, and what to know."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from charts.synapse.tests.chart import CHART, PHASES, ROOT, run_helm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


WRAPPER = """{{{{- define "notes.under.test" -}}}}
{text}
{{{{- end }}}}
apiVersion: v1
kind: ConfigMap
metadata: {{name: notes}}
data:
  text: {{{{ include "notes.under.test" $ | quote }}}}
"""


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its notes as a ConfigMap: Helm shows notes only where a cluster answers."""
    copy = tmp_path_factory.mktemp("chart") / "synapse"
    shutil.copytree(CHART, copy, ignore=shutil.ignore_patterns("tests"))
    source = copy / "templates" / "NOTES.txt"
    wrapped = WRAPPER.format(text=source.read_text())
    source.with_name("notes.yaml").write_text(wrapped)
    source.unlink()
    return copy


@pytest.fixture
def notes(chart: Path) -> Callable[..., str]:
    def render(*values: Path, sets: tuple[str, ...] = ()) -> str:
        arguments = ["template", "synapse", str(chart), "--namespace", "llm-infra"]
        arguments += ["--show-only", "templates/notes.yaml"]
        for path in values:
            arguments += ["--values", str(path)]
        for one in sets:
            arguments += ["--set", one]
        done = run_helm("helm4", *arguments)
        assert done.returncode == 0, done.stderr
        text: str = yaml.safe_load(done.stdout)["data"]["text"]
        return text

    return render


def test_they_give_a_line_with_a_model_that_is_there(notes: Callable[..., str]) -> None:
    text = notes(ROOT / "values" / "embedded.yaml")
    assert '"model": "smollm2"' in text
    assert "get secret synapse-api-keys" in text
    assert "smollm2: llama-router, then ollama" in text
    assert "helm test synapse -n llm-infra" in text


def test_forge_is_reached_at_its_host_over_tls(notes: Callable[..., str]) -> None:
    text = notes(ROOT / "values" / "forge.yaml")
    assert "https://synapse.arunlabs.com/v1/chat/completions" in text
    assert "port-forward" not in text


def test_phase_1_tells_where_the_engine_is(notes: Callable[..., str]) -> None:
    text = notes(PHASES[0])
    assert "http://ollama.llm-infra.svc.cluster.local:11434" in text
    closed = notes(PHASES[0], sets=("networkPolicy.directAccess=null",))
    assert "nobody can call it yet" in closed


def test_anonymous_access_and_sleep_mode_are_warned_of(notes: Callable[..., str]) -> None:
    text = notes(PHASES[2], sets=("vllm.sleepMode=true",))
    assert "gateway.auth is `anonymous`" in text
    assert "On Blackwell cards it has known faults" in text
    quiet = notes(PHASES[4])
    assert "WARNING" not in quiet


def test_a_model_without_a_cpu_fallback_is_named(notes: Callable[..., str]) -> None:
    text = notes(sets=("vllm.enabled=true",))
    assert "NOTE: llama3.1-8b has no CPU fallback." in text


def test_the_curl_line_is_one_that_a_shell_takes(notes: Callable[..., str]) -> None:
    text = notes(ROOT / "values" / "starter.yaml")
    assert not re.search(r"<[a-z]+>", text), "no placeholder is left in it"
