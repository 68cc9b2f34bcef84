"""Servers that run elsewhere: their keys, certificates and ways through the network policy."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from charts.synapse.tests.chart import CHART, Pod, manifests, of_kind, pods

pytestmark = pytest.mark.slow
VALUES = CHART / "ci" / "external-values.yaml"


def pod_of(name: str) -> Pod:
    (found,) = [pod for pod in pods(manifests(VALUES)) if pod.name == name]
    return found


def environment(pod: Pod) -> dict[str, Any]:
    return {
        one["name"]: one.get("value") or one["valueFrom"]["secretKeyRef"]
        for one in pod.spec["containers"][0]["env"]
        if "value" in one or "secretKeyRef" in one["valueFrom"]
    }


def config(name: str, key: str) -> Any:
    (text,) = [
        one["data"][key]
        for one in of_kind(manifests(VALUES), "ConfigMap")
        if one["metadata"]["name"] == name
    ]
    return yaml.safe_load(text)


def test_a_backend_is_asked_with_its_key_and_believed_by_its_authority() -> None:
    backend = config("synapse-gateway", "backends.yaml")["backends"]["vllm-inference"]
    assert backend["url"] == "https://vllm.example:8443/v1"
    assert backend["api_key_file"] == "/etc/synapse/backends/vllm-inference"
    assert backend["tls"] == {
        "ca_file": "/etc/synapse/backends/vllm-inference.crt",
        "server_name": "vllm.internal",
    }
    files = next(one for one in pod_of("synapse-gateway").spec["volumes"] if "projected" in one)
    there = {
        item["path"]: (source["secret"]["name"], item["key"])
        for source in files["projected"]["sources"]
        for item in source["secret"]["items"]
    }
    assert there == {
        "vllm-inference": ("arunlabs-vllm", "token"),
        "vllm-inference.crt": ("arunlabs-vllm", "ca.crt"),
    }


def test_the_password_of_a_shared_redis_comes_from_its_secret() -> None:
    found = environment(pod_of("synapse-gateway"))
    assert found["REDIS_PASSWORD"] == {"name": "shared-redis", "key": "password"}
    url = "rediss://:$(REDIS_PASSWORD)@redis.shared.svc.cluster.local:6380/3"
    assert found["SYNAPSE_REDIS_URL"] == url


def test_litellm_asks_an_engine_elsewhere_with_its_key() -> None:
    found = environment(pod_of("litellm-proxy"))
    name = "API_KEY_VLLM_INFERENCE"
    assert found[name] == {"name": "arunlabs-vllm", "key": "token"}
    listed = config("litellm-proxy", "config.yaml")["model_list"]
    keys = {
        one["litellm_params"]["api_key"]
        for one in listed
        if one["litellm_params"]["api_base"] == "https://vllm.example:8443/v1"
    }
    assert keys == {f"os.environ/{name}"}
