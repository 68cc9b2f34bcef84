"""Weights: who brings them, where they end up, and who may ask how far they are."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import CHART, PHASES, Manifest, Pod, manifests, of_kind, pods

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def rendered(folder: Path, text: str) -> list[Manifest]:
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:8]}.yaml"
    path.write_text(text)
    return manifests(path)


def pod_of(objects: list[Manifest], name: str) -> Pod:
    return next(pod for pod in pods(objects) if pod.name == name)


def variable(pod: Pod, container: str, name: str) -> Any:
    found = next(one for one in pod.containers if one["name"] == container)
    return next(one["value"] for one in found["env"] if one["name"] == name)


def edges(objects: list[Manifest]) -> set[tuple[str, str, int]]:
    deny = next(one for one in objects if one["metadata"]["name"] == "default-deny")
    table = json.loads(deny["metadata"]["annotations"]["synapse.io/edges"])
    return {(edge["from"], edge["to"], edge["port"]) for edge in table}


ENGINES = """
vllm: {enabled: true}
sglang: {enabled: true}
tensorrt-llm: {enabled: true}
models:
  llama3.1-8b: {targets: {vllm-inference: {source: org/llama@v1}}}
  own: {service: llm, targets: {sglang: {source: /cache/mine}}}
  other: {service: llm, targets: {tensorrt-llm: {source: org/other}}}
huggingFace: {tokenSecret: hugging-face}
"""


def test_gpu_engines_find_their_weights_in_a_folder(tmp_path: Path) -> None:
    objects = rendered(tmp_path, ENGINES)
    vllm = pod_of(objects, "vllm-inference")
    assert json.loads(variable(vllm, "fetch", "FILES")) == [
        {
            "model": "llama3.1-8b",
            "source": "hf://org/llama@v1",
            "path": "/cache/models/org/llama@v1",
        }
    ]
    (engine,) = vllm.spec["containers"]
    assert "--model=/cache/models/org/llama@v1" in engine["args"]
    assert "--served-model-name=llama3.1-8b" in engine["args"]
    sglang = pod_of(objects, "sglang")
    assert "initContainers" not in sglang.spec
    assert "--model-path=/cache/mine" in sglang.spec["containers"][0]["args"]
    (server,) = pod_of(objects, "tensorrt-llm").spec["containers"]
    assert server["args"][:2] == ["serve", "/cache/models/org/other"]


def test_the_token_is_given_to_the_download_and_not_to_the_engine(tmp_path: Path) -> None:
    for pod in pods(rendered(tmp_path, ENGINES)):
        with_token = [
            container["name"]
            for container in pod.containers
            if any(one["name"] == "HF_TOKEN" for one in container.get("env", []))
        ]
        assert with_token in ([], ["fetch"]), pod.owner


def test_the_gateway_may_ask_whoever_downloads_and_nobody_else() -> None:
    objects = manifests(CHART / "ci" / "all-components-values.yaml")
    asked = {to for source, to, port in edges(objects) if port == 8099}
    telling = {pod.name for pod in pods(objects) if "progress" in pod.ports()}
    assert asked == telling
    assert {"ollama-pull", "vllm-inference", "llama-embed", "whisper-stt"} <= telling
    (service,) = [
        one for one in of_kind(objects, "Service") if one["metadata"]["name"] == "model-downloads"
    ]
    assert service["spec"]["publishNotReadyAddresses"], "a pod that downloads is not ready"
    behind = {
        pod.name
        for pod in pods(objects)
        if service["spec"]["selector"].items() <= pod.labels.items()
    }
    assert behind == telling


def test_a_phase_without_a_gateway_has_nobody_who_asks() -> None:
    objects = manifests(PHASES[1])
    assert "model-downloads" not in {one["metadata"]["name"] for one in objects}
    assert not [edge for edge in edges(objects) if edge[2] == 8099]


def test_one_model_of_a_router_may_fail_and_the_one_of_an_engine_may_not() -> None:
    objects = manifests(CHART / "ci" / "all-components-values.yaml")
    assert variable(pod_of(objects, "llama-router"), "fetch", "NEED") == "any"
    assert variable(pod_of(objects, "llama-embed"), "fetch", "NEED") == "all"


def test_a_file_of_the_volume_reaches_ollama(tmp_path: Path) -> None:
    objects = rendered(
        tmp_path,
        "ollama: {enabled: true}\n"
        "models: {mine: {service: llm, targets: {ollama: {source: file:///models/mine.gguf}}}}\n",
    )
    pull = pod_of(objects, "ollama-pull")
    mounts = {mount["name"]: mount for mount in pull.containers[0]["volumeMounts"]}
    assert mounts["models"] == {"name": "models", "mountPath": "/models", "readOnly": True}
    claims = {one["metadata"]["name"] for one in of_kind(objects, "PersistentVolumeClaim")}
    assert "synapse-models" in claims


def test_ports_and_hosts_of_urls_are_opened(tmp_path: Path) -> None:
    objects = rendered(
        tmp_path,
        "networkPolicy: {cilium: true}\n"
        "ollama: {enabled: true}\n"
        "models:\n"
        "  mine: {service: llm, targets: {ollama: {source: 'https://weights.example:8443/m.gguf'}}}\n",
    )
    assert ("ollama-pull", "@downloads", 8443) in edges(objects)
    policy = next(
        one
        for one in of_kind(objects, "CiliumNetworkPolicy")
        if one["metadata"]["name"] == "ollama-pull-downloads"
    )
    way = policy["spec"]["egress"][1]
    assert {"matchName": "weights.example"} in way["toFQDNs"]
    assert way["toPorts"] == [{"ports": [{"port": "8443", "protocol": "TCP"}]}]


def test_a_mirror_of_the_hub_is_asked_in_its_place(tmp_path: Path) -> None:
    mirror = ENGINES.replace("{tokenSecret:", "{endpoint: https://hub.example, tokenSecret:")
    objects = rendered(tmp_path, mirror)
    vllm = pod_of(objects, "vllm-inference")
    assert variable(vllm, "fetch", "HF_ENDPOINT") == "https://hub.example"


def test_other_presets_restart_the_router(tmp_path: Path) -> None:
    """It reads them at start."""

    def annotation(context: int) -> str:
        objects = rendered(
            tmp_path,
            "llama-router: {enabled: true}\n"
            "models: {mine: {service: llm, targets: {llama-router: "
            f"{{source: 'file:///models/m.gguf', context: {context}}}}}}}}}\n",
        )
        (router,) = [
            one
            for one in of_kind(objects, "Deployment")
            if one["metadata"]["name"] == "llama-router"
        ]
        found: str = router["spec"]["template"]["metadata"]["annotations"]["checksum/presets"]
        return found

    assert annotation(2048) != annotation(4096)


def test_speaches_is_told_what_to_have() -> None:
    objects = manifests(CHART / "ci" / "all-components-values.yaml")
    models = variable(pod_of(objects, "speaches"), "speaches", "PRELOAD_MODELS")
    assert yaml.safe_load(models) == ["Systran/faster-whisper-large-v3"]


@pytest.mark.parametrize(("single", "strategy"), [("true", "RollingUpdate"), ("false", "Recreate")])
def test_a_volume_of_one_node_is_left_before_it_is_taken(
    tmp_path: Path, single: str, strategy: str
) -> None:
    objects = rendered(tmp_path, f"singleNode: {single}\nllama-embed: {{enabled: true}}\n")
    (embed,) = [
        one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == "llama-embed"
    ]
    assert embed["spec"]["strategy"]["type"] == strategy
