from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import Dialect, load
from synapse_gateway.config.settings import (
    AuthMode,
    BackendType,
    Device,
    Policy,
    Route,
    Service,
    Target,
    Timeouts,
)

if TYPE_CHECKING:
    from tests.config.conftest import Reader, Refusals

EXAMPLES = Path(__file__).parent / "examples"

WHOLE = """\
auth: anonymous
backends:
  vllm:
    url: http://vllm-inference:8001/v1
    type: vllm
    device: gpu
    slots: 8
    headers: {X-Tenant: a}
    timeouts: {first_token: 20, overall: 100.5}
    tls:
    vram: {awake: 24000000000}
  ollama: {url: "http://ollama-engine:11434", type: ollama, device: cpu}
models:
  llama3.1:
    aliases: ["llama3.1-8b", "llama3.1:8b"]
    service: llm
    policy: prefix-affinity
    targets:
      - {backend: vllm, model: meta-llama/Llama-3.1-8B-Instruct}
      - {backend: ollama, model: "llama3.1:8b", order: 2, weight: 0.5}
    timeouts: {between_tokens: 5}
    queue: {size: 0}
    attempts: 2
routes:
  /v1/embeddings: ollama
  tts/*: {backend: vllm, rewrite_model: yes}
auto:
  default: llama3.1
  rules:
    - {name: code, model: llama3.1, keywords: [python], tools: off}
keys:
  app: {env: APP_KEY, models: [llama*], requests_per_minute: 60, priority: 9}
limits:
  breaker: {failures: 3}
"""


def test_a_file_becomes_the_tree_that_it_describes(read: Reader) -> None:
    loaded = read(WHOLE, {"APP_KEY": "sk-1"})
    settings = loaded.settings
    assert loaded.dialect is Dialect.NATIVE
    assert loaded.warnings == ()
    assert settings.auth is AuthMode.ANONYMOUS
    vllm = settings.backends["vllm"]
    assert (vllm.type, vllm.device, vllm.slots) == (BackendType.VLLM, Device.GPU, 8)
    assert vllm.timeouts == Timeouts(first_token=20.0, overall=100.5)
    assert vllm.vram is not None
    assert vllm.vram.awake == 24_000_000_000
    model = settings.models["llama3.1"]
    assert model.aliases == ("llama3.1-8b", "llama3.1:8b")
    assert (model.service, model.policy) == (Service.LLM, Policy.PREFIX_AFFINITY)
    assert model.targets[1] == Target(backend="ollama", model="llama3.1:8b", order=2, weight=0.5)
    assert settings.routes == {
        "/v1/embeddings": Route(backend="ollama"),
        "/tts/*": Route(backend="vllm", rewrite_model=True),
    }
    assert settings.auto.rules[0].tools is False
    assert settings.keys["app"].priority == 9
    assert settings.limits.breaker.failures == 3


def test_the_same_tree_in_json_is_the_same_configuration(read: Reader, tmp_path: Path) -> None:
    settings = read(WHOLE).settings
    path = tmp_path / "backends.json"
    path.write_text(json.dumps(settings.as_plain(), indent="\t"), encoding="utf-8")
    assert load(path, {}).settings == settings


def test_what_a_tree_is_written_as_loads_as_the_same_tree(read: Reader) -> None:
    loaded = read(WHOLE)
    again = read(json.dumps(loaded.settings.as_plain()))
    assert again.settings == loaded.settings
    assert again.hash == loaded.hash


def test_values_that_equal_the_defaults_do_not_change_the_hash(read: Reader) -> None:
    short = read("backends: {a: {url: http://a}}")
    long = read(
        "backends: {a: {url: http://a, tls: {verify: true}, probe_interval: 5}}\nlimits: {}"
    )
    assert long.hash == short.hash


@pytest.mark.parametrize(
    "other", ["{url: http://b}", "{url: http://a, slots: 2}", "{url: http://a, device: cpu}"]
)
def test_any_other_value_changes_the_hash(read: Reader, other: str) -> None:
    assert read(f"backends: {{a: {other}}}").hash != read("backends: {a: {url: http://a}}").hash


def test_the_registry_of_the_existing_gateway_loads_unchanged() -> None:
    loaded = load(EXAMPLES / "backends.yaml", {})
    settings = loaded.settings
    assert loaded.dialect is Dialect.REGISTRY
    assert loaded.warnings == ()
    assert {name: backend.type.value for name, backend in settings.backends.items()} == {
        "llama-embed": "openai-compatible",
        "llama-router": "openai-compatible",
        "chatterbox-tts": "chatterbox",
        "whisper-stt": "faster-whisper",
        "pyannote-speaker": "pyannote",
        "deepfilter-audio": "deepfilter",
    }
    chatterbox = settings.backends["chatterbox-tts"]
    assert chatterbox.url == "http://chatterbox-tts.llm-infra.svc.cluster.local:8004"
    assert chatterbox.health == "/api/ui/initial-data"
    assert {path: route.backend for path, route in settings.routes.items()} == {
        "/v1/embeddings": "llama-embed",
        "/v1/chat/completions": "llama-router",
        "/v1/completions": "llama-router",
        "/models/*": "llama-router",
        "/voices/*": "chatterbox-tts",
        "/tts/*": "chatterbox-tts",
        "/stt/*": "whisper-stt",
        "/speakers/*": "pyannote-speaker",
        "/audio/*": "deepfilter-audio",
    }


BACKEND = "backends: {a: {url: http://a}}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "backend: {}",
            ":1: backend: unknown field; did you mean 'backends'?",
            id="unknown-section",
        ),
        pytest.param(
            "backends:\n  a:\n    url: http://a\n    helth: /x",
            ":4: backends.a.helth: unknown field; did you mean 'health'?",
            id="unknown-field",
        ),
        pytest.param(
            "limits: {queue: {zzz: 1}}",
            ":1: limits.queue.zzz: unknown field; there are: deadline, size",
            id="unknown-field-like-no-other",
        ),
        pytest.param(
            "backends:\n  a: {type: vllm}", ":2: backends.a.url: is required", id="missing"
        ),
        pytest.param(
            "backends: []", ":1: backends: must be a mapping (got a list of 0)", id="list"
        ),
        pytest.param("backends: {a: x}", ":1: backends.a: must be a mapping (got 'x')", id="text"),
        pytest.param(
            "backends: {a: {url: ftp://a}}",
            ":1: backends.a.url: must be an http or https URL in ASCII without credentials or "
            "query, such as http://vllm:8000 (got 'ftp://a')",
            id="url",
        ),
        pytest.param(
            "backends: {a: {url: 'http://u:secret@a'}}",
            ":1: backends.a.url: must be an http or https URL in ASCII without credentials or "
            "query, such as http://vllm:8000 (got 'http://***@a')",
            id="url-with-credentials",
        ),
        pytest.param(
            "backends: {a: {url: 5}}",
            ":1: backends.a.url: must be text, in quotes (got 5)",
            id="number-for-text",
        ),
        pytest.param(
            "backends: {a: {url: [x]}}",
            ":1: backends.a.url: must be text (got a list of 1)",
            id="list-for-text",
        ),
        pytest.param(
            "backends: {a: {url: }}",
            ":1: backends.a.url: must be text (got nothing)",
            id="nothing-for-text",
        ),
        pytest.param(
            "backends: {a: {url: http://a, health: ''}}",
            ":1: backends.a.health: must be an absolute path in ASCII, such as /health (got '')",
            id="path",
        ),
        pytest.param(
            'backends: {a: {url: http://a, headers: {X: "a\\r\\nb"}}}',
            ":1: backends.a.headers.X: must be one line, without control characters "
            "(got 'a\\r\\nb')",
            id="header-injection",
        ),
        pytest.param(
            'backends: {"": {url: http://a}}',
            ":1: backends[\"\"]: must be not empty (got '')",
            id="empty-name",
        ),
        pytest.param(
            f"backends: {{{'a' * 201}: {{url: http://a}}}}",
            f":1: backends.{'a' * 201}: must be at most 200 characters long (got '{'a' * 57}...')",
            id="long-name",
        ),
        pytest.param(
            "backends: {a: {url: http://a, type: ollma}}",
            ":1: backends.a.type: must be one of openai-compatible, ollama, vllm, llamacpp, "
            "sglang, tensorrt-llm, litellm, speaches, faster-whisper, piper, openvoice, "
            "chatterbox, pyannote, deepfilter (got 'ollma')",
            id="enum",
        ),
        pytest.param(
            "backends: {a: {url: http://a, device: {}}}",
            ":1: backends.a.device: must be one of gpu, cpu (got a mapping)",
            id="mapping-for-enum",
        ),
        pytest.param(
            "backends: {a: {url: http://a, slots: 0}}",
            ":1: backends.a.slots: must be at least 1 (got 0)",
            id="too-small",
        ),
        pytest.param(
            "backends: {a: {url: http://a, slots: true}}",
            ":1: backends.a.slots: must be a whole number (got true)",
            id="bool-for-int",
        ),
        pytest.param(
            "backends: {a: {url: http://a, slots: 1.5}}",
            ":1: backends.a.slots: must be a whole number (got 1.5)",
            id="float-for-int",
        ),
        pytest.param(
            "backends: {a: {url: http://a, timeouts: {overall: 0}}}",
            ":1: backends.a.timeouts.overall: must be more than 0 (got 0)",
            id="zero-seconds",
        ),
        pytest.param(
            "backends: {a: {url: http://a, timeouts: {overall: 90000}}}",
            ":1: backends.a.timeouts.overall: must be at most 86400 (got 90000)",
            id="too-large",
        ),
        pytest.param(
            "backends: {a: {url: http://a, timeouts: {overall: .nan}}}",
            ":1: backends.a.timeouts.overall: must be a number (got .nan)",
            id="not-a-number",
        ),
        pytest.param(
            "backends: {a: {url: http://a, timeouts: {overall: []}}}",
            ":1: backends.a.timeouts.overall: must be a number (got a list of 0)",
            id="list-for-number",
        ),
        pytest.param(
            "backends: {a: {url: http://a, tls: {verify: maybe}}}",
            ":1: backends.a.tls.verify: must be true or false (got 'maybe')",
            id="bool",
        ),
        pytest.param(
            "backends: {a: {url: http://a, tls: {verify: {}}}}",
            ":1: backends.a.tls.verify: must be true or false (got a mapping)",
            id="mapping-for-bool",
        ),
        pytest.param(
            BACKEND + "models: {m: {targets: []}}",
            ":2: models.m.targets: must be a list of at least 1 (got a list of 0)",
            id="no-targets",
        ),
        pytest.param(
            BACKEND + "models: {m: {targets: {backend: a}}}",
            ":2: models.m.targets: must be a list (got a mapping)",
            id="mapping-for-list",
        ),
        pytest.param(
            BACKEND + "models:\n  m:\n    targets:\n      - backend: a\n      - backend: a\n"
            "        order: 0",
            ":7: models.m.targets[1].order: must be at least 1 (got 0)",
            id="inside-a-list",
        ),
        pytest.param(
            BACKEND + "models: {m: {targets: [{backend: zz}]}}",
            ":2: models.m.targets[0].backend: unknown backend 'zz'; there are: a",
            id="unknown-backend",
        ),
        pytest.param(
            "backends: {vllm: {url: http://a}, ollama: {url: http://b}}\n"
            "models: {m: {targets: [{backend: vlm}]}}",
            ":2: models.m.targets[0].backend: unknown backend 'vlm'; did you mean 'vllm'? "
            "(there are: ollama, vllm)",
            id="unknown-backend-like-another",
        ),
        pytest.param(
            "models: {m: {targets: [{backend: ab}]}}",
            ":1: models.m.targets[0].backend: unknown backend 'ab'; there are none",
            id="unknown-backend-without-any",
        ),
        pytest.param(
            BACKEND + "routes:\n  tts/*: b",
            ":3: routes[\"/tts/*\"].backend: unknown backend 'b'; there are: a",
            id="unknown-backend-of-a-route",
        ),
        pytest.param(
            BACKEND + "routes:\n  tts/*: {model: m}",
            ":3: routes[\"/tts/*\"].model: unknown model 'm'; there are none",
            id="unknown-model-of-a-route",
        ),
        pytest.param(
            BACKEND + "models: {m: {targets: [{backend: a}]}}\n"
            "routes: {tts/*: {backend: a, model: m}}",
            ':3: routes["/tts/*"].model: must not be given beside backend',
            id="route-to-two-things",
        ),
        pytest.param(
            BACKEND + "routes:\n  tts/*: {}",
            ':3: routes["/tts/*"]: must have one of backend, model (got none)',
            id="route-to-neither",
        ),
        pytest.param(
            BACKEND + "routes:\n  tts/*: ~",
            ':3: routes["/tts/*"]: must be a mapping (got nothing)',
            id="route-to-nothing",
        ),
        pytest.param(
            BACKEND + "routes:\n  tts/*: a\n  /tts/*: a",
            ':4: routes["/tts/*"]: is the same route as line 3',
            id="same-route",
        ),
        pytest.param(
            BACKEND + "routes:\n  /v1*: a",
            ':3: routes["/v1*"]: must be a path, or a prefix that ends in /*, such as tts/*',
            id="star-within-a-name",
        ),
        pytest.param(
            BACKEND + "routes: [a]", ":2: routes: must be a mapping (got a list of 1)", id="routes"
        ),
        pytest.param(
            BACKEND + "models: {m: {fallbacks: [n], targets: [{backend: a}]}}",
            ":2: models.m.fallbacks[0]: unknown model 'n'; there are: m",
            id="unknown-fallback",
        ),
        pytest.param(
            "keys: {k: {sha256: my-own-secret}}",
            ":1: keys.k.sha256: must be 64 digits of lower-case hex, as sha256sum prints them",
            id="secret-is-not-repeated",
        ),
    ],
)
def test_a_fault_is_told_by_file_line_field_and_remedy(
    refusals: Refusals, text: str, reason: str
) -> None:
    assert refusals(text) == [f"backends.yaml{reason}"]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(refusals: Refusals) -> None:
    text = """\
        backends:
          a: {url: nowhere, slots: 0}
        models:
          m:
            targets:
              - {backend: b}
              - {backend: a, order: 0}
          n:
            targets: [{backend: a}]
            aliases: [x, x]
        routes: {/x: c}
        """
    faults = [line.split(":")[1:3] for line in refusals(text)]
    assert faults == [
        ["2", " backends.a.url"],
        ["2", " backends.a.slots"],
        ["6", " models.m.targets[0].backend"],
        ["7", " models.m.targets[1].order"],
        ["10", " models.n.aliases[1]"],
        ["11", ' routes["/x"].backend'],
    ]


def test_nothing_is_as_good_as_leaving_an_optional_field_out(read: Reader) -> None:
    text = "backends: {a: {url: http://a, health: ~, slots: null, device: }}"
    assert read(text).hash == read(BACKEND).hash


def test_an_empty_section_counts_as_left_out(read: Reader) -> None:
    assert read(BACKEND + "models:\nroutes:\nlimits:\n").hash == read(BACKEND).hash
