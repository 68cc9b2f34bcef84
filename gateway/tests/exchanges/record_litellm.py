"""Records a real LiteLLM proxy: python record_litellm.py LITELLM LLAMACPP_URL.

LITELLM is the command of an installation of its own (`litellm[proxy]==1.106.2`, by hash: 1.107.0,
1.82.7 and 1.82.8 were
compromised). LLAMACPP_URL is a llama.cpp server with SmolLM2-135M-Instruct and 1024 tokens of
context a slot. The proxy runs without a
database and reaches nothing but 127.0.0.1.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from wire import exchange, free_port, save, wait_for

KEY = "sk-recorded"
USER = [{"role": "user", "content": "Hi"}]
CONFIG = """
model_list:
  - model_name: smollm2
    litellm_params: {model: openai/smollm2, api_base: "URL/v1", api_key: none}
  - model_name: dead
    litellm_params: {model: openai/dead, api_base: "http://127.0.0.1:9/v1", api_key: none}
litellm_settings: {num_retries: 0}
general_settings: {master_key: KEY}
"""


def main(command: str, url: str) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "NO_PROXY": "*",
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.replace("URL", url).replace("KEY", KEY), encoding="utf-8")
        process = subprocess.Popen(  # noqa: S603
            [command, "--config", config, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_for(port, "/health/liveliness", 120)
            record(port)
        finally:
            process.terminate()
            process.wait()


def record(port: int) -> None:
    def keep(name: str, about: str, path: str, body: object = None, key: str = KEY) -> None:
        method = "GET" if body is None else "POST"
        headers = f"authorization: Bearer {key}\r\n" if key else ""
        done = exchange("litellm 1.106.2", port, about, method, path, body, headers=headers)
        done.headers.pop("x-litellm-call-id", None)
        save(done, "litellm", name)

    chat = "/v1/chat/completions"
    keep("liveliness", "", "/health/liveliness", key="")
    keep("readiness", "without a database", "/health/readiness", key="")
    keep("v1_models", "", "/v1/models")
    keep("v1_models_no_key", "", "/v1/models", key="")
    keep("v1_chat", "", chat, {"model": "smollm2", "max_tokens": 4, "messages": USER})
    keep(
        "v1_chat_stream",
        "",
        chat,
        {"model": "smollm2", "max_tokens": 4, "stream": True, "messages": USER},
    )
    keep("v1_chat_unknown_model", "", chat, {"model": "nope", "messages": USER})
    keep("v1_chat_dead_backend", "its backend refuses", chat, {"model": "dead", "messages": USER})
    long = [{"role": "user", "content": "word " * 3000}]
    keep(
        "v1_chat_context_exceeded",
        "longer than the backend's 1024 tokens",
        chat,
        {"model": "smollm2", "max_tokens": 4, "messages": long},
    )
    keep("v1_chat_no_key", "", chat, {"model": "smollm2", "messages": USER}, key="")
    keep(
        "v1_chat_wrong_key",
        "without a database to look it up in",
        chat,
        {"model": "smollm2", "messages": USER},
        key="sk-wrong",
    )
    keep("v1_messages", "", "/v1/messages", {"model": "smollm2", "max_tokens": 4, "messages": USER})
    keep("v1_count_tokens", "", "/v1/messages/count_tokens", {"model": "smollm2", "messages": USER})
    keep("v1_responses", "", "/v1/responses", {"model": "smollm2", "input": "Hi"})


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
