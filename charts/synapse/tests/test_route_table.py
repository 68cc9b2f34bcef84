"""The rendered route table, read by the gateway's own loader."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import ALL_VALUES, CHART, identify, manifests, of_kind

from synapse_gateway.config.load import Loaded, load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def table_text(*values: Path) -> str | None:
    for config in of_kind(manifests(*values), "ConfigMap"):
        if "backends.yaml" in config["data"]:
            text: str = config["data"]["backends.yaml"]
            return text
    return None


def loaded(tmp_path: Path, *values: Path) -> Loaded:
    text = table_text(*values)
    assert text is not None
    path = tmp_path / "backends.yaml"
    path.write_text(text)
    return load(path, {"LITELLM_MASTER_KEY": "set"})


def rendered(tmp_path: Path, **values: Any) -> Loaded:
    text = yaml.safe_dump(values)
    # Rendered files are remembered by their path.
    path = tmp_path / f"values-{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    path.write_text(text)
    return loaded(tmp_path, path)


def targets(found: Loaded, model: str) -> list[tuple[str, int]]:
    return [(target.backend, target.order) for target in found.settings.models[model].targets]


@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_the_gateway_takes_what_is_rendered(values: Path, tmp_path: Path) -> None:
    text = table_text(values)
    if text is None:
        assert values.stem in ("phase1", "phase2"), "a gateway without a configuration"
        return
    found = loaded(tmp_path, values)
    # The keys are files of a pod, not of this machine.
    unexpected = [str(one) for one in found.warnings if "/etc/synapse/" not in str(one)]
    assert not [one for one in unexpected if "fall back" not in one and "GPU only" not in one]


def test_vllm_beside_ollama_puts_the_gpu_first_with_no_other_change(tmp_path: Path) -> None:
    alone = rendered(tmp_path, ollama={"enabled": True})
    assert targets(alone, "llama3.1-8b") == [("ollama", 1)]
    both = rendered(tmp_path, ollama={"enabled": True}, vllm={"enabled": True})
    assert targets(both, "llama3.1-8b") == [("vllm-inference", 1), ("ollama", 2)]
    assert both.settings.models["llama3.1-8b"].aliases == ("llama3.1", "llama3.1:8b")


def test_the_rows_of_the_routing_table(tmp_path: Path) -> None:
    names = ["whisper-stt", "speaches", "piper-tts", "openvoice", "chatterbox-tts"]
    names += ["pyannote-speaker", "deepfilter-audio", "llama-embed"]
    found = rendered(tmp_path, **{name: {"enabled": True} for name in names})
    assert targets(found, "whisper-1") == [("whisper-stt", 1), ("speaches", 2)]
    assert targets(found, "tts-1") == [("piper-tts", 1)]
    high = [("chatterbox-tts", 1), ("openvoice", 2), ("piper-tts", 3)]
    assert targets(found, "tts-1-hd") == high
    assert targets(found, "snowflake-arctic-embed2:latest") == [("llama-embed", 1)]
    # what is named by a path alone falls back as well: the gateway knows which kinds serve it
    routes = {path.strip("/") for path in found.settings.routes}
    assert not {"stt/*", "tts/*", "voices/*", "speakers/*", "audio/*"} & routes


def test_a_model_whose_engines_are_all_off_is_left_out(tmp_path: Path) -> None:
    found = rendered(tmp_path, **{"piper-tts": {"enabled": True}})
    assert set(found.settings.models) == {"tts-1", "tts-1-hd"}


def test_a_fallback_whose_engines_are_all_off_is_left_out(tmp_path: Path) -> None:
    target = {"source": "x"}
    models = {
        "a": {"service": "llm", "targets": {"ollama": target}, "fallbacks": ["b", "c"]},
        "b": {"service": "llm", "targets": {"sglang": target}},
        "c": {"service": "llm", "targets": {"ollama": target}, "contextFallback": "b"},
    }
    found = rendered(tmp_path, ollama={"enabled": True}, models=models).settings.models
    assert found["a"].fallbacks == ("c",)
    assert found["c"].context_fallback is None


def test_slots_and_video_memory_reach_the_backends(tmp_path: Path) -> None:
    found = rendered(tmp_path, ollama={"enabled": True, "numParallel": 3}, vllm={"enabled": True})
    backends = found.settings.backends
    assert backends["ollama"].slots == 3
    assert backends["vllm-inference"].slots == 16
    vram = backends["vllm-inference"].vram
    assert vram is not None
    assert vram.awake == int(13.5 * 1024**3)


def test_an_external_engine_is_reached_at_its_url_with_its_key(tmp_path: Path) -> None:
    found = loaded(tmp_path, CHART / "ci" / "external-values.yaml")
    vllm = found.settings.backends["vllm-inference"]
    assert vllm.url == "https://vllm.example:8443/v1"
    assert vllm.api_key_file == "/etc/synapse/backends/vllm-inference"
    assert targets(found, "llama3.1-8b") == [("vllm-inference", 1), ("ollama", 2)]
    assert "coqui" in found.settings.backends


def test_anonymous_access_is_an_explicit_value(tmp_path: Path) -> None:
    assert rendered(tmp_path).settings.auth == "keys"
    assert rendered(tmp_path, gateway={"auth": "anonymous"}).settings.auth == "anonymous"


def test_no_70b_model_is_routed_on_forge(tmp_path: Path) -> None:
    forge = next(path for path in ALL_VALUES if path.stem == "forge")
    names = str(loaded(tmp_path, forge).settings.models).lower()
    assert "70b" not in names


def test_uploads_have_two_thirds_of_their_volume(tmp_path: Path) -> None:
    assert rendered(tmp_path).settings.limits.spool.max_bytes == 2 << 30
    small = rendered(tmp_path, gateway={"spool": {"size": "300Mi"}})
    assert small.settings.limits.spool.max_bytes == 200 << 20
    own = rendered(tmp_path, gateway={"limits": {"spool": {"max_bytes": 1000000}}})
    assert own.settings.limits.spool.max_bytes == 1000000


@pytest.mark.parametrize("allowed", [True, False])
def test_the_standard_voice_speaks_for_another_where_values_say_so(
    tmp_path: Path, *, allowed: bool
) -> None:
    found = rendered(tmp_path, gateway={"voices": {"allowStandard": allowed}})
    assert found.settings.voices.allow_standard is allowed
