"""What most small deployments do not have; a deployment that has it is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.suite.gateway import SPEECH
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session


@line("sleep.idle", "A backend that sleeps is told from one that is ill")
def test_a_backend_sleeps(gateway: Gateway, evidence: Evidence) -> None:
    health = gateway.get("/health")
    statuses = {name: entry["status"] for name, entry in health["backends"].items()}
    asleep = [name for name, status in statuses.items() if status == "asleep"]
    if not asleep:
        raise NotSupported("no backend of the deployment sleeps")
    evidence("asleep", ", ".join(asleep))
    if set(statuses.values()) <= {"asleep", "healthy"}:
        assert health["status"] == "healthy"


@line("gpu.backends", "Every backend on a card answers")
def test_backends_on_a_card(deployment: Session, gateway: Gateway, evidence: Evidence) -> None:
    backends = deployment.release.config.get("backends", {})
    names = [name for name, backend in backends.items() if backend.get("device") == "gpu"]
    if not names:
        raise NotSupported("no backend of the configuration is on a card (device: gpu)")
    health = gateway.get("/health")["backends"]
    for name in names:
        evidence(name, health[name]["status"])
        assert health[name]["status"] == "healthy", f"{name}: {health[name]['detail']}"


@line("voices.library", "A voice of the library speaks")
def test_a_voice_speaks(gateway: Gateway, evidence: Evidence) -> None:
    answer = gateway.http.get("/voices")
    voices = answer.json() if answer.status_code == 200 else []
    if not voices:
        raise NotSupported(f"GET /voices answers {answer.status_code}, and names no voice")
    voice = voices[0]["voice_id"]
    body = {"model": gateway.model(SPEECH), "input": "Hello.", "voice": voice}
    said = gateway.http.post("/v1/audio/speech", json=body)
    assert said.status_code == 200, said.text
    evidence("spoken by", said.headers.get("x-synapse-voice", ""))
    assert said.headers.get("x-synapse-voice") == voice


@line("workers.dial-in", "A model server that dials in is asked like any other")
def test_workers(gateway: Gateway, evidence: Evidence) -> None:
    backends = gateway.get("/health")["backends"]
    names = [name for name, entry in backends.items() if entry["type"] == "worker"]
    if not names:
        raise NotSupported("no backend of the deployment has dialled in")
    for name in names:
        evidence(name, backends[name]["status"])
        assert backends[name]["status"] == "healthy", f"{name}: {backends[name]['detail']}"
