"""The phases of a rollout, one after the other, in a release of the suite's own."""

from __future__ import annotations

import functools
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from conformance.suite.cluster import ROOT, is_ready, restarts, run
from conformance.suite.lab import PODS
from conformance.suite.lines import SuiteError
from conformance.suite.release import GATEWAY, Release, over
from conformance.suite.scene import page
from conformance.suite.timeouts import EXTENDED, PHASE, eventually
from conformance.suite.traffic import arrivals, ollama_shape, openai_shapes, plan, settled

if TYPE_CHECKING:
    from conformance.suite.cluster import Object
    from conformance.suite.session import Session
    from conformance.suite.traffic import Plan

LAST = 6
KEYS, SPEECH = 3, 4
"""The phases from which on there are API keys, and speech."""
RELEASE = "synapse"
NAMESPACE = "synapse-conformance-phases"
SMALL = ROOT / "conformance" / "overlays" / "small.yaml"
STAND_INS = ROOT / "conformance" / "stand_ins"
CARDS = 8
"""How many pods of a node may ask for what stands in for a GPU."""
STOOD_IN = {
    "vllm-inference": "llama.cpp as vLLM",
    "speaches": "whisper-stt as Speaches",
    "chatterbox-tts": "a server that keeps Chatterbox's contract, and speaks tones",
}
"""What a Deployment's stand-in is, by the Deployment's name."""


class Phases:
    """The release, which is at one phase at a time.

    Args:
        deployment: In whose cluster it is, and whose engines tell which question is answered alike
            every time.
    """

    def __init__(self, deployment: Session) -> None:
        self._deployment = deployment
        self._cluster = deployment.cluster
        deployment.lab.namespace(NAMESPACE)
        self._grant()
        self.current = 0

    # -- what stands in for a GPU

    def _grant(self) -> None:
        self._advertise(str(CARDS))

        def there() -> bool:
            nodes = self._cluster.all("Node", "")
            return all(self._resource in node["status"]["allocatable"] for node in nodes)

        eventually(f"nodes have {self._resource}", there, EXTENDED)

    def close(self) -> None:
        """Take from the nodes what they were given; the namespace goes with the run."""
        self._advertise(None)

    def _advertise(self, count: str | None) -> None:
        # kubernetes.io, "Advertise Extended Resources for a Node"
        given = {self._resource: count}
        for node in self._cluster.all("Node", ""):
            change = {"status": {"capacity": given, "allocatable": given}}
            self._cluster.patch("Node", node["metadata"]["name"], change, "", "status")

    @functools.cached_property
    def _resource(self) -> str:
        small = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
        return str(small["gpu"]["resource"])

    # -- going to a phase

    def values(self, number: int) -> dict[str, Any]:
        """Return a phase's values, with what is laid over them."""
        layers = [ROOT / "values" / f"phase{number}.yaml", SMALL]
        layers += self._deployment.options.phase_values
        merged: dict[str, Any] = {}
        for path in layers:
            merged = over(merged, yaml.safe_load(path.read_text(encoding="utf-8")))
        for component, name in (("vllm", "vllm"), ("chatterbox-tts", "chatterbox")):
            program = (STAND_INS / f"{name}.py").read_text(encoding="utf-8")
            merged[component]["command"] = ["python3", "-c", program]
        return merged

    def go(self, number: int) -> None:
        """Bring the release to a phase, as `make deploy` does.

        Raises:
            AssertionError: It does not come up.
        """
        options = self._deployment.options
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"phase{number}.yaml")
            file.write_text(json.dumps(self.values(number)), encoding="utf-8")
            environment = os.environ | {
                "VALUES": str(file),
                "NAMESPACE": NAMESPACE,
                "RELEASE": RELEASE,
                "KUBECONFIG": options.kubeconfig,
                "HELM_KUBECONTEXT": options.context,
                "KUBECTL": " ".join(self._cluster.kubectl),
            }
            script = [ROOT / "hack" / "chart-deploy.sh"]
            try:
                done = run(script, f"phase {number}", PHASE, environment=environment)
            except SuiteError as error:
                raise AssertionError(f"{error}; not ready: {self._waits_for()}") from None
        if done.code != 0:
            raise AssertionError(f"phase {number}: {done.error.strip()[-500:]}")
        self.current = number

    def be(self, number: int) -> None:
        """Bring the release to a phase, unless it is there."""
        if self.current != number:
            self.go(number)

    def _waits_for(self) -> str:
        names = [p["metadata"]["name"] for p in self.pods() if not is_ready(p)]
        return ", ".join(sorted(names)) or "none"

    # -- what is there

    def pods(self) -> list[Object]:
        """Return the pods of its Deployments."""
        found = self._cluster.all("Pod", NAMESPACE, "app.kubernetes.io/part-of=synapse")
        return [pod for pod in found if pod["status"]["phase"] != "Succeeded"]

    def started(self) -> dict[str, int]:
        """Return how often each pod was started again, by its name."""
        return {pod["metadata"]["name"]: restarts(pod) for pod in self.pods()}

    def components(self) -> set[str]:
        """Return names of its Deployments."""
        return set(self.release.components)

    @property
    def release(self) -> Release:
        """The release as it is now."""
        return Release(self._cluster, NAMESPACE)

    def stand_ins(self) -> list[str]:
        """Return what stands in for another part at this phase."""
        there = self.components()
        return [text for name, text in STOOD_IN.items() if name in there]

    def ill(self) -> set[str]:
        """Return the backends of the configuration that a replica has not, or finds ill."""
        configured = set(self.release.config["backends"])
        found: set[str] = set()
        for pod in self._cluster.ready(GATEWAY, NAMESPACE):
            text = page(self._cluster, pod, "/health")
            known = json.loads(text)["backends"] if text else {}
            well = {name for name, one in known.items() if one["status"] == "healthy"}
            found |= configured - well
        return found

    def speaker(self) -> str:
        """Return which backend speaks in the better voice.

        Raises:
            AssertionError: None does.
        """
        caller = self._deployment.lab.caller["metadata"]
        body = {"model": "tts-1-hd", "input": "Hello.", "voice": "alloy", "response_format": "wav"}
        request = {
            "url": f"http://{GATEWAY}.{NAMESPACE}:8000/v1/audio/speech",
            "headers": {"authorization": f"Bearer {self.release.key()}"},
            "body": body,
        }
        (answer,) = self._cluster.python(
            caller["namespace"], caller["name"], PODS / "ask.py", json.dumps([request]), seconds=150
        )
        if not answer.get("text", "").startswith("RIFF"):
            raise AssertionError(f"nobody speaks: {answer}")
        return str(answer["backend"])

    def plan(self, *, anew: bool) -> Plan:
        """Return what applications ask by `ollama`, the name that they have had all along.

        Args:
            anew: Whether each request has a connection of its own, to whoever has the name then.
        """
        models = self.values(1)["models"]
        chat, embedding = (
            next(name for name, model in models.items() if packaged in str(model))
            for packaged in ("packaged:smollm2", "packaged:all-minilm")
        )
        question = _question(self._deployment)
        shapes = openai_shapes(chat, embedding, question)
        calls = plan(self._deployment)
        return replace(
            calls,
            url=f"http://ollama.{NAMESPACE}:11434",
            key=self.release.key() if self.current >= KEYS else "",
            streams=[shapes["chat-stream"], ollama_shape(chat, question)],
            requests=arrivals(shapes),
            known={},
            idle=0 if anew else calls.idle,
        )


def _question(deployment: Session) -> str:
    """Return a question that engines like those of the phases answer alike every time."""
    shapes, _ = settled(deployment)
    return str(shapes["chat"]["body"]["messages"][-1]["content"])
