"""Records a real llama.cpp server: python record_llamacpp.py CHAT_GGUF EMBEDDING_GGUF.

The server is the one inside the package xllamacpp (llama.cpp's own HTTP server in a Python
process), two slots of 512 tokens.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wire import Exchange, exchange, free_port, save, wait_for

CHAT = "smollm2"
USER = [{"role": "user", "content": "What is the capital of France?"}]
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
SERVE = """
import sys, time
import xllamacpp as x
p = x.CommonParams()
p.model.path, p.model_alias, p.port = sys.argv[1], {sys.argv[2]}, int(sys.argv[3])
p.n_ctx, p.n_parallel, p.hostnames = 1024, 2, ["127.0.0.1"]
p.endpoint_metrics = p.endpoint_slots = p.use_jinja = True
p.cpuparams.n_threads = 2
p.sleep_idle_seconds = int(sys.argv[4])
p.chat_template = sys.argv[5]
if sys.argv[2] == "all-minilm":
    p.embedding, p.pooling_type = True, x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
server = x.Server(p)
time.sleep(3600)
"""


class LlamaCpp:
    """A server process of one model."""

    def __init__(
        self, model: str, alias: str, sleep_idle_seconds: int = -1, template: str = ""
    ) -> None:
        self.port = free_port()
        self.folder = str(Path(model).parent)
        self.process = subprocess.Popen(  # noqa: S603
            [
                sys.executable,
                "-c",
                SERVE,
                model,
                alias,
                str(self.port),
                str(sleep_idle_seconds),
                template,
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def call(self, about: str, path: str, body: Any = None, **more: Any) -> Exchange:
        name = f"llama.cpp of xllamacpp {version('xllamacpp')}"
        return exchange(
            name, self.port, about, "GET" if body is None else "POST", path, body, **more
        )

    def keep(self, name: str, about: str, path: str, body: Any = None, **more: Any) -> Exchange:
        done = self.call(about, path, body, **more)
        done.chunks = [chunk.replace(self.folder, "/models") for chunk in done.chunks]
        save(done, "llamacpp", name)
        return done

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(timeout=30)


def record_loading(server: LlamaCpp) -> None:
    """The first answer of a server that has opened its port but not loaded its model yet."""
    while True:
        try:
            done = server.call("while the model loads", "/health")
        except (OSError, IndexError):
            continue
        if done.status != 200:
            save(done, "llamacpp", "health_loading")
        return


def record_state(server: LlamaCpp) -> None:
    keep = server.keep
    keep("health", "", "/health")
    keep("v1_models", "", "/v1/models")
    keep("props", "", "/props")
    keep("slots", "idle", "/slots")
    long = {"messages": [{"role": "user", "content": "Write a long story."}], "max_tokens": 400}
    threads = [
        threading.Thread(target=server.call, args=("", "/v1/chat/completions", long))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    keep("slots_busy", "four requests on two slots", "/slots")
    keep("slots_none_free", "the same, asked to fail when none is free", "/slots?fail_on_no_slot=1")
    keep("metrics_busy", "two requests deferred", "/metrics")
    for thread in threads:
        thread.join()
    keep("unknown_path", "", "/v1/nope", {})


def record_chat(server: LlamaCpp) -> None:
    keep = server.keep
    chat: dict[str, Any] = {
        "model": CHAT,
        "messages": USER,
        "temperature": 0,
        "seed": 1,
        "max_tokens": 8,
    }
    path = "/v1/chat/completions"
    stream = {**chat, "stream": True}
    keep("v1_chat", "", path, chat)
    keep("v1_chat_stream", "no stream_options", path, stream)
    keep(
        "v1_chat_stream_usage",
        "include_usage",
        path,
        {**stream, "stream_options": {"include_usage": True}},
    )
    keep("v1_chat_length", "cut by max_tokens", path, {**chat, "max_tokens": 3})
    keep(
        "v1_chat_json_object",
        "with this template the engine lets the model open a code fence",
        path,
        {**chat, "response_format": {"type": "json_object"}},
    )
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 9}},
        "required": ["age"],
    }
    keep(
        "v1_chat_json_schema",
        "",
        path,
        {
            **chat,
            "max_tokens": 20,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": schema},
            },
        },
    )
    keep(
        "v1_chat_logprobs", "", path, {**chat, "max_tokens": 2, "logprobs": True, "top_logprobs": 2}
    )
    keep("v1_chat_unknown_parameter", "ignored", path, {**chat, "max_tokens": 1, "colour": 1})
    keep(
        "v1_chat_unknown_model",
        "the name is not looked at",
        path,
        {**chat, "max_tokens": 1, "model": "nope"},
    )
    keep(
        "v1_chat_sampling",
        "the names that Ollama's options become",
        path,
        {
            **chat,
            "max_tokens": 1,
            "top_k": 40,
            "top_p": 0.9,
            "min_p": 0.05,
            "typical_p": 1.0,
            "repeat_penalty": 1.1,
            "repetition_penalty": 1.1,
            "repeat_last_n": 64,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.1,
            "stop": ["x"],
        },
    )
    keep(
        "v1_chat_reasoning_effort",
        "",
        path,
        {
            **chat,
            "max_tokens": 1,
            "reasoning_effort": "low",
            "chat_template_kwargs": {"enable_thinking": False},
        },
    )
    completion = {"prompt": "The sky is", "max_tokens": 3, "temperature": 0}
    keep("v1_completions", "", "/v1/completions", completion)
    keep("v1_completions_logprobs", "", "/v1/completions", {**completion, "logprobs": 2})
    keep(
        "v1_completions_stream_usage",
        "",
        "/v1/completions",
        {**completion, "stream": True, "stream_options": {"include_usage": True}},
    )
    keep(
        "v1_completions_response_format",
        "not heeded",
        "/v1/completions",
        {
            **completion,
            "max_tokens": 12,
            "response_format": {"type": "json_schema", "json_schema": {"schema": schema}},
        },
    )
    keep(
        "v1_completions_json_schema",
        "heeded",
        "/v1/completions",
        {**completion, "max_tokens": 20, "json_schema": schema},
    )
    keep(
        "v1_completions_suffix",
        "not heeded",
        "/v1/completions",
        {**completion, "suffix": " today."},
    )


def record_tools(server: LlamaCpp) -> None:
    """Two earlier calls in the history make this small model write a third."""
    parameters = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "description": "Weather", "parameters": parameters},
    }
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Tokyo"}}\n</tool_call>'
    ask = {"role": "user", "content": "weather in Tokyo"}
    body = {
        "model": CHAT,
        "temperature": 0,
        "max_tokens": 60,
        "tools": [tool],
        "messages": [
            ask,
            {"role": "assistant", "content": call},
            ask,
            {"role": "assistant", "content": call},
            ask,
        ],
    }
    server.keep("v1_chat_tools", "with a template that has tools", "/v1/chat/completions", body)
    server.keep(
        "v1_chat_tools_stream",
        "with a template that has tools",
        "/v1/chat/completions",
        {**body, "stream": True},
    )
    answered = [
        ask,
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": '{"city": "Tokyo"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "11 degrees"},
    ]
    server.keep(
        "v1_chat_tools_history",
        "",
        "/v1/chat/completions",
        {**body, "messages": answered, "max_tokens": 8},
    )


def record_errors(server: LlamaCpp) -> None:
    keep = server.keep
    path = "/v1/chat/completions"
    long = {"messages": [{"role": "user", "content": "word " * 600}], "max_tokens": 1}
    keep("v1_chat_context_exceeded", "longer than the slot's 512 tokens", path, long)
    keep("v1_chat_stream_context_exceeded", "", path, {**long, "stream": True})
    keep("v1_chat_bad_json", "", path, '{"messages": ')
    keep("v1_chat_no_messages", "", path, {"model": CHAT})
    keep("v1_chat_wrong_type", "", path, {"messages": "hi"})
    keep(
        "v1_chat_bad_temperature",
        "",
        path,
        {"messages": USER, "temperature": "hot", "max_tokens": 1},
    )
    keep(
        "v1_chat_image",
        "an image for a text model",
        path,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "image_url",
                            "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="},
                        }
                    ],
                }
            ]
        },
    )
    keep("v1_embeddings_on_chat_model", "", "/v1/embeddings", {"input": "a"})
    keep("v1_rerank_on_chat_model", "", "/v1/rerank", {"query": "a", "documents": ["b"]})


def record_embeddings(server: LlamaCpp) -> None:
    keep = server.keep
    keep(
        "v1_embeddings",
        "",
        "/v1/embeddings",
        {"model": "all-minilm", "input": "a", "encoding_format": "float"},
    )
    keep("v1_embeddings_base64", "", "/v1/embeddings", {"input": "a", "encoding_format": "base64"})
    keep("v1_embeddings_too_long", "", "/v1/embeddings", {"input": "word " * 600})
    keep("v1_embeddings_no_input", "", "/v1/embeddings", {"model": "all-minilm"})
    keep("v1_chat_on_embedding_model", "", "/v1/chat/completions", {"messages": USER})


def record_killed(server: LlamaCpp) -> None:
    def kill(chunks: int) -> None:
        if chunks == 3:
            os.kill(server.process.pid, signal.SIGKILL)

    server.keep(
        "v1_chat_stream_killed",
        "server killed with SIGKILL after the third chunk",
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Write a long story."}], "stream": True},
        on_chunk=kill,
    )


def record_sleep(server: LlamaCpp) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not server.call("", "/props").json().get("is_sleeping"):
        time.sleep(0.2)
    server.keep("props_sleeping", "after sleep_idle_seconds=1", "/props")
    server.keep("health_sleeping", "", "/health")
    server.keep("slots_sleeping", "", "/slots")
    server.keep("v1_models_sleeping", "", "/v1/models")
    server.keep(
        "v1_chat_wakes",
        "a request wakes it",
        "/v1/chat/completions",
        {"messages": USER, "max_tokens": 1},
    )


def main(chat: str, embedding: str) -> None:
    server = LlamaCpp(chat, CHAT)
    try:
        record_loading(server)
        wait_for(server.port, "/health")
        server.keep("metrics", "before any request", "/metrics")
        record_chat(server)
        record_state(server)
        record_errors(server)
        record_killed(server)
    finally:
        server.stop()
    for model, alias, sleep, template, record in [
        (embedding, "all-minilm", -1, "", record_embeddings),
        (chat, CHAT, 1, "", record_sleep),
        (chat, CHAT, -1, TOOL_TEMPLATE, record_tools),
    ]:
        server = LlamaCpp(model, alias, sleep, template)
        try:
            wait_for(server.port, "/health")
            record(server)
        finally:
            server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:3])
