"""A gateway among real and failing backends, with a caller of every sort."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
import tempfile
import threading
import urllib.error
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hack.scrapes import programs
from synapse_gateway.testing import FaultyUpstream, scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.testing import Request
    from synapse_gateway.testing.scripts import Script

KEYS = {"scene": "sk-scene-0123456789", "limited": "sk-limited-0123456789"}
FAULTS: dict[str, Script] = {
    "unavailable": scripts.status(503),
    "cut": scripts.broken(after=2),
    "missing": scripts.status(404),
    "locked": scripts.status(401),
    "busy": scripts.stall(),
}
"""What the failing backend does with a model of that name."""


def _fault(asked: Request) -> Script:
    return FAULTS.get(asked.model, scripts.answer())


@contextlib.contextmanager
def _failing_backend() -> Iterator[str]:
    """A backend that fails as the model's name says; gives its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> FaultyUpstream:
        upstream = await FaultyUpstream().__aenter__()
        upstream.probes["/v1/models"] = scripts.models(*FAULTS)
        upstream.when(_fault)
        return upstream

    upstream = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield upstream.url
    finally:
        closing = upstream.__aexit__(None, None, None)
        asyncio.run_coroutine_threadsafe(closing, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _configuration(llama: str, ollama: str, failing: str) -> dict[str, Any]:
    with_fallback = [{"backend": "failing"}, {"backend": "llama", "model": "smollm2", "order": 2}]
    models: dict[str, Any] = {name: {"targets": with_fallback} for name in FAULTS}
    models["cut"] = {"targets": [{"backend": "failing"}]}
    models["busy"] = {"targets": [{"backend": "failing", "max_in_flight": 1}]}
    models["chat"] = {"targets": [{"backend": "llama", "model": "smollm2-135m-instruct"}]}
    models["small"] = {"targets": [{"backend": "ollama", "model": "smollm2:latest"}]}
    return {
        "backends": {
            "llama": {"url": llama, "type": "llamacpp"},
            "ollama": {"url": ollama, "type": "ollama", "probe_interval": 1},
            "failing": {"url": failing, "type": "openai-compatible"},
        },
        "models": models,
        "keys": {
            "scene": {"env": "SCENE_KEY"},
            "limited": {"env": "LIMITED_KEY", "requests_per_minute": 1},
        },
    }


def _chat(url: str, model: str, key: str, *, stream: bool = True) -> None:
    """One chat; an error is an answer like any other here."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Name three rivers."}],
        "max_tokens": 16,
        "stream": stream,
    }
    with contextlib.suppress(urllib.error.HTTPError, OSError):
        programs.request(f"{url}/v1/chat/completions", body, key)


@contextlib.contextmanager
def _stream_under_way(port: int, model: str, key: str) -> Iterator[socket.socket]:
    """A caller that has asked for a long stream, and goes away at the end of the block."""
    messages = [{"role": "user", "content": "Tell a long story."}]
    body = json.dumps({"model": model, "messages": messages, "max_tokens": 400, "stream": True})
    with socket.create_connection(("127.0.0.1", port), timeout=30) as caller:
        caller.sendall(
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        yield caller


def _act(url: str, port: int, file: Path) -> str:
    """Everything that a metric counts, then the metrics."""
    right = file.read_text()
    for model in ("chat", "small", *sorted(FAULTS.keys() - {"busy"}), "unknown-model"):
        _chat(url, model, KEYS["scene"])
        _chat(url, model, KEYS["scene"], stream=False)
    for _ in range(2):
        _chat(url, "chat", KEYS["limited"], stream=False)
    programs.request(f"{url}/v1/models", key=KEYS["scene"])
    with _stream_under_way(port, "chat", KEYS["scene"]) as caller:
        caller.recv(1024)

    def metrics() -> str:
        return programs.request(f"{url}/metrics")

    file.write_text("backends: 7\n")
    programs.until("refused", lambda: 'reloads_total{result="refused"} 1.0' in metrics())
    file.write_text(right)
    programs.until("the caller left", lambda: "synapse_client_disconnects_total{" in metrics())
    programs.until("probed", lambda: "synapse_backend_model_bytes{" in metrics())
    with contextlib.ExitStack() as callers:
        for _ in range(2):
            callers.enter_context(_stream_under_way(port, "busy", KEYS["scene"]))
        programs.until("one waits", lambda: "synapse_queue_length{" in metrics())
        return metrics()


def scrape() -> str:
    """The gateway's metrics after the scene."""
    with contextlib.ExitStack() as scene:
        home = Path(scene.enter_context(tempfile.TemporaryDirectory()))
        redis = scene.enter_context(programs.redis())
        llama = scene.enter_context(programs.llama_cpp())
        ollama = scene.enter_context(programs.ollama(home, "smollm2"))
        failing = scene.enter_context(_failing_backend())
        file = home / "backends.yaml"
        # JSON is YAML too.
        file.write_text(json.dumps(_configuration(llama, ollama, failing), indent=1))
        port = programs.free_port()
        url = f"http://127.0.0.1:{port}"
        environ = {
            "SCENE_KEY": KEYS["scene"],
            "LIMITED_KEY": KEYS["limited"],
            "SYNAPSE_REDIS_URL": f"redis://127.0.0.1:{redis}/0",
        }
        command = [sys.executable, "-m", "synapse_gateway", "serve", "--config", str(file)]
        ready = programs.running(
            [*command, "--port", str(port)],
            lambda: programs.request(f"{url}/readyz"),
            environ,
        )
        scene.enter_context(ready)
        return _act(url, port, file)
