"""A real Prometheus scrapes a real gateway: queries answer, and the fallback alert fires."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import urllib.parse
from typing import TYPE_CHECKING, Any

import pytest
from hack.scrapes import programs

from monitoring.dashboards.__main__ import PAGES
from monitoring.tests import promql

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY = "sk-live-0123456789"
ABSENT = {"Over their limit", "Callers that left", "Cut streams", "Queue", "Redis", "Share in VRAM"}
"""Panels of what does not happen in this scene; their queries must still be understood."""
FIRING = 'ALERTS{alertname="FallbackRateHigh", alertstate="firing"}'
FOREIGN = re.compile(
    r"DCGM_|vllm:|llamacpp:|litellm_|container_|kubelet_|redis_"
    r"|synapse_backend_request"
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    pytest.importorskip("xllamacpp", reason="the embedded models are not installed")
    with contextlib.ExitStack() as stack:
        scene = Scene(stack, tmp_path_factory.mktemp("live"))
        scene.chat()
        assert scene.query(FIRING) == []
        yield scene


class Scene:
    """Two engines behind a gateway, one of which can be stopped, and a Prometheus."""

    def __init__(self, stack: contextlib.ExitStack, home: Path) -> None:
        self.first_choice = stack.enter_context(contextlib.ExitStack())
        gpu = self.first_choice.enter_context(programs.llama_cpp())
        cpu = stack.enter_context(programs.llama_cpp())
        port = programs.free_port()
        self.url = f"http://127.0.0.1:{port}"
        file = home / "backends.yaml"
        file.write_text(json.dumps(_configuration(gpu, cpu)))
        command = [sys.executable, "-m", "synapse_gateway", "serve", "--config", str(file)]
        ready = f"{self.url}/readyz"
        stack.enter_context(
            programs.running(
                [*command, "--port", str(port)],
                lambda: programs.request(ready),
                {"LIVE_KEY": KEY},
            )
        )
        self.prometheus = stack.enter_context(_prometheus(home, port))

    def chat(self, *, stream: bool = True) -> None:
        message = {"role": "user", "content": "Say yes."}
        body = {"model": "chat", "messages": [message], "max_tokens": 2, "stream": stream}
        programs.request(f"{self.url}/v1/chat/completions", body, KEY)

    def query(self, expression: str) -> list[Any]:
        chosen = re.sub(r"\$(namespace|model|backend|served|node)\b", _choice, expression)
        chosen = chosen.replace("$__rate_interval", "1m")
        asked = urllib.parse.urlencode({"query": chosen})
        answer = json.loads(programs.request(f"{self.prometheus}/api/v1/query?{asked}"))
        found: list[Any] = answer["data"]["result"]
        return found


def _choice(variable: re.Match[str]) -> str:
    return {"model": "chat", "backend": "cpu"}.get(variable[1], ".*")


def _configuration(gpu: str, cpu: str) -> dict[str, Any]:
    target = {"model": "smollm2-135m-instruct"}
    return {
        "backends": {
            "gpu": {"url": gpu, "type": "llamacpp", "device": "gpu", "probe_interval": 1},
            "cpu": {"url": cpu, "type": "llamacpp", "device": "cpu", "probe_interval": 1},
        },
        "models": {
            "chat": {
                "targets": [
                    {**target, "backend": "gpu", "order": 1},
                    {**target, "backend": "cpu", "order": 2},
                ]
            }
        },
        "keys": {"live": {"env": "LIVE_KEY"}},
    }


@contextlib.contextmanager
def _prometheus(home: Path, gateway: int) -> Iterator[str]:
    """Prometheus with the project's rules; every duration is cut to a second or two."""
    for file in promql.rule_files():
        text = re.sub(r"interval: 30s", "interval: 1s", file.read_text())
        (home / f"{file.parent.name}-{file.name}").write_text(re.sub(r"for: \w+", "for: 2s", text))
    scrape = {
        "job_name": "synapse-gateway",
        "static_configs": [
            {
                "targets": [f"127.0.0.1:{gateway}"],
                "labels": {"namespace": "llm-infra", "pod": "synapse-gateway-0"},
            }
        ],
    }
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(home / "rules-*.yaml"), str(home / "alerts-*.yaml")],
        "scrape_configs": [scrape],
    }
    (home / "prometheus.yaml").write_text(json.dumps(configuration))
    url = f"http://127.0.0.1:{(port := programs.free_port())}"
    command = [
        programs.tool("prometheus"),
        f"--config.file={home / 'prometheus.yaml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    with programs.running(command, lambda: programs.request(f"{url}/-/ready")):
        yield url


@pytest.mark.real
@pytest.mark.slow
def test_the_fallback_alert_fires_when_the_first_choice_stops_answering(scene: Scene) -> None:
    scene.first_choice.close()

    def fires() -> object:
        scene.chat()
        return scene.query(FIRING)

    programs.until("FallbackRateHigh fires", fires)
    (alert,) = scene.query(FIRING)
    assert alert["metric"]["model"] == "chat"
    (down,) = scene.query("synapse_backend_up == 0")
    assert down["metric"]["backend"] == "gpu"


@pytest.mark.real
@pytest.mark.slow
def test_every_panel_of_the_gateway_has_data_after_a_fallback(scene: Scene) -> None:
    scene.first_choice.close()

    def answered() -> object:
        scene.chat()
        scene.chat(stream=False)
        return not _empty_panels(scene)

    with contextlib.suppress(RuntimeError):
        programs.until("every panel has data", answered)
    assert _empty_panels(scene) == []


def _empty_panels(scene: Scene) -> list[str]:
    empty = []
    for page in PAGES:
        for panel in (panel for row in page.rows for panel in row.panels):
            results = [scene.query(query.expr) for query in panel.queries]
            foreign = any(FOREIGN.search(query.expr) for query in panel.queries)
            if not any(results) and not foreign and panel.title not in ABSENT:
                empty.append(f"{page.uid}: {panel.title}")
    return empty
