"""compose.yaml as containers: real models answer, and go on answering when one of them is stopped.

What differs from the file: the gateway's ports, so that nothing else on the machine is in the way;
and, where no registry can be reached, Debian's Redis and an Ollama built from its source in place
of the published images (`hack/images/build.sh ollama redis`).
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml
from hack.tests.containers import PODMAN, containers_conf, missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0
OWN_BUILDS = {"docker.io/ollama/ollama": "synapse-ollama", "docker.io/redis": "synapse-redis"}

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Compose:
    """The services of compose.yaml under podman-compose, and a client of their gateway."""

    def __init__(self, folder: Path) -> None:
        """Write the file, with free ports and images that are there."""
        self.project = f"synapse-test-{os.getpid()}"
        self.file = folder / "compose.yaml"
        key = secrets.token_hex(16)
        self.environ = os.environ | {
            "SYNAPSE_API_KEY": key,
            "CONTAINERS_CONF": str(containers_conf(folder)),
        }
        document = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
        version = document["services"]["synapse-gateway"]["image"].rsplit(":", maxsplit=1)[1]
        for service in document["services"].values():
            service.pop("build", None)
            service["image"] = self.available(service["image"], version)
            mounts = service.get("volumes", [])
            service["volumes"] = [one.replace("./", f"{ROOT}/", 1) for one in mounts]
        port = free_port()
        document["services"]["synapse-gateway"]["ports"] = [f"127.0.0.1:{port}:8000"]
        self.file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120)

    def podman(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [PODMAN, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environ
        )

    def run(self, *arguments: str) -> None:
        """Call podman-compose; a failure shows what it said."""
        command = ["podman-compose", "-p", self.project, "-f", str(self.file), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env=self.environ, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def available(self, image: str, version: str) -> str:
        """The image itself, or the one built here that stands for it."""
        if self.podman("image", "exists", image).returncode == 0:
            return image
        name = OWN_BUILDS.get(image.rsplit(":", maxsplit=1)[0])
        own = f"docker.io/library/{name}:{version}"
        if name is None or self.podman("image", "exists", own).returncode != 0:
            pytest.skip(f"no image {image}; run: hack/images/build.sh {name or ''}, make images")
        return own

    def exit_code(self, service: str) -> int:
        """How a stopped service ended; 137 is a process that did not hear SIGTERM."""
        name = f"{self.project}_{service}_1"
        return int(self.podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout)

    def logs(self) -> str:
        """How every container is, and what it said last."""
        lines = self.podman("ps", "-a", "--format", "{{.Names}} {{.Status}}").stdout.splitlines()
        mine = [line for line in lines if line.startswith(self.project)]
        said = ((line, self.podman("logs", "--tail", "15", line.split()[0])) for line in mine)
        return "\n".join(f"== {line}\n{one.stdout}{one.stderr}" for line, one in said)

    def chat(self) -> httpx.Response:
        question = [{"role": "user", "content": "Say hello."}]
        body: dict[str, Any] = {"model": "smollm2", "messages": question, "max_tokens": 8}
        return self.http.post("/v1/chat/completions", json=body)

    def answer_once_loaded(self, what: str, ask: Callable[[], httpx.Response]) -> httpx.Response:
        """The first good answer: a server whose model still loads gives none."""
        answers: list[httpx.Response] = []

        def answered() -> bool:
            answers.append(ask())
            return answers[-1].status_code == 200

        self.wait_until(what, answered)
        return answers[-1]

    def wait_until(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if holds():
                    return
            except httpx.TransportError:
                pass
            time.sleep(1)
        pytest.fail(f"not within {START_SECONDS:.0f} s: {what}\n{self.logs()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    if reason := missing("podman", "podman-compose", "runc"):
        pytest.skip(reason)
    compose = Compose(tmp_path_factory.mktemp("compose"))
    try:
        compose.run("up", "-d")
        compose.wait_until("chat by llama.cpp", lambda: answered_by(compose) == "llama-router")
        yield compose
    finally:
        compose.run("down", "-v", "-t", "5")
        # podman-compose leaves it behind.
        compose.podman("network", "rm", f"{compose.project}_default")
        compose.http.close()


def answered_by(compose: Compose) -> str | None:
    answer = compose.chat()
    return answer.headers.get("x-synapse-backend") if answer.status_code == 200 else None


def test_a_chat_is_answered_by_the_first_engine(compose: Compose) -> None:
    answer = compose.chat()
    assert answer.status_code == 200, compose.logs()
    assert answer.json()["choices"][0]["message"]["content"]
    assert answer.headers["x-synapse-backend"] == "llama-router"


def test_a_text_is_embedded(compose: Compose) -> None:
    body = {"model": "all-minilm-l6-v2", "input": "two cats"}
    answer = compose.http.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"][0]["embedding"]) == 384


def test_what_is_spoken_is_heard(compose: Compose) -> None:
    said = {"model": "tts-1", "voice": "alloy", "input": "The weather is nice today."}
    speech = compose.answer_once_loaded(
        "speech",
        lambda: compose.http.post("/v1/audio/speech", json={**said, "response_format": "wav"}),
    )
    heard = compose.answer_once_loaded(
        "transcription",
        lambda: compose.http.post(
            "/v1/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("speech.wav", speech.content, "audio/wav")},
        ),
    )
    assert "weather" in heard.json()["text"].lower()


def test_a_caller_without_the_key_is_refused(compose: Compose) -> None:
    answer = compose.http.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401


def test_a_stopped_engine_is_replaced_and_taken_back(compose: Compose) -> None:
    compose.run("stop", "-t", "5", "llama-router")
    assert compose.exit_code("llama-router") == 0
    answer = compose.chat()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-synapse-backend"] == "ollama"
    assert answer.headers["x-synapse-fallback"]
    compose.run("start", "llama-router")
    compose.wait_until("llama.cpp again", lambda: answered_by(compose) == "llama-router")


@pytest.mark.parametrize("service", ["synapse-gateway", "piper-tts", "whisper-stt"])
def test_a_server_that_is_asked_to_stop_does(compose: Compose, service: str) -> None:
    compose.run("stop", "-t", "30", service)
    assert compose.exit_code(service) == 0, compose.logs()
