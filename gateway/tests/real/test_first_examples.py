"""The requests that existing users make, as their documents show them, against real servers.

Only the host is another. They are sent with a key, and without one where anonymous callers are
let in; the names of models in them are aliases wherever the project brings its own models.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import wave
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway.up.plan import EMBEDDED_MODELS
from tests.real.stack import ROOT, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.real.stack import Process, Stack

pytestmark = [pytest.mark.real, pytest.mark.slow]

HEALTH = "curl https://synapse.arunlabs.com/health"
SPEECH = """\
curl -X POST https://synapse.arunlabs.com/tts/synthesize \\
  -H "Content-Type: application/json" \\
  -d '{"text": "Hello from Synapse", "language": "en"}' \\
  --output speech.wav
"""
EMBEDDINGS = """\
curl -X POST https://synapse.arunlabs.com/v1/embeddings \\
  -H "Content-Type: application/json" \\
  -d '{"model": "snowflake-arctic-embed2:latest", "input": "test text"}'
"""
CHAT = """\
curl -X POST https://synapse.arunlabs.com/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "auto",
    "messages": [{"role": "user", "content": "Write a bash one-liner to count files"}]
  }'
"""
WITH_KEY = """\
curl http://synapse-server:8080/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -H "Authorization: Bearer YOUR_API_KEY" \\
  -d '{
    "model": "llama3.1",
    "messages": [{"role": "user", "content": "Hello!"}]
  }'
"""
MODELS = {"snowflake-arctic-embed2:latest", "llama3.1"}
"""That the examples name."""


@pytest.fixture(scope="module", params=["key", "anonymous"])
def gateway(stack: Stack, request: pytest.FixtureRequest) -> Iterator[tuple[Process, list[str]]]:
    """A gateway with the models of `make up`, and what curl is told besides."""
    settings = stack.settings()
    settings["models"] = EMBEDDED_MODELS
    more = ["-H", "Authorization: Bearer sk-full"]
    if request.param == "anonymous":
        settings["auth"] = "anonymous"
        del settings["keys"]
        more = []
    made = stack.gateway(settings)
    yield made, more
    made.stop()


def run(example: str, gateway: tuple[Process, list[str]], folder: Path) -> str:
    """Run an example with the host replaced; return what it printed."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    process, more = gateway
    for host in ("https://synapse.arunlabs.com", "http://synapse-server:8080"):
        example = example.replace(host, process.url)
    example = example.replace("YOUR_API_KEY", "sk-full")
    key = f"-H '{more[1]}' " if more and "Authorization" not in example else ""
    done = subprocess.run(  # noqa: S603 - the examples above
        ["/bin/bash", "-c", example.replace("curl ", f"curl --fail-with-body -sS {key}", 1)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_health(gateway: tuple[Process, list[str]], tmp_path: Path) -> None:
    def probed() -> dict[str, Any] | None:
        found = json.loads(run(HEALTH, gateway, tmp_path))["backends"]
        return found if "status" in found.get("piper", {}) else None

    assert until(probed, "nothing was probed")["piper"]["status"]


def test_speech(gateway: tuple[Process, list[str]], tmp_path: Path) -> None:
    run(SPEECH, gateway, tmp_path)
    with wave.open(io.BytesIO((tmp_path / "speech.wav").read_bytes())) as file:
        assert 0.5 < file.getnframes() / file.getframerate() < 10


def test_embeddings(gateway: tuple[Process, list[str]], tmp_path: Path) -> None:
    answer = json.loads(run(EMBEDDINGS, gateway, tmp_path))
    assert len(answer["data"][0]["embedding"]) == 384


@pytest.mark.parametrize("example", [CHAT, WITH_KEY], ids=["auto", "key"])
def test_chat(gateway: tuple[Process, list[str]], tmp_path: Path, example: str) -> None:
    answer = json.loads(run(example, gateway, tmp_path))
    assert answer["choices"][0]["message"]["content"]


def test_the_chart_s_small_models_have_these_names_too() -> None:
    table = (ROOT / "values" / "compose" / "backends.yaml").read_text(encoding="utf-8")
    assert all(name in table for name in MODELS)
