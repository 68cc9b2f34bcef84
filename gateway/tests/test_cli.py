from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from synapse_gateway import __version__, cli
from synapse_gateway.config import ServeOptions, load

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = Path(__file__).parent / "config" / "examples"
DOCS = Path(__file__).parents[2] / "docs"
PACKAGE = Path(cli.__file__).parents[1]


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("SYNAPSE_", "OTEL_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., str]:
    def file(text: str, name: str = "backends.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return file


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    """Stands in for the gateway: what it is told to serve."""
    options: list[ServeOptions] = []
    app = types.ModuleType("synapse_gateway.app")
    app.serve = options.append  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "synapse_gateway.app", app)
    return options


Output = pytest.CaptureFixture[str]


def test_the_command_is_imported_without_the_gateway() -> None:
    program = (
        "import sys, synapse_gateway.cli; "
        "print(sorted({'yaml', 'msgspec', 'asyncio', 'uvicorn'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", program], check=True, capture_output=True, env=environment, text=True
    )
    assert done.stdout.strip() == "[]"


def test_it_runs_as_a_module() -> None:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    done = subprocess.run(
        [sys.executable, "-m", "synapse_gateway", "version"],
        check=True,
        capture_output=True,
        env=environment,
        text=True,
    )
    assert done.stdout == f"{__version__}\n"


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    reader, writer = os.pipe()
    os.close(reader)
    with (tmp_path / "stderr").open("w+b") as errors:
        done = subprocess.run(
            [sys.executable, "-m", "synapse_gateway", "config", "schema"],
            check=False,
            stdout=writer,
            stderr=errors,
            env=environment,
        )
        os.close(writer)
        errors.seek(0)
        assert errors.read() == b""
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["config"], "the following arguments are required: COMMAND"),
        (["config", "check"], "the following arguments are required: FILE"),
        (["serve", "--port", "x"], "must be a port from 0 to 65535 (got 'x')"),
        (["serve", "--port", "65536"], "must be a port from 0 to 65535 (got '65536')"),
        (["routes", "a.yaml", "b.yaml"], "unrecognized arguments: b.yaml"),
        (["routes", "explain"], "the following arguments are required: REQUEST"),
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str], complaint: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("command", ["up", "down"])
def test_up_and_down_parse_their_own_arguments(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def run(argv: list[str]) -> int:
        seen.append(argv)
        return 3

    monkeypatch.setattr(f"synapse_gateway.up.main_{command}", run)
    monkeypatch.setattr(sys, "argv", ["synapse", command, "--port", "1"])
    assert cli.main() == 3
    assert seen == [["--port", "1"]]


def test_check_says_what_each_file_is(capsys: Output) -> None:
    files = [str(EXAMPLES / name) for name in ("backends.yaml", "groups.yaml")]
    assert cli.main(["config", "check", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if " file, " in line] == [
        f"{files[0]}: registry file, 6 backends, 0 models, 9 routes, 0 keys, 0 warnings",
        f"{files[1]}: groups file, 0 backends, 0 models, 0 routes, 3 keys, 1 warning",
    ]


def test_check_goes_on_after_a_bad_file_and_fails(file: Callable[..., str], capsys: Output) -> None:
    bad = file("backends: {a: {}}\nmodel: {}", "bad.yaml")
    good = file("backends: {}", "good.yaml")
    assert cli.main(["config", "check", bad, good]) == 1
    said = capsys.readouterr()
    assert (
        said.out == "good.yaml: native file, 0 backends, 0 models, 0 routes, 0 keys, 0 warnings\n"
    )
    assert said.err.splitlines() == [
        "error: bad.yaml:1: backends.a.url: is required",
        "error: bad.yaml:2: model: unknown field; did you mean 'models'?",
    ]


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--strict"], 1)])
def test_warnings_are_printed_and_fail_only_when_asked(
    flags: list[str], code: int, file: Callable[..., str], capsys: Output
) -> None:
    name = file("keys: {k: {env: NOT_THERE}}")
    assert cli.main(["config", "check", *flags, name]) == code
    said = capsys.readouterr()
    assert said.err == (
        "warning: backends.yaml:1: keys.k.env: the environment variable NOT_THERE is not set\n"
    )
    assert "1 key, 1 warning" in said.out


def test_show_prints_the_effective_configuration_without_secrets(
    file: Callable[..., str], capsys: Output
) -> None:
    file("groups: [{name: g, ws_auth_keys: [ws-1], api_keys: [api-1]}]", "groups.yaml")
    name = file(
        "backends: {a: {url: http://a, headers: {Authorization: Bearer sk-1}}, b: {url: http://b}}\n"
        f"keys: {{k: {{sha256: {'ab' * 32}, priority: 9}}, e: {{env: K}}}}\n"
        "groups_file: groups.yaml\n"
    )
    assert cli.main(["config", "show", name]) == 0
    text = capsys.readouterr().out
    assert f"# hash: {load(Path(name), {}).hash}\n" in text
    assert yaml.safe_load(text) == {
        "backends": {
            "a": {"url": "http://a", "headers": {"Authorization": "(hidden)"}},
            "b": {"url": "http://b"},
        },
        "keys": {
            "g-1": {"sha256": "(hidden)", "group": "g"},
            "k": {"sha256": "(hidden)", "priority": 9},
            "e": {"env": "K"},
        },
        "groups": {"g": {"ws_auth_keys_sha256": ["(hidden)"]}},
    }


@pytest.mark.parametrize("name", ["backends.yaml", "groups.yaml", "litellm-config.yaml"])
def test_what_import_prints_loads_as_the_same_configuration(
    name: str, file: Callable[..., str], capsys: Output
) -> None:
    assert cli.main(["config", "import", str(EXAMPLES / name)]) == 0
    imported = file(capsys.readouterr().out)
    assert load(Path(imported), {}).settings == load(EXAMPLES / name, {}).settings


def test_import_leaves_keys_in_clear_behind_and_says_where_they_go(
    file: Callable[..., str], capsys: Output
) -> None:
    name = file(
        "model_list:\n  - model_name: m\n    litellm_params:\n      model: hosted_vllm/m\n"
        "      api_base: http://my-vllm.svc:8000\n      api_key: sk-secret\n"
        "  - {model_name: m, litellm_params: {model: ollama/m}}\n"
    )
    assert cli.main(["config", "import", name]) == 0
    said = capsys.readouterr()
    assert "sk-secret" not in said.out + said.err
    backends = yaml.safe_load(said.out)["backends"]
    assert backends["my-vllm"]["api_key_env"] == "MY_VLLM_API_KEY"
    assert "api_key_env" not in backends["localhost"]
    assert said.err == (
        "note: backends.my-vllm: put its api_key into the environment variable MY_VLLM_API_KEY\n"
    )


def test_a_file_that_cannot_be_used_exits_with_1_and_the_reasons(
    file: Callable[..., str], capsys: Output
) -> None:
    name = file("backends: {a: {}}")
    for argv in (["config", "show", name], ["config", "import", name], ["routes", name]):
        assert cli.main(argv) == 1
        assert capsys.readouterr() == ("", "backends.yaml:1: backends.a.url: is required\n")


@pytest.mark.parametrize(
    ("flags", "committed"),
    [([], "config.schema.json"), (["--reference"], "configuration.md")],
)
def test_schema_prints_what_is_committed(flags: list[str], committed: str, capsys: Output) -> None:
    assert cli.main(["config", "schema", *flags]) == 0
    text = capsys.readouterr().out
    assert text.strip() in (DOCS / committed).read_text(encoding="utf-8")


def test_routes_prints_models_and_paths(file: Callable[..., str], capsys: Output) -> None:
    name = file(
        """\
backends:
  vllm: {url: http://vllm, type: vllm, device: gpu}
  ollama: {url: http://ollama, type: ollama}
models:
  llama3.1:
    aliases: ["llama3.1:8b", llama3.1-8b]
    fallbacks: [phi]
    targets:
      - {backend: ollama, model: "llama3.1:8b", order: 2, weight: 0.5}
      - {backend: vllm}
  phi: {targets: [{backend: ollama}]}
routes:
  tts/*: vllm
"""
    )
    assert cli.main(["routes", name]) == 0
    assert (
        re.sub(" +", " ", capsys.readouterr().out)
        == """\
MODEL ORDER BACKEND TYPE DEVICE NAME THERE WEIGHT ALIASES
llama3.1 1 vllm vllm gpu llama3.1 1 llama3.1:8b, llama3.1-8b
 2 ollama ollama - llama3.1:8b 0.5
 then phi (model)
phi 1 ollama ollama - phi 1

PATH BACKEND
/tts/* vllm
"""
    )


def test_routes_takes_the_file_of_the_environment(
    file: Callable[..., str], monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("SYNAPSE_GATEWAY_CONFIG_PATH", file("backends: {}"))
    assert cli.main(["routes"]) == 0
    said = "no models and no routes: what the backends themselves list is served\n"
    assert capsys.readouterr().out == said


ROUTING = """\
auth: anonymous
backends:
  vllm: {url: http://vllm, type: vllm, device: gpu}
  ollama: {url: http://ollama, type: ollama, device: cpu}
  piper: {url: http://piper, type: piper}
models:
  general:
    aliases: [g]
    fallbacks: [coder]
    context_fallback: coder
    targets:
      - {backend: vllm, model: meta/llama}
      - {backend: ollama, order: 2, weight: 2}
      - {backend: piper, order: 3}
  coder: {policy: prefix-affinity, targets: [{backend: ollama}]}
  vectors:
    service: embeddings
    targets: [{backend: vllm, weights: a}, {backend: ollama, order: 2}]
auto:
  default: general
  rules:
    - {name: code, model: coder, keywords: [python, rust], tools: false}
    - {name: long, model: coder, min_chars: 1000}
keys: {limited: {env: K, models: [coder]}}
routes: {tts/*: piper, /v1/audio/speech: piper}
"""


def chat(text: str, model: str | None = None, path: str = "") -> str:
    body: dict[str, object] = {"messages": [{"role": "user", "content": text}]}
    return f"{path}{json.dumps(body if model is None else {**body, 'model': model})}"


AS_CONFIGURED = "(as configured; which backends are busy, asleep or down now is not looked at)\n"
GENERAL = """\
targets, by the least outstanding work within an order:
  1. vllm as meta/llama (vllm, gpu, first token within 60 s)
  2. ollama as general (ollama, cpu, weight 2, first token within 120 s)
  not piper: a backend of type piper cannot do this (chat)
then model coder
if the prompt does not fit: model coder
at most 3 attempts within 300 s
"""
CODER = """\
targets, by the prompt's beginning within an order:
  1. ollama as coder (ollama, cpu, first token within 120 s)
at most 3 attempts within 300 s
"""


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            chat("Write Python.", "auto"),
            "automatic choice: rule 'code' holds (keywords python, rust; tools false)\n"
            f"model: coder\n{CODER}",
            id="rule",
        ),
        pytest.param(
            chat("x" * 1000),
            f"automatic choice: rule 'long' holds (min_chars 1000)\nmodel: coder\n{CODER}",
            id="rule-on-length",
        ),
        pytest.param(
            chat("Hello.", path="POST /v1/chat/completions "),
            f"automatic choice: no rule holds, so the default\nmodel: general\n{GENERAL}",
            id="default",
        ),
        pytest.param(chat("Hello.", "coder"), f"model: coder\n{CODER}", id="named"),
        pytest.param(
            chat("Hello.", "g"), f"model: general ('g' is an alias of it)\n{GENERAL}", id="alias"
        ),
        pytest.param(
            chat("Hello.", "coder", path="/api/chat "), f"model: coder\n{CODER}", id="ollama-path"
        ),
        pytest.param(
            '/v1/embeddings {"model": "vectors", "input": "x"}',
            "model: vectors\n"
            "targets, by the least outstanding work within an order:\n"
            "  1. vllm as vectors (vllm, gpu, first token within 60 s)\n"
            "  not ollama: it does not declare the same weights as the first target\n"
            "at most 3 attempts within 60 s\n",
            id="embeddings",
        ),
        pytest.param(
            '/v1/audio/speech {"model": "any", "input": "x"}',
            "no model of the table: the route of the path /v1/audio/speech serves it\n"
            "targets, by the least outstanding work within an order:\n"
            "  1. piper (piper, first token within 60 s)\n"
            "at most 3 attempts within 120 s\n",
            id="route-of-an-openai-path",
        ),
        pytest.param(
            "/tts/synthesize",
            "no model of the table: the route of the path /tts/synthesize serves it\n"
            "targets, by the least outstanding work within an order:\n"
            "  1. piper (piper, first token within 60 s)\n"
            "at most 3 attempts within 120 s\n",
            id="route-of-a-path-without-a-model",
        ),
        pytest.param(
            "/tts/languages",
            "no model of the table: the route of the path /tts/languages serves it\n"
            "  backend piper\n",
            id="route-of-another-path",
        ),
    ],
)
def test_explain_says_where_a_request_goes_and_why(
    request_: str, answer: str, file: Callable[..., str], capsys: Output
) -> None:
    assert cli.main(["routes", "explain", request_, file(ROUTING)]) == 0
    assert capsys.readouterr().out == answer + AS_CONFIGURED


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        pytest.param(
            chat("x", "none"), "refused: 404 model_not_found: The model 'none' ", id="unknown-model"
        ),
        pytest.param('{"model": 3}', "refused: 400 ", id="wrong-body"),
        pytest.param(
            "/v1/chat {}",
            "refused: 404 not_found: no route has the path '/v1/chat'; did you mean",
            id="unknown-path",
        ),
        pytest.param(
            '/v1/audio/transcriptions {"model": "vectors"}',
            "refused: 400 model_not_capable: model: 'vectors' cannot do this",
            id="recording",
        ),
        pytest.param(
            "/v1/audio/transcriptions {",
            "refused: 400 invalid_request_error: The body is not a JSON object",
            id="broken-body-of-a-recording",
        ),
        pytest.param(
            "/speakers/diarize",
            "refused: 501 not_supported: No backend of this deployment can do this (diarization)",
            id="nobody-can",
        ),
    ],
)
def test_explain_says_why_a_request_is_refused(
    request_: str, answer: str, file: Callable[..., str], capsys: Output
) -> None:
    assert cli.main(["routes", "explain", request_, file(ROUTING)]) == 1
    assert capsys.readouterr().out.startswith(answer)


def test_explain_knows_what_the_gateway_answers_itself(
    file: Callable[..., str], capsys: Output
) -> None:
    request = '/api/chat {"model": "general", "messages": []}'
    assert cli.main(["routes", "explain", request, file(ROUTING)]) == 0
    assert capsys.readouterr().out == "no backend: the gateway answers this itself\n"


@pytest.mark.parametrize(
    "request_", ["/v1/models", "GET /v1/models/general", "/api/tags", "POST /api/show", "/health"]
)
def test_explain_knows_what_needs_no_backend(
    request_: str, file: Callable[..., str], capsys: Output
) -> None:
    assert cli.main(["routes", "explain", request_, file(ROUTING)]) == 0
    assert capsys.readouterr().out == "no backend: the gateway answers this itself\n"


def test_explain_goes_by_the_key_that_is_named(file: Callable[..., str], capsys: Output) -> None:
    argv = ["routes", "explain", "--key", "limited"]
    assert cli.main([*argv, chat("x", "general"), file(ROUTING)]) == 1
    assert "404 model_not_found" in capsys.readouterr().out
    assert cli.main([*argv, chat("x", "coder"), "backends.yaml"]) == 0
    behind = [*argv[:2], chat("x", "coder"), *argv[2:], "backends.yaml"]
    assert cli.main(behind) == 0, "options may stand anywhere"
    assert cli.main([*argv[:-1], "limitd", "{}", "backends.yaml"]) == 1
    said = "--key: unknown key 'limitd'; did you mean 'limited'?\n"
    assert capsys.readouterr().err == said


def test_explain_reads_the_request_from_a_file(file: Callable[..., str], capsys: Output) -> None:
    name = file(chat("x", "coder", path="/v1/chat/completions\n"), "request")
    assert cli.main(["routes", "explain", f"@{name}", file(ROUTING)]) == 0
    assert capsys.readouterr().out.startswith("model: coder\n")
    assert cli.main(["routes", "explain", "@none", "backends.yaml"]) == 1
    assert "none: cannot be read" in capsys.readouterr().err


def test_serve_hands_its_options_to_the_gateway(
    file: Callable[..., str], served: list[ServeOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNAPSE_INSTANCE_ID", "one")
    monkeypatch.setenv("SYNAPSE_LOG_LEVEL", "ERROR")
    name = file("auth: anonymous")
    argv = ["--host", "::1", "--port", "0", "--ollama-port", "11434", "--log-level", "debug"]
    assert cli.main(["serve", "--config", name, *argv]) == 0
    assert served == [
        ServeOptions(
            host="::1",
            port=0,
            ollama_port=11434,
            config_path=Path(name),
            config_named=True,
            log_level="DEBUG",
            instance_id="one",
        )
    ]


ANYWHERE = "0.0.0.0"  # noqa: S104 - nothing is bound


@pytest.mark.parametrize(
    ("text", "argv", "environ"),
    [
        pytest.param("backends: {}", [], {"SYNAPSE_API_KEYS": "app=sk-1"}, id="key"),
        pytest.param("auth: anonymous", [], {}, id="anonymous-on-loopback"),
        pytest.param("keys: {k: {env: K}}", ["--host", ANYWHERE], {"K": "sk-1"}, id="key-anywhere"),
        pytest.param(None, [], {"SYNAPSE_AUTH": "anonymous"}, id="no-file-on-loopback"),
        pytest.param(
            None, ["--host", ANYWHERE], {"SYNAPSE_API_KEYS": "app=sk-1"}, id="no-file-with-key"
        ),
    ],
)
def test_serve_starts_when_it_is_clear_who_may_call(
    text: str | None,
    argv: list[str],
    environ: dict[str, str],
    file: Callable[..., str],
    served: list[ServeOptions],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    config = [] if text is None else ["--config", file(text)]
    assert cli.main(["serve", *config, *argv]) == 0
    assert len(served) == 1


@pytest.mark.parametrize(
    ("text", "argv", "environ", "said"),
    [
        pytest.param(
            "backends: {}", [], {}, ["SYNAPSE_API_KEYS", "`auth: anonymous`"], id="neither"
        ),
        pytest.param(
            "auth: anonymous",
            ["--host", ANYWHERE],
            {},
            ["loopback only", "SYNAPSE_API_KEYS", "127.0.0.1"],
            id="anonymous-without-any-key-anywhere",
        ),
        pytest.param(
            None, [], {}, ["SYNAPSE_API_KEYS", "`auth: anonymous`"], id="no-file-says-nothing"
        ),
        pytest.param(
            None,
            ["--host", ANYWHERE],
            {"SYNAPSE_AUTH": "anonymous"},
            ["loopback only"],
            id="no-file-anywhere",
        ),
        pytest.param(
            None, [], {"SYNAPSE_AUTH": "all"}, ["must be one of keys, anonymous"], id="auth"
        ),
        pytest.param("keys: {k: {env: K}}", [], {}, ["K is not set"], id="missing-variable"),
        pytest.param("backend: {}", [], {}, ["unknown field"], id="bad-file"),
        pytest.param(
            "auth: anonymous", ["--log-level", "loud"], {}, ["must be one of DEBUG"], id="log-level"
        ),
        pytest.param(
            None, ["--config", "none.yaml"], {}, ["cannot be read"], id="named-but-missing"
        ),
    ],
)
def test_serve_refuses_to_start_and_says_what_would_do(
    text: str | None,
    argv: list[str],
    environ: dict[str, str],
    said: list[str],
    file: Callable[..., str],
    served: list[ServeOptions],
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    config = [] if text is None else ["--config", file(text)]
    assert cli.main(["serve", *config, *argv]) == 1
    error = capsys.readouterr().err
    for words in said:
        assert words in error
    assert served == []


def test_the_example_of_the_documentation_loads(file: Callable[..., str]) -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    name = file(page.split("```yaml\n")[1].split("```")[0])
    loaded = load(Path(name), {"MY_APP_KEY": "sk-1"})
    assert loaded.warnings == ()
    assert list(loaded.settings.models) == ["llama3.1"]


def test_every_command_of_the_documentation_exists() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    parser = cli.build_parser()
    commands = re.findall(r"^\| `synapse ([^`]+)`", page, flags=re.MULTILINE)
    assert len(commands) > 4
    for command in commands:
        words = re.sub(r"[\[\].]", "", command).replace(cli.EXPLAIN, "explain").split()
        parser.parse_args([cli.EXPLAIN if word == "explain" else word for word in words])
