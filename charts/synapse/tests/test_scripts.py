# ruff: noqa: N802 - http.server finds methods by these names
"""The small programs of Jobs and init containers, run as a pod runs them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import CHART
from charts.synapse.tests.servers import Handler, Server, running

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS = CHART / "files" / "scripts"


def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # -S: Python's standard library is all that they may need.
        [sys.executable, "-S", str(SCRIPTS / f"{script}.py")],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# --- make_keys.py, roll_deployment.py: against an API server's rules for Secrets ---


class ApiServer(Handler):
    """Create, get and merge-patch of Secrets, with conflicts as the real one reports them."""

    def do_POST(self) -> None:
        body = json.loads(self.read())
        name = body["metadata"]["name"]
        if self.server.state.get("forbidden"):
            self.answer_json(403, {"kind": "Status"})
        elif name in self.server.state["secrets"]:
            self.answer_json(409, {"kind": "Status", "reason": "AlreadyExists"})
        else:
            self.server.state["secrets"][name] = dict(body["data"])
            self.answer_json(201, body)

    def do_GET(self) -> None:
        self.read()
        data = self.server.state["secrets"][self.path.rsplit("/", 1)[-1]]
        self.answer_json(200, {"metadata": {"resourceVersion": "7"}, "data": data})

    def do_PATCH(self) -> None:
        body = json.loads(self.read())
        if "/deployments/" in self.path:
            self.server.state["patches"].append((self.path, body))
        elif self.server.state.get("conflicts"):
            self.server.state["conflicts"] -= 1
            self.answer_json(409, {"kind": "Status", "reason": "Conflict"})
            return
        else:
            assert body["metadata"]["resourceVersion"] == "7"
            self.server.state["secrets"][self.path.rsplit("/", 1)[-1]] |= body["data"]
        self.answer_json(200, {})


@pytest.fixture
def account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("pod-token\n")
    return tmp_path


def keys(server: Server, account: Path, secrets: dict[str, list[str]]) -> Any:
    return run(
        "make_keys",
        KUBERNETES_API=server.url,
        ACCOUNT_DIRECTORY=str(account),
        NAMESPACE="llm-infra",
        SECRETS=json.dumps(secrets),
    )


def test_a_missing_secret_is_made_with_random_values(account: Path) -> None:
    with running(ApiServer, {"secrets": {}}) as server:
        done = keys(server, account, {"synapse-api-keys": ["default", "jarvis"]})
    assert done.returncode == 0, done.stderr
    made = server.state["secrets"]["synapse-api-keys"]
    values = {base64.b64decode(value).decode() for value in made.values()}
    assert {len(value) for value in values} == {64}
    assert len(values) == 2
    assert not any(value in done.stdout + done.stderr for value in values)
    assert server.requests[0][2]["authorization"] == "Bearer pod-token"


def test_what_is_there_is_never_changed(account: Path) -> None:
    there = {"default": "bXk=", "other": "b3du"}
    with running(ApiServer, {"secrets": {"synapse-api-keys": dict(there)}}) as server:
        done = keys(server, account, {"synapse-api-keys": ["default"]})
    assert done.returncode == 0
    assert server.state["secrets"]["synapse-api-keys"] == there
    assert [method for method, _, _ in server.requests] == ["POST", "GET"]


def test_only_missing_entries_are_added(account: Path) -> None:
    state: dict[str, Any] = {"secrets": {"synapse-api-keys": {"default": "bXk="}}, "conflicts": 1}
    with running(ApiServer, state) as server:
        done = keys(server, account, {"synapse-api-keys": ["default", "new"]})
    assert done.returncode == 0
    assert "added new" in done.stdout
    found = server.state["secrets"]["synapse-api-keys"]
    assert found["default"] == "bXk="
    assert set(found) == {"default", "new"}


def test_a_refusal_of_the_api_server_is_told(account: Path) -> None:
    with running(ApiServer, {"secrets": {}, "forbidden": True}) as server:
        done = keys(server, account, {"synapse-api-keys": ["default"]})
    assert done.returncode == 1
    assert "make_keys: POST /api/v1/namespaces/llm-infra/secrets: 403" in done.stderr


def test_the_roll_patches_the_pod_template_alone(account: Path) -> None:
    with running(ApiServer, {"secrets": {}, "patches": []}) as server:
        done = run(
            "roll_deployment",
            KUBERNETES_API=server.url,
            ACCOUNT_DIRECTORY=str(account),
            NAMESPACE="llm-infra",
            DEPLOYMENT="litellm-proxy",
        )
    assert done.returncode == 0, done.stderr
    ((path, patch),) = server.state["patches"]
    assert path == "/apis/apps/v1/namespaces/llm-infra/deployments/litellm-proxy"
    assert list(patch["spec"]["template"]["metadata"]["annotations"]) == [
        "kubectl.kubernetes.io/restartedAt"
    ]


# --- fetch_files.py: against a server that knows ranges, cuts, and redirects ---

CONTENT = bytes(range(256)) * 4096
ENOUGH = CONTENT[:300_000]
REPOSITORY = {
    "config.json": b"{}",
    "model-00001-of-00002.safetensors": CONTENT,
    "model-00002-of-00002.safetensors": ENOUGH,
    "pytorch_model.bin": b"the same weights again",
    "original/consolidated.pth": b"and again",
    "tokenizer.json": b"{}",
    "README.md": b"words",
    "../escape": b"x",
}


class Hub(Handler):
    """A model host: /whole, /cut (ends early unless resumed), /gated, /moved (to another host).

    And a hub: a repository o/r of which `state["commit"]` is the newest commit.
    """

    def do_GET(self) -> None:
        self.read()
        start = int(self.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        state = self.server.state or {}
        if self.path == "/gated" and self.headers.get("Authorization") != "Bearer hub-token":
            self.answer(401)
        elif self.path == "/moved":
            self.answer(302, Location=state["elsewhere"] + "/whole")
        elif self.path == "/absent":
            self.answer(404)
        elif self.path == "/busy" and state["busy"]:
            state["busy"] -= 1
            self.answer(503)
        elif self.path.startswith("/api/models/o/r/revision/"):
            self.listing(state)
        elif self.path.startswith("/o/r/resolve/"):
            commit, _, name = self.path.removeprefix("/o/r/resolve/").partition("/")
            assert commit in (state.get("commit"), "main"), "files of one commit belong together"
            self.answer(206 if start else 200, REPOSITORY[name][start:])
        elif self.path == "/cut" and start == 0:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(ENOUGH)
            self.wfile.flush()
            self.connection.close()
        elif start >= len(CONTENT):
            self.answer(416)
        else:
            status = 206 if start else 200
            self.answer(status, CONTENT[start:])

    def listing(self, state: dict[str, Any]) -> None:
        """What the hub says of a repository: huggingface_hub, HfApi.model_info."""
        siblings: list[dict[str, Any]] = []
        for name, content in REPOSITORY.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content)}
            if name.endswith("safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest()}
            siblings.append(entry)
        if state.get("wrong_digest"):
            siblings[1]["lfs"]["sha256"] = "0" * 64
        self.answer_json(200, {"sha": state["commit"], "siblings": siblings})


def fetch(files: list[tuple[str, Path]], **environment: str) -> Any:
    entries = [{"model": path.name, "source": url, "path": str(path)} for url, path in files]
    return run("fetch_files", **({"FILES": json.dumps(entries), "RETRY_SECONDS": ""} | environment))


def test_a_cut_download_is_resumed_where_it_ended(tmp_path: Path) -> None:
    target = tmp_path / "models" / "m.gguf"
    with running(Hub) as server:
        first = fetch([(f"{server.url}/cut", target)])
        assert first.returncode == 1
        assert "cut after 300000 of 1048576 bytes; the next try resumes there" in first.stderr
        assert not target.exists(), "half a file is no file"
        second = fetch([(f"{server.url}/cut", target)])
    assert second.returncode == 0, second.stderr
    assert target.read_bytes() == CONTENT
    assert server.requests[1][2]["range"] == "bytes=300000-"


def test_a_download_that_only_has_to_be_renamed_is_made_anew(tmp_path: Path) -> None:
    """A pod that dies between the last byte and the new name; nothing is left to resume."""
    target = tmp_path / "m.gguf"
    with running(Hub) as server:
        url = f"{server.url}/whole"
        mark = hashlib.sha256(url.encode()).hexdigest()[:8]
        (tmp_path / f"m.gguf.{mark}.part").write_bytes(CONTENT)
        done = fetch([(url, target)])
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(b"weights")
    with running(Hub) as server:
        done = fetch([(f"{server.url}/whole", target)])
    assert done.returncode == 0
    assert not server.requests
    assert target.read_bytes() == b"weights"


def test_a_second_run_changes_nothing_and_a_changed_source_is_downloaded(tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    with running(Hub, {"commit": "c1"}) as server:
        assert fetch([(f"{server.url}/whole", target)]).returncode == 0
        again = fetch([(f"{server.url}/whole", target)])
        assert again.stdout == "m.gguf: there already\n"
        assert len(server.requests) == 1
        other = "hf://o/r/pytorch_model.bin"
        done = fetch([(other, target)], HF_ENDPOINT=server.url)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == REPOSITORY["pytorch_model.bin"]


def test_one_file_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    with running(Hub) as server:
        done = fetch(
            [(f"{server.url}/absent", tmp_path / "a"), (f"{server.url}/whole", tmp_path / "b")]
        )
    assert done.returncode == 1
    assert "fetch_files: a: the server answers 404" in done.stderr
    assert (tmp_path / "b").read_bytes() == CONTENT


def test_a_router_goes_on_with_the_models_that_it_has(tmp_path: Path) -> None:
    with running(Hub) as server:
        absent = (f"{server.url}/absent", tmp_path / "a")
        done = fetch([absent, (f"{server.url}/whole", tmp_path / "b")], NEED="any")
        assert done.returncode == 0
        assert "goes on without a; a restart tries again" in done.stderr
        assert fetch([absent], NEED="any").returncode == 1, "without any it has nothing to serve"


def test_what_may_pass_is_tried_again_and_what_will_not_is_not(tmp_path: Path) -> None:
    with running(Hub, {"busy": 2}) as server:
        files = [(f"{server.url}/busy", tmp_path / "a"), (f"{server.url}/absent", tmp_path / "b")]
        done = fetch(files, RETRY_SECONDS="0.01 0.01 0.01")
    assert done.returncode == 1
    assert (tmp_path / "a").is_file()
    asked = [path for _, path, _ in server.requests]
    assert asked == ["/busy", "/absent", "/busy", "/busy"]


def test_a_gated_file_says_what_it_wants(tmp_path: Path) -> None:
    with running(Hub) as server:
        done = fetch([(f"{server.url}/gated", tmp_path / "m")])
        assert "a gated model wants huggingFace.tokenSecret" in done.stderr
        done = fetch(
            [(f"{server.url}/gated", tmp_path / "m")], HF_TOKEN="hub-token", HF_ENDPOINT=server.url
        )
    assert done.returncode == 0, done.stderr
    assert "hub-token" not in done.stdout + done.stderr


def test_the_token_does_not_follow_a_redirect_to_another_host(tmp_path: Path) -> None:
    with running(Hub) as storage:
        elsewhere = storage.url.replace("127.0.0.1", "localhost")
        with running(Hub, {"elsewhere": elsewhere}) as hub:
            done = fetch(
                [(f"{hub.url}/moved", tmp_path / "m")],
                HF_TOKEN="hub-token",
                HF_ENDPOINT=hub.url,
            )
    assert done.returncode == 0, done.stderr
    assert hub.requests[0][2]["authorization"] == "Bearer hub-token"
    assert "authorization" not in storage.requests[0][2]


def test_the_token_goes_to_the_hub_only(tmp_path: Path) -> None:
    with running(Hub) as other:
        fetch([(f"{other.url}/whole", tmp_path / "m")], HF_TOKEN="hub-token")
    assert "authorization" not in other.requests[0][2]


def repository(folder: Path, server: Server, source: str = "hf://o/r", **more: str) -> Any:
    return fetch([(source, folder)], HF_ENDPOINT=server.url, **more)


def test_of_a_repository_comes_what_an_engine_reads(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "o" / "r"
    with running(Hub, {"commit": "c0ffee"}) as server:
        done = repository(folder, server)
        assert done.returncode == 0, done.stderr
        assert "4 files, " in done.stdout
        assert "commit c0ffee" in done.stdout
        found = {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}
        wanted = ("config.json", "tokenizer.json", "safetensors")
        assert found == {n: c for n, c in REPOSITORY.items() if n.endswith(wanted)}
        assert not (tmp_path / "models" / "o" / "escape").exists()
        asked = len(server.requests)
        assert repository(folder, server).stdout == "r: there already\n"
        assert len(server.requests) == asked, "what is whole needs no network"


def test_a_repository_that_was_cut_goes_on_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    with running(Hub, {"commit": "c1"}) as server:
        assert repository(folder, server).returncode == 0
        (folder / "tokenizer.json").unlink()
        asked = len(server.requests)
        assert repository(folder, server).returncode == 0
    assert [path for _, path, _ in server.requests[asked:]] == [
        "/api/models/o/r/revision/main?blobs=true",
        "/o/r/resolve/c1/tokenizer.json",
    ]


def test_another_revision_replaces_the_files_of_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    state = {"commit": "c1"}
    with running(Hub, state) as server:
        assert repository(folder, server).returncode == 0
        state["commit"] = "c2"
        assert repository(folder, server).stdout == "r: there already\n", "main may move; we do not"
        done = repository(folder, server, "hf://o/r@c2")
        assert "commit c2" in done.stdout
    assert ("GET", "/api/models/o/r/revision/c2?blobs=true") in [
        (method, path) for method, path, _ in server.requests
    ]


def test_weights_that_are_not_what_the_hub_says_are_refused(tmp_path: Path) -> None:
    with running(Hub, {"commit": "c1", "wrong_digest": True}) as server:
        done = repository(tmp_path / "r", server)
    assert done.returncode == 1
    assert "its digest is not the one that the hub names" in done.stderr
    assert not (tmp_path / "r" / "model-00001-of-00002.safetensors").exists()


def test_progress_can_be_asked_for_while_it_downloads(tmp_path: Path) -> None:
    """The server holds the rest back until the progress was read."""
    told: dict[str, Any] = {}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    class Slow(Handler):
        def do_GET(self) -> None:
            self.read()
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:-1])
            self.wfile.flush()
            while told.get("downloads", {}).get("m", {}).get("state") != "downloading":
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
                    told.update(json.load(answer))
            self.wfile.write(CONTENT[-1:])

    with running(Slow) as server:
        done = fetch(
            [(f"{server.url}/a", tmp_path / "m")], PROGRESS_PORT=str(port), BACKEND="llama-embed"
        )
    assert done.returncode == 0, done.stderr
    assert told["backend"] == "llama-embed"
    assert told["downloads"]["m"]["total"] == len(CONTENT)


# --- pull_ollama.py: against Ollama's API as docs/api.md of github.com/ollama/ollama has it ---


class Ollama(Handler):
    """Models by name with their parameters, licence and parent, and blobs by digest."""

    def lines(self, *events: dict[str, Any]) -> None:
        self.answer(200, b"".join(json.dumps(event).encode() + b"\n" for event in events))

    def do_HEAD(self) -> None:
        self.read()
        self.answer(200 if self.path.rsplit("/", 1)[-1] in self.server.state["blobs"] else 404)

    def do_GET(self) -> None:
        self.read()
        models = [{"name": name} for name in self.server.state["models"]]
        self.answer_json(200, {"version": "0", "models": models})

    def do_POST(self) -> None:
        body, state = self.read(), self.server.state
        if self.path.startswith("/api/blobs/"):
            state["blobs"].add(self.path.rsplit("/", 1)[-1])
            self.answer(201)
            return
        request = json.loads(body)
        name = request["model"]
        full = name if ":" in name else f"{name}:latest"
        if self.path == "/api/show":
            model = state["models"][full]
            text = "\n".join(f"{key}    {value}" for key, value in model["parameters"].items())
            blob = f"FROM /data/models/blobs/{model.get('blob', 'sha256:0').replace(':', '-')}"
            shown = {"parameters": text, "license": model.get("license", ""), "modelfile": blob}
            details = {"parent_model": model.get("parent", "")}
            self.answer_json(200, shown | {"details": details})
        elif self.path == "/api/pull" and name == "absent":
            self.lines({"status": "pulling manifest"}, {"error": "file does not exist"})
        elif self.path == "/api/pull":
            state["models"][full] = {"parameters": {}}
            part = {"status": "pulling", "digest": "sha256:1", "total": 10, "completed": 5}
            self.lines({"status": "pulling manifest"}, part, {"status": "success"})
        else:
            base = state["models"].get(request.get("from", ""), {"parameters": {}})
            parameters = base["parameters"] | request.get("parameters", {})
            made = {"parameters": parameters, "license": request.get("license", "")}
            made["parent"] = request.get("from", "")
            made["blob"] = next(iter(request.get("files", {}).values()), "sha256:0")
            state["models"][full] = made
            state["created"].append(request)
            self.lines({"status": "success"})


@pytest.fixture
def ollama_state() -> dict[str, Any]:
    return {"models": {}, "blobs": set(), "created": []}


def pull(server: Server, tmp_path: Path, *models: dict[str, Any]) -> Any:
    return run(
        "pull_ollama",
        OLLAMA_URL=server.url,
        MODELS=json.dumps(models),
        WORK_DIRECTORY=str(tmp_path / "work"),
        RETRY_SECONDS="",
    )


CHAT = {"name": "llama3.1:8b", "source": "llama3.1:8b", "parameters": {"num_thread": 8}}


def test_a_model_is_pulled_with_its_parameters_and_a_second_run_changes_nothing(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    with running(Ollama, ollama_state) as server:
        first = pull(server, tmp_path, CHAT)
        assert first.returncode == 0, first.stderr
        assert server.state["models"]["llama3.1:8b"]["parameters"] == {"num_thread": 8}
        asked = len(server.requests)
        second = pull(server, tmp_path, CHAT)
    assert "llama3.1:8b: there already" in second.stdout
    assert [path for _, path, _ in server.requests[asked:]] == [
        "/api/version",
        "/api/tags",
        "/api/show",
    ]


def test_a_changed_parameter_is_written_without_a_download(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    ollama_state["models"]["llama3.1:8b"] = {"parameters": {"num_thread": "4"}}
    with running(Ollama, ollama_state) as server:
        assert pull(server, tmp_path, CHAT).returncode == 0
    assert not [path for _, path, _ in server.requests if path == "/api/pull"]
    assert server.state["created"] == [
        {"model": "llama3.1:8b", "from": "llama3.1:8b", "parameters": {"num_thread": 8}}
    ]


def test_a_model_that_fails_does_not_stop_the_others(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    absent = {"name": "absent", "source": "absent", "parameters": {}}
    plain = {"name": "mxbai-embed-large", "source": "mxbai-embed-large", "parameters": {}}
    with running(Ollama, ollama_state) as server:
        done = pull(server, tmp_path, absent, plain)
    assert done.returncode == 1
    assert "pull_ollama: absent: file does not exist" in done.stderr
    assert "mxbai-embed-large:latest" in server.state["models"]


def test_a_gguf_file_is_uploaded_once_and_named(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    weights = tmp_path / "small.gguf"
    weights.write_bytes(CONTENT)
    digest = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
    model = {"name": "smollm2", "source": f"file://{weights}", "parameters": {"num_ctx": 2048}}
    with running(Ollama, ollama_state) as server:
        done = pull(server, tmp_path, model)
        assert done.returncode == 0, done.stderr
        assert server.state["created"] == [
            {
                "model": "smollm2",
                "license": f"Weights from file://{weights}",
                "files": {"small.gguf": digest},
                "parameters": {"num_ctx": 2048},
            }
        ]
        assert digest in server.state["blobs"]
        again = pull(server, tmp_path, model)
        assert "there already" in again.stdout
        # Other parameters: the weights are there, so the file is not wanted again.
        weights.unlink()
        third = pull(server, tmp_path, model | {"parameters": {"num_ctx": 4096}})
    assert third.returncode == 0, third.stderr
    assert server.state["created"][-1]["files"] == {"model.gguf": digest}
    assert server.state["created"][-1]["parameters"] == {"num_ctx": 4096}


def test_a_changed_source_of_a_model_is_brought(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    first, second = tmp_path / "a.gguf", tmp_path / "b.gguf"
    first.write_bytes(b"a")
    second.write_bytes(b"b")
    model = {"name": "mine", "source": f"file://{first}", "parameters": {}}
    with running(Ollama, ollama_state) as server:
        assert pull(server, tmp_path, model).returncode == 0
        assert pull(server, tmp_path, model | {"source": f"file://{second}"}).returncode == 0
        digest = "sha256:" + hashlib.sha256(b"b").hexdigest()
        assert server.state["models"]["mine:latest"]["blob"] == digest
        # And a name for a model of Ollama's library.
        named = {"name": "chat", "source": "llama3.1:8b", "parameters": {}}
        assert pull(server, tmp_path, named).returncode == 0
        assert "there already" in pull(server, tmp_path, named).stdout
        assert pull(server, tmp_path, named | {"source": "qwen3:8b"}).returncode == 0
    assert server.state["models"]["chat:latest"]["parent"] == "qwen3:8b"


def test_a_model_that_was_put_there_by_hand_is_left_alone(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    ollama_state["models"]["mine:latest"] = {"parameters": {}, "license": "Apache"}
    model = {"name": "mine", "source": "https://models.example/x.gguf", "parameters": {}}
    with running(Ollama, ollama_state) as server:
        assert "there already" in pull(server, tmp_path, model).stdout
    assert server.state["created"] == []


def test_packaged_weights_want_the_image_that_holds_them(
    tmp_path: Path, ollama_state: dict[str, Any]
) -> None:
    model = {"name": "smollm2", "source": "packaged:smollm2-135m-instruct", "parameters": {}}
    with running(Ollama, ollama_state) as server:
        done = pull(server, tmp_path, model)
    assert done.returncode == 1
    assert "packaged: needs ollama.pull.image to hold weights" in done.stderr


# --- smoke_test.py ---


class Gateway(Handler):
    """Answers a chat and an embedding to whoever has the key."""

    def do_POST(self) -> None:
        self.read()
        if self.headers.get("Authorization") != "Bearer key":
            self.answer_json(401, {"error": {"message": "no key"}})
        elif self.path == "/v1/embeddings":
            self.answer_json(200, {"data": [{"embedding": self.server.state}]})
        else:
            self.answer_json(200, {"choices": [{"message": {"content": "Paris."}}]})


def test_helm_test_without_a_model_does_not_pass() -> None:
    done = run("smoke_test", GATEWAY_URL="http://127.0.0.1:9", CHAT_MODEL="", TIMEOUT="1")
    assert done.returncode == 1
    assert "no enabled backend serves a model that chats or embeds" in done.stderr


def test_helm_test_says_what_it_left_out() -> None:
    with running(Gateway, [0.5]) as server:
        done = run(
            "smoke_test", GATEWAY_URL=server.url, CHAT_MODEL="", EMBEDDING_MODEL="m", TIMEOUT="9"
        )
    assert "chat: no model of the route table does, not tested" in done.stdout
    assert done.returncode == 1, "this gateway wants a key"


@pytest.mark.parametrize(
    ("key", "vector", "code", "text"),
    [
        pytest.param("key", [0.5, 0.1], 0, "embedding mini by ?: 2 dimensions", id="right"),
        pytest.param("other", [0.5], 1, "/v1/chat/completions: 401", id="wrong-key"),
        pytest.param("key", [0.0, 0.0], 1, "mini: an embedding of zeros", id="zeros"),
    ],
)
def test_helm_test_tells_what_it_got(
    tmp_path: Path, key: str, vector: list[float], code: int, text: str
) -> None:
    (tmp_path / "key").write_text(key + "\n")
    with running(Gateway, vector) as server:
        done = run(
            "smoke_test",
            GATEWAY_URL=server.url,
            CHAT_MODEL="chat",
            EMBEDDING_MODEL="mini",
            TIMEOUT="10",
            API_KEY_FILE=str(tmp_path / "key"),
        )
    assert done.returncode == code
    assert text in done.stdout + done.stderr
