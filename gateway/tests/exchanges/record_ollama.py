"""Records a real Ollama: python record_ollama.py BINARY CHAT_GGUF EMBEDDING_GGUF.

BINARY is what hack/build-ollama.sh prints. The models are SmolLM2-135M-Instruct (Q4_1) and
all-MiniLM-L6-v2 (q8_0). Server state lives in a temporary folder; nothing leaves 127.0.0.1.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from wire import Exchange, exchange, free_port, save, wait_for

CHAT = "smollm2"
EMBED = "all-minilm"
GREEDY = {"temperature": 0, "seed": 1, "num_predict": 12}
USER = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a given city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "The city"}},
            "required": ["city"],
        },
    },
}
AGE = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CHATML_TOOLS = """{{- if .Tools }}<|im_start|>system
You may call functions. Tools: {{ .Tools }}
Answer with {"name": NAME, "arguments": ARGUMENTS}<|im_end|>
{{ end }}{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}{{ range .ToolCalls -}}
{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}<|im_end|>
{{ end }}<|im_start|>assistant
"""


class Ollama:
    """A server of its own state folder and port."""

    def __init__(self, binary: str, home: str, **environment: str) -> None:
        self.port = free_port()
        self.binary = binary
        self.environment = {
            **os.environ,
            "HOME": home,
            "OLLAMA_HOST": f"127.0.0.1:{self.port}",
            "OLLAMA_MODELS": f"{home}/models",
            "OLLAMA_NO_CLOUD": "1",
            **environment,
        }
        self.log = Path(home, "log").open("ab")  # noqa: SIM115
        self.process = subprocess.Popen(  # noqa: S603
            [binary, "serve"], env=self.environment, stdout=self.log, stderr=self.log
        )
        wait_for(self.port, "/api/version")
        self.version = exchange("", self.port, "", "GET", "/api/version").json()["version"]

    def create(self, name: str, modelfile: str) -> None:
        path = Path(self.environment["HOME"]) / f"{name}.Modelfile"
        path.write_text(modelfile, encoding="utf-8")
        subprocess.run(  # noqa: S603
            [self.binary, "create", name, "-f", path],
            env=self.environment,
            check=True,
            capture_output=True,
        )

    def kill_runners(self) -> None:
        """Kill the processes that hold the models: children of the server."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        for pid in {int(pid) for file in children for pid in file.read_text().split()}:
            if b"runner" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)

    def call(
        self, about: str, path: str, body: Any = None, method: str = "", **more: Any
    ) -> Exchange:
        method = method or ("GET" if body is None else "POST")
        return exchange(f"ollama {self.version}", self.port, about, method, path, body, **more)

    def keep(
        self, name: str, about: str, path: str, body: Any = None, method: str = ""
    ) -> Exchange:
        done = self.call(about, path, body, method)
        save(done, "ollama", name)
        return done

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        self.log.close()


def record_native(server: Ollama) -> None:
    chat: dict[str, Any] = {"model": CHAT, "messages": USER, "options": GREEDY}
    keep = server.keep
    keep(
        "chat_load",
        "no messages: loads the model; load_duration is not in this answer",
        "/api/chat",
        {"model": CHAT},
    )
    keep("chat_stream", "streams by default", "/api/chat", chat)
    keep("chat", "stream off", "/api/chat", {**chat, "stream": False})
    keep("chat_format_json", "JSON mode", "/api/chat", {**chat, "stream": False, "format": "json"})
    keep("chat_format_schema", "JSON schema", "/api/chat", {**chat, "stream": False, "format": AGE})
    keep(
        "chat_logprobs",
        "log probabilities",
        "/api/chat",
        {
            **chat,
            "stream": False,
            "logprobs": True,
            "top_logprobs": 2,
            "options": {**GREEDY, "num_predict": 2},
        },
    )
    keep(
        "chat_length",
        "cut by num_predict",
        "/api/chat",
        {
            **chat,
            "stream": False,
            "options": {**GREEDY, "num_predict": 3},
        },
    )
    keep(
        "chat_num_predict_zero",
        "num_predict 0 is no limit (stop keeps it short)",
        "/api/chat",
        {
            **chat,
            "stream": False,
            "options": {**GREEDY, "num_predict": 0},
        },
    )
    keep(
        "chat_tools_unsupported",
        "tools for a model whose template has none",
        "/api/chat",
        {**chat, "tools": [WEATHER]},
    )
    keep(
        "chat_images_unsupported",
        "an image for a text model",
        "/api/chat",
        {
            **chat,
            "stream": False,
            "messages": [{**USER[0], "images": [PIXEL]}],
        },
    )
    keep(
        "chat_images_not_base64",
        "an image that is not base64",
        "/api/chat",
        {
            **chat,
            "messages": [{**USER[0], "images": ["%%%"]}],
        },
    )
    keep(
        "chat_think_unsupported",
        "think for a model that cannot",
        "/api/chat",
        {**chat, "think": True},
    )
    keep(
        "chat_unload", "keep_alive 0 and no messages", "/api/chat", {"model": CHAT, "keep_alive": 0}
    )
    keep(
        "generate_stream",
        "cold: the model was unloaded, see load_duration",
        "/api/generate",
        {
            "model": CHAT,
            "prompt": "The sky is",
            "options": GREEDY,
        },
    )
    keep(
        "generate",
        "stream off",
        "/api/generate",
        {
            "model": CHAT,
            "prompt": "The sky is",
            "options": GREEDY,
            "stream": False,
        },
    )
    keep(
        "generate_raw",
        "no template: no context in the answer",
        "/api/generate",
        {
            "model": CHAT,
            "prompt": "The sky is",
            "options": GREEDY,
            "stream": False,
            "raw": True,
        },
    )
    keep(
        "generate_suffix_unsupported",
        "suffix for a model that cannot insert",
        "/api/generate",
        {
            "model": CHAT,
            "prompt": "a",
            "suffix": "b",
        },
    )
    keep(
        "generate_raw_with_system",
        "raw excludes system",
        "/api/generate",
        {
            "model": CHAT,
            "prompt": "a",
            "raw": True,
            "system": "b",
        },
    )
    keep("generate_load", "no prompt: loads the model", "/api/generate", {"model": CHAT})
    keep("ps_loaded", "after a load on a machine without a GPU", "/api/ps")
    keep(
        "generate_unload",
        "no prompt and keep_alive 0",
        "/api/generate",
        {"model": CHAT, "keep_alive": 0},
    )
    keep("ps_unloading", "at once after the unload: still listed, expired", "/api/ps")
    while server.call("", "/api/ps").json()["models"]:
        time.sleep(0.05)
    keep("ps_empty", "nothing loaded", "/api/ps")
    record_loading(server)
    keep("tags", "all models", "/api/tags")
    trimmed_show(server, "show", CHAT)
    trimmed_show(server, "show_embedding", EMBED)
    keep("version", "", "/api/version")
    keep("root", "what load balancers ask", "/")


def record_loading(server: Ollama) -> None:
    """What /api/ps says while a model loads."""
    thread = threading.Thread(target=server.call, args=("", "/api/chat", {"model": CHAT}))
    thread.start()
    done = server.call("while the model loads", "/api/ps")
    while not done.json()["models"]:
        done = server.call(done.about, "/api/ps")
    save(done, "ollama", "ps_loading")
    thread.join()


def trimmed_show(server: Ollama, name: str, model: str) -> None:
    done = server.call(
        "all tensors but two and the licence left out of the recording",
        "/api/show",
        {"model": model},
    )
    body = done.json()
    body["tensors"] = body["tensors"][:2]
    body.pop("license", None)
    done.chunks = [
        json.dumps(body, separators=(",", ":")).replace(server.environment["HOME"], "/home/ollama")
    ]
    save(done, "ollama", name)


def record_embeddings(server: Ollama) -> None:
    keep = server.keep
    words = "word " * 600
    keep(
        "embed",
        "one text; dimensions keeps the recording small",
        "/api/embed",
        {
            "model": EMBED,
            "input": "Why is the sky blue?",
            "dimensions": 4,
        },
    )
    keep(
        "embed_many",
        "several texts",
        "/api/embed",
        {"model": EMBED, "input": ["a", "b"], "dimensions": 4},
    )
    keep(
        "embed_empty", "an empty input loads the model", "/api/embed", {"model": EMBED, "input": ""}
    )
    keep("embed_bad_input", "a number", "/api/embed", {"model": EMBED, "input": 3})
    keep(
        "embed_bad_item", "a list with a number", "/api/embed", {"model": EMBED, "input": ["a", 3]}
    )
    about = "a text without a token, of a model that adds none itself"
    nothing = {"model": CHAT, "input": ["a", ""]}
    keep("embed_no_input", about, "/api/embed", nothing)
    keep("v1_embeddings_no_input", about, "/v1/embeddings", nothing)
    keep(
        "embed_truncated",
        "too long for the context: cut silently",
        "/api/embed",
        {
            "model": EMBED,
            "input": words,
            "dimensions": 4,
        },
    )
    keep(
        "embed_too_long",
        "too long, truncate off",
        "/api/embed",
        {"model": EMBED, "input": words, "truncate": False},
    )
    keep("embed_unknown_model", "", "/api/embed", {"model": "nope", "input": "a"})
    keep("embed_no_model", "", "/api/embed", {"input": "a"})
    keep(
        "embeddings",
        "the older route: not normalised",
        "/api/embeddings",
        {"model": EMBED, "prompt": "a"},
    )
    keep("embeddings_empty", "no prompt loads the model", "/api/embeddings", {"model": EMBED})
    keep("embeddings_unknown_model", "", "/api/embeddings", {"model": "nope", "prompt": "a"})
    keep("embeddings_no_model", "", "/api/embeddings", {"prompt": "a"})
    keep("chat_on_embedding_model", "", "/api/chat", {"model": EMBED, "messages": USER})
    keep("generate_on_embedding_model", "", "/api/generate", {"model": EMBED, "prompt": "a"})


def record_errors(server: Ollama) -> None:
    keep = server.keep
    keep("chat_unknown_model", "", "/api/chat", {"model": "nope", "messages": USER})
    keep("generate_unknown_model", "", "/api/generate", {"model": "nope", "prompt": "a"})
    keep("show_unknown_model", "", "/api/show", {"model": "nope"})
    keep("show_no_model", "", "/api/show", {})
    keep("chat_no_model", "", "/api/chat", {"messages": USER})
    keep("generate_no_model", "", "/api/generate", {"prompt": "a"})
    keep("chat_bad_json", "", "/api/chat", '{"model": ')
    keep("chat_not_an_object", "", "/api/chat", "[1]")
    keep("chat_no_body", "", "/api/chat", "")
    keep("chat_wrong_type", "messages is a string", "/api/chat", {"model": CHAT, "messages": "hi"})
    keep(
        "chat_bad_option",
        "temperature is a string",
        "/api/chat",
        {
            "model": CHAT,
            "messages": USER,
            "options": {"temperature": "hot"},
        },
    )
    keep(
        "chat_unknown_option",
        "ignored, a line in the server's log",
        "/api/chat",
        {
            "model": CHAT,
            "messages": USER,
            "stream": False,
            "options": {**GREEDY, "num_predict": 1, "colour": 1},
        },
    )
    keep(
        "chat_bad_format",
        "format is neither json nor a schema",
        "/api/chat",
        {
            "model": CHAT,
            "messages": USER,
            "format": "xml",
        },
    )
    keep("chat_bad_think", "", "/api/chat", {"model": CHAT, "messages": USER, "think": "very"})
    keep(
        "chat_bad_keep_alive",
        "",
        "/api/chat",
        {"model": CHAT, "messages": USER, "keep_alive": "soon"},
    )
    keep(
        "chat_bad_top_logprobs",
        "",
        "/api/chat",
        {"model": CHAT, "messages": USER, "top_logprobs": 21},
    )
    keep("wrong_method", "", "/api/chat", method="GET")
    keep("unknown_path", "", "/api/nope", {})


def record_context(server: Ollama) -> None:
    keep = server.keep
    long = [{"role": "user", "content": "word " * 600}]
    small = {**GREEDY, "num_ctx": 256, "num_predict": 4}
    keep(
        "chat_context_truncated",
        "one message longer than the context, default settings",
        "/api/chat",
        {
            "model": CHAT,
            "messages": long,
            "stream": False,
            "options": small,
        },
    )
    keep(
        "chat_context_exceeded",
        "the same with truncate and shift off",
        "/api/chat",
        {
            "model": CHAT,
            "messages": long,
            "stream": False,
            "options": small,
            "truncate": False,
            "shift": False,
        },
    )
    keep(
        "chat_stream_context_exceeded",
        "the same as a stream",
        "/api/chat",
        {
            "model": CHAT,
            "messages": long,
            "options": small,
            "truncate": False,
            "shift": False,
        },
    )
    keep(
        "chat_context_filled",
        "shift off: generation ends where the context does",
        "/api/chat",
        {
            "model": CHAT,
            "messages": [{"role": "user", "content": "Count to one thousand. " + "word " * 200}],
            "stream": False,
            "shift": False,
            "options": {**small, "num_predict": 200},
        },
    )


def record_tools(server: Ollama) -> None:
    ask = [{"role": "user", "content": "What is the weather in Tokyo? Call get_weather."}]
    body = {
        "model": "smollm2-tools",
        "messages": ask,
        "tools": [WEATHER],
        "options": {**GREEDY, "num_predict": 60},
    }
    call = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "enum": ["get_weather"]},
            "arguments": {
                "type": "object",
                "properties": {"city": {"type": "string", "enum": ["Tokyo"]}},
                "required": ["city"],
            },
        },
        "required": ["name", "arguments"],
    }
    about = (
        "a schema holds the small model to the shape of a call, so that Ollama's parser finds one"
    )
    server.keep("chat_tools_stream", about, "/api/chat", {**body, "format": call})
    server.keep("chat_tools", about, "/api/chat", {**body, "format": call, "stream": False})
    openai = {
        "model": "smollm2-tools",
        "messages": ask,
        "tools": [WEATHER],
        "temperature": 0,
        "max_tokens": 60,
        "response_format": {"type": "json_schema", "json_schema": {"name": "call", "schema": call}},
    }
    server.keep("v1_chat_tools", about, "/v1/chat/completions", openai)
    server.keep("v1_chat_tools_stream", about, "/v1/chat/completions", {**openai, "stream": True})
    server.keep(
        "chat_tools_history",
        "a call and its result as api.md writes them",
        "/api/chat",
        {
            **body,
            "stream": False,
            "options": {**GREEDY, "num_predict": 4},
            "messages": [
                *ask,
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {"function": {"name": "get_weather", "arguments": {"city": "Tokyo"}}}
                    ],
                },
                {"role": "tool", "content": "11 degrees", "tool_name": "get_weather"},
            ],
        },
    )


def record_openai(server: Ollama) -> None:
    keep = server.keep
    chat = {"model": CHAT, "messages": USER, "temperature": 0, "seed": 1, "max_tokens": 8}
    path = "/v1/chat/completions"
    keep("v1_chat", "", path, chat)
    keep("v1_chat_stream", "no stream_options: no usage chunk", path, {**chat, "stream": True})
    keep(
        "v1_chat_stream_usage",
        "include_usage",
        path,
        {
            **chat,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    keep("v1_chat_unknown_model", "", path, {**chat, "model": "nope"})
    keep("v1_chat_no_messages", "", path, {"model": CHAT})
    keep("v1_chat_bad_json", "", path, "{")
    keep("v1_chat_tools_unsupported", "", path, {**chat, "tools": [WEATHER]})
    keep(
        "v1_chat_too_long",
        "longer than the model's num_ctx of 256: cut silently, see prompt_tokens",
        path,
        {
            **chat,
            "model": "smollm2-small",
            "messages": [{"role": "user", "content": "word " * 600}],
            "max_tokens": 1,
        },
    )
    keep(
        "v1_completions",
        "",
        "/v1/completions",
        {"model": CHAT, "prompt": "The sky is", "max_tokens": 4, "temperature": 0},
    )
    keep(
        "v1_completions_stream_usage",
        "usage is zero in every chunk but the last",
        "/v1/completions",
        {
            "model": CHAT,
            "prompt": "The sky is",
            "max_tokens": 2,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    keep(
        "v1_embeddings",
        "",
        "/v1/embeddings",
        {"model": EMBED, "input": ["a", "b"], "dimensions": 4},
    )
    keep(
        "v1_embeddings_base64",
        "",
        "/v1/embeddings",
        {
            "model": EMBED,
            "input": "a",
            "dimensions": 4,
            "encoding_format": "base64",
        },
    )
    keep("v1_embeddings_unknown_model", "", "/v1/embeddings", {"model": "nope", "input": "a"})
    keep("v1_embeddings_bad_input", "", "/v1/embeddings", {"model": EMBED})
    keep("v1_models", "", "/v1/models")
    keep("v1_model", "", f"/v1/models/{CHAT}")
    keep("v1_model_unknown", "", "/v1/models/nope")


def record_faults(server: Ollama) -> None:
    """The runner (the process that holds the model) is killed while it answers."""
    long = {"model": CHAT, "messages": [{"role": "user", "content": "Write a long story."}]}
    about = "runner killed with SIGKILL after the third chunk"

    def kill(chunks: int) -> None:
        if chunks == 3:
            server.kill_runners()

    cases = [
        ("chat_stream_runner_killed", "/api/chat", long),
        (
            "v1_chat_stream_runner_killed",
            "/v1/chat/completions",
            {
                **long,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
        ),
    ]
    for name, path, body in cases:
        save(server.call(about, path, body, on_chunk=kill), "ollama", name)
        server.call("", "/api/chat", {"model": CHAT})
    for name, path, body in [
        ("chat_runner_killed", "/api/chat", {**long, "stream": False}),
        ("v1_chat_runner_killed", "/v1/chat/completions", long),
    ]:
        timer = threading.Timer(1.0, server.kill_runners)
        timer.start()
        save(
            server.call("runner killed with SIGKILL while it generates", path, body), "ollama", name
        )
        server.call("", "/api/chat", {"model": CHAT})


def record_overload(binary: str, home: str) -> None:
    """One model in memory and a queue of one: the model that has to wait for memory is refused."""
    server = Ollama(
        binary, home, OLLAMA_MAX_LOADED_MODELS="1", OLLAMA_MAX_QUEUE="1", OLLAMA_NUM_PARALLEL="1"
    )
    try:
        long = {
            "model": CHAT,
            "messages": [{"role": "user", "content": "Write a long story."}],
            "options": {"num_predict": 600},
        }
        other = {"model": EMBED, "input": "a"}
        calls = [("", "/api/chat", long)] * 5 + [("", "/api/embed", other)] * 4
        threads = [threading.Thread(target=server.call, args=args) for args in calls]
        for thread in threads:
            thread.start()
            time.sleep(0.3)
        about = "OLLAMA_MAX_QUEUE=1, another model is busy and the queue holds a request already"
        server.keep("embed_queue_full", about, "/api/embed", other)
        server.keep("v1_embeddings_queue_full", about, "/v1/embeddings", other)
        for thread in threads:
            thread.join()
    finally:
        server.stop()


def main(binary: str, chat: str, embedding: str) -> None:
    with tempfile.TemporaryDirectory() as home:
        server = Ollama(binary, home)
        try:
            server.create(CHAT, f"FROM {chat}\n")
            server.create("smollm2-tools", f'FROM {chat}\nTEMPLATE """{CHATML_TOOLS}"""\n')
            server.create("smollm2-small", f"FROM {chat}\nPARAMETER num_ctx 256\n")
            server.create(EMBED, f"FROM {embedding}\n")
            record_native(server)
            record_embeddings(server)
            record_errors(server)
            record_context(server)
            record_tools(server)
            record_openai(server)
            record_faults(server)
        finally:
            server.stop()
        record_overload(binary, home)


if __name__ == "__main__":
    main(*sys.argv[1:4])
