"""What `synapse up` prints when it is done: what is up, what to try, how to stop it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from synapse_gateway.up.ports import LOOPBACK
from synapse_gateway.up.samples import CONVERSATION, NOISY
from synapse_gateway.up.state import Status

if TYPE_CHECKING:
    from synapse_gateway.up.state import State, StateDirectory


def _post(url: str, body: str, *, curl: str = "curl", more: str = "") -> str:
    return f"  {curl} {url} -H 'content-type: application/json'{more} -d '{{{body}}}'"


def _chat_lines(url: str, model: str) -> list[str]:
    chat = f"{url}/v1/chat/completions"
    question = '{"role": "user", "content": "Name the capital of France."}'
    body = f'"model": "{model}", "messages": [{question}]'
    return [
        "A chat, whole and as a stream:",
        _post(chat, body),
        _post(chat, f'"stream": true, {body}', curl="curl -N"),
    ]


def _embedded_lines(url: str) -> list[str]:
    words = "Every model answers from one address."
    speech = f'"model": "tts-1", "voice": "joe", "response_format": "wav", "input": "{words}"'
    return [
        "An embedding:",
        _post(f"{url}/v1/embeddings", '"model": "all-minilm-l6-v2", "input": "a sentence"'),
        "Speech, and the same words back from it:",
        _post(f"{url}/v1/audio/speech", speech, more=" -o hello.wav"),
        f"  curl {url}/v1/audio/transcriptions -F model=whisper-1 -F file=@hello.wav",
    ]


def _sample_lines(url: str, directory: StateDirectory) -> list[str]:
    conversation, noisy = directory.samples / CONVERSATION, directory.samples / NOISY
    lines = []
    if conversation.is_file():
        lines += [
            "Who speaks when in a recording of two:",
            f"  curl {url}/speakers/diarize -F file=@{shlex.quote(str(conversation))}",
        ]
    if noisy.is_file():
        lines += [
            "A noisy recording, cleaned:",
            f"  curl {url}/audio/denoise -F file=@{shlex.quote(str(noisy))} -o clean.wav",
        ]
    return lines


def _failover_lines(url: str, state: State) -> list[str]:
    first = state.processes.get("chat-a")
    if first is None or first.id is None:
        return []
    body = '"model": "smollm2", "messages": [{"role": "user", "content": "Still there?"}]'
    ask = _post(f"{url}/v1/chat/completions", body, curl="curl -si").strip()
    return [
        "Kill the first chat server and ask again: the second answers, and x-synapse-fallback says",
        "why. The first is back some 6 s later (5 s, and longer each time it ends):",
        f"  kill -9 {first.id.pid}; {ask} | grep -iE '^x-synapse|content'",
    ]


def _process_lines(state: State) -> list[str]:
    width = max(len(process.name) for process in state.plan.processes)
    lines = []
    for process in state.plan.processes:
        seen = state.processes.get(process.name)
        if seen is None:
            continue
        note = str(seen.status) if seen.status is not Status.READY else ""
        again = f"restarted {seen.restarts} times" if seen.restarts else ""
        remarks = ", ".join(part for part in (note, again) if part)
        lines.append(
            f"  {process.name:<{width}}  http://{LOOPBACK}:{process.port}  {process.title}"
            + (f"  ({remarks})" if remarks else "")
        )
    return lines


def stop_command(directory: StateDirectory, default: StateDirectory) -> str:
    """How to stop what runs in `directory`."""
    if directory.path == default.path:
        return "make down"
    return f"synapse down --state-dir {shlex.quote(str(directory.path))}"


def summary(state: State, directory: StateDirectory, stop: str) -> str:
    """Return the text that tells what is up and what to do with it.

    Args:
        state: What is up.
        directory: Where its logs are.
        stop: Command that stops it.
    """
    lines = ["", "Up:", *_process_lines(state)]
    lines += [f"  your server: {url}" for url in state.plan.foreign]
    if state.plan.models:
        lines.append(f"  its models: {', '.join(state.plan.models)}")
    if state.plan.gateway_port:
        url = f"http://{LOOPBACK}:{state.plan.gateway_port}"
        embedded = "chat-a" in state.processes
        lines += ["", f"One address for all of it, no key needed: {url}/v1", ""]
        if embedded or state.plan.models:
            lines += _chat_lines(url, "auto")
        if embedded:
            lines += _embedded_lines(url) + _sample_lines(url, directory)
            lines += _failover_lines(url, state)
        lines += [
            "Models, health, metrics, documentation:",
            f"  curl {url}/v1/models; curl {url}/health; curl {url}/metrics",
            f"  {url}/docs",
        ]
        if state.plan.ollama_port:
            ollama = f"http://{LOOPBACK}:{state.plan.ollama_port}"
            lines += [f"The same models for programs that speak to Ollama: {ollama}"]
    lines += ["", f"Logs: {directory.logs}/", f"Stop: {stop}", ""]
    return "\n".join(lines)
