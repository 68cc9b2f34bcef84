"""The real model servers of `backends/` and real gateways in front of them, each its own process.

The servers are the ones that `synapse up` starts, on free ports, and a third llama.cpp whose chat
template knows tools.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from synapse_gateway.testing.wire import Metrics
from synapse_gateway.up.plan import EMBEDDED, embedded_process

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[3]
T = TypeVar("T")

KEYS: dict[str, dict[str, Any]] = {
    "full": {},
    "small": {"models": ["smollm2"]},
    "few": {"requests_per_minute": 2},
    "sparing": {"tokens_per_minute": 30},
    "single": {"concurrency": 1},
}
"""Limits by the key's name; the key itself is `sk-` and the name."""

# The tool format that Qwen and Hermes models use; SmolLM2's own template has no tools.
TOOL_TEMPLATE = """{%- if tools %}<|im_start|>system
You may call functions. For each call return a JSON object within <tool_call></tool_call> tags.
<tools>{%- for tool in tools %}
{{ tool | tojson }}{%- endfor %}
</tools><|im_end|>
{% endif %}{%- for message in messages %}
{%- if message.role == 'assistant' and message.tool_calls %}<|im_start|>assistant
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{%- endfor %}<|im_end|>
{%- elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{%- else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{%- endif %}
{% endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def until(condition: Callable[[], T | None], what: str, seconds: float = 300) -> T:
    """Ask a real process again and again until it has an answer."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (found := condition()) is not None:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: nothing after {seconds} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Process:
    """A server that can be killed and started again at the same address."""

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], port: int, log: Path
    ) -> None:
        self.name = name
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        self._command = command
        self._environment = {**os.environ, **environment}
        self._process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - commands of this project
                self._command, env=self._environment, stdout=log, stderr=log
            )

    def wait_ready(self, path: str) -> None:
        def answers() -> bool | None:
            assert self._process.poll() is None, f"{self.name}: {self.log.read_text()[-2000:]}"
            try:
                return True if httpx.get(self.url + path).status_code == 200 else None
            except httpx.HTTPError:
                return None

        until(answers, f"{self.name} is not ready")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, by its process id."""
        os.kill(self._process.pid, signal.SIGKILL)

    def start_again(self) -> None:
        self._process.wait(timeout=20)
        self._process = self._spawn()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Stack:
    """All servers, and the gateway `url` with the keys of `KEYS`."""

    url: str
    ollama_url: str

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backends: dict[str, Process] = {}
        self._gateways: list[Process] = []
        self._twins: list[Process] = []

    def start(self) -> None:
        template = self.folder / "tools.jinja"
        template.write_text(TOOL_TEMPLATE, encoding="utf-8")
        for server in EMBEDDED:
            self._backend(server.name, server)
        chat = EMBEDDED[0]
        self._backend("chat-tools", chat, "--chat-template-file", str(template))
        for process in self.backends.values():
            process.wait_ready("/health")
        ollama_port = free_port()
        self.url = self.gateway(self.settings(), "--ollama-port", str(ollama_port)).url
        self.ollama_url = f"http://127.0.0.1:{ollama_port}"

    def _backend(self, name: str, server: Any, *more: str) -> None:
        self.backends[name] = self._spawn(name, server, *more)

    def twin(self, server: Any) -> Process:
        """Start another of a server, which the gateway of `settings` knows nothing of."""
        process = self._spawn(f"{server.name}-first", server)
        self._twins.append(process)
        return process

    def _spawn(self, name: str, server: Any, *more: str) -> Process:
        port = free_port()
        plan = embedded_process(server, port, ROOT / "backends")
        return Process(
            name, [*plan.command, *more], plan.environment, port, self.folder / f"{name}.log"
        )

    def settings(self) -> dict[str, Any]:
        """Return the configuration of the gateway that most tests use."""
        kinds = {server.name: server.kind for server in EMBEDDED}
        backends: dict[str, Any] = {
            name: {
                "url": process.url,
                "type": kinds.get(name, "llamacpp"),
                "device": "cpu",
                "probe_interval": 0.5,
            }
            for name, process in self.backends.items()
        }
        for name in ("piper", "whisper"):
            backends[name]["slots"] = 1
        backends["gone"] = {"url": f"http://127.0.0.1:{free_port()}"}

        def model(*names: str, **more: Any) -> dict[str, Any]:
            targets = [
                {"backend": name, "model": model, "order": order}
                for order, (name, model) in enumerate(
                    (full.split("/", 1) for full in names), start=1
                )
            ]
            return {"targets": targets, **more}

        return {
            "backends": backends,
            "models": {
                "smollm2": model("chat-a/smollm2", "chat-b/smollm2", aliases=["gpt-4o-mini"]),
                "acme/smollm2:135m": model("chat-b/smollm2", rewrite_model=True),
                "smollm2-tools": model("chat-tools/smollm2"),
                "all-minilm": model("embeddings/all-minilm-l6-v2", aliases=["all-minilm-l6-v2"]),
                "piper": model("piper/piper", aliases=["tts-1"]),
                "whisper": model("whisper/whisper", aliases=["whisper-1"]),
                "gone": model("gone/gone", service="llm"),
            },
            "auto": {"default": "smollm2"},
            "keys": {
                name: {"sha256": hashlib.sha256(f"sk-{name}".encode()).hexdigest(), **limits}
                for name, limits in KEYS.items()
            },
            "limits": {"queue": {"deadline": 5.0}},
        }

    def gateway(self, settings: Mapping[str, Any], *more: str) -> Process:
        """Start a gateway and wait until it serves."""
        number = len(self._gateways)
        config = self.folder / f"gateway-{number}.yaml"
        config.write_text(json.dumps(settings), encoding="utf-8")
        port = free_port()
        process = Process(
            f"gateway-{number}",
            [
                *(sys.executable, "-P", "-m", "synapse_gateway", "serve"),
                *("--port", str(port), "--config", str(config), *more),
            ],
            {
                "PYTHONPATH": str(ROOT / "gateway"),
                "SYNAPSE_VOICE_LIBRARY_DIR": str(self.folder / "voices"),
            },
            port,
            self.folder / f"gateway-{number}.log",
        )
        self._gateways.append(process)
        process.wait_ready("/readyz")
        return process

    def stop(self) -> None:
        for process in (*self._gateways, *self.backends.values(), *self._twins):
            process.stop()


def scrape(url: str) -> Metrics:
    """Read a gateway's or a server's metrics."""
    return Metrics(httpx.get(f"{url}/metrics").text)
