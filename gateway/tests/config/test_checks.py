from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.config.conftest import Reader, Refusals

BACKENDS = """\
backends:
  gpu: {url: http://gpu, type: vllm}
  gpu2: {url: http://gpu2, device: gpu}
  cpu: {url: http://cpu, type: ollama, device: cpu}
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "models:\n  m: {targets: [{backend: cpu}]}\n  n:\n    aliases: [x, m]\n"
            "    targets: [{backend: cpu}]",
            ":8: models.n.aliases[1]: must be another name: 'm' is a model in line 6",
            id="alias-is-a-model",
        ),
        pytest.param(
            "models:\n  m: {aliases: [x], targets: [{backend: cpu}]}\n"
            "  n: {aliases: [x], targets: [{backend: cpu}]}",
            ":7: models.n.aliases[0]: must be another name: 'x' is a model in line 6",
            id="alias-of-two-models",
        ),
        pytest.param(
            "models:\n  auto: {targets: [{backend: cpu}]}",
            ":6: models.auto: must be another name: 'auto' means automatic choice",
            id="reserved-model",
        ),
        pytest.param(
            "models:\n  m: {aliases: ['synapse:auto'], targets: [{backend: cpu}]}",
            ":6: models.m.aliases[0]: must be another name: 'synapse:auto' means automatic choice",
            id="reserved-alias",
        ),
        pytest.param(
            "models:\n  m: {fallbacks: [m], targets: [{backend: cpu}]}",
            ":6: models.m.fallbacks[0]: must be another model than the one that falls back",
            id="own-fallback",
        ),
        pytest.param(
            "models:\n  m: {context_fallback: m, targets: [{backend: cpu}]}",
            ":6: models.m.context_fallback: must be another model, with a larger context",
            id="own-context-fallback",
        ),
        pytest.param(
            "auto: {rules: [{name: r, model: m, min_chars: 5, max_chars: 4}]}",
            ":5: auto.rules[0].max_chars: must be at least min_chars (5)",
            id="empty-range",
        ),
        pytest.param(
            "keys: {k: {}}",
            ":5: keys.k: must have one of sha256, env, file (got none)",
            id="no-key",
        ),
        pytest.param(
            "keys: {k: {env: A, file: b}}",
            ":5: keys.k: must have one of sha256, env, file (got env and file)",
            id="two-keys",
        ),
        pytest.param(
            "keys: {anonymous: {env: A}}",
            ":5: keys.anonymous: must have another name: 'anonymous' means callers without a key",
            id="reserved-key",
        ),
        pytest.param(
            f"keys:\n  a: {{sha256: {'0' * 64}}}\n  b: {{sha256: {'0' * 64}}}",
            ":7: keys.b: must be another key than the one in line 6 of backends.yaml",
            id="same-key",
        ),
        pytest.param(
            "groups: {team: {}}\nkeys: {k: {env: A, group: taem}}",
            ":6: keys.k.group: unknown group 'taem'; did you mean 'team'?",
            id="unknown-group",
        ),
        pytest.param(
            "  x: {url: http://x, api_key_env: A, api_key_file: b}",
            ":5: backends.x.api_key_file: must not be given beside api_key_env",
            id="two-backend-keys",
        ),
        pytest.param(
            "  x: {url: http://x, headers: {Host: y}}",
            ":5: backends.x.headers.Host: must not be given: the gateway sets it",
            id="own-header",
        ),
        pytest.param(
            "  x: {url: http://x, headers: {bad name: y}}",
            ':5: backends.x.headers["bad name"]: must be the name of a header: letters, digits and '
            "hyphens",
            id="header-name",
        ),
        pytest.param(
            "  x: {url: http://x, headers: {x: ключ}}",
            ":5: backends.x.headers.x: must be ASCII, as all that stands in a header",
            id="header-value",
        ),
        pytest.param(
            "  x: {url: 'http://x:99999'}",
            ":5: backends.x.url: must have a port from 1 to 65535, or none (got 'http://x:99999')",
            id="port",
        ),
        pytest.param(
            "  x: {url: 'http://x:0'}",
            ":5: backends.x.url: must have a port from 1 to 65535, or none (got 'http://x:0')",
            id="port-0",
        ),
        pytest.param(
            "  x: {url: 'http://[::1::]'}",
            ":5: backends.x.url: must have the name or the address of a host "
            "(got 'http://[::1::]')",
            id="address",
        ),
        pytest.param(
            "  x: {url: http://a..b}",
            ":5: backends.x.url: must have the name or the address of a host (got 'http://a..b')",
            id="host",
        ),
        pytest.param(
            "  x: {url: https://x, tls: {server_name: a..b}}",
            ":5: backends.x.tls.server_name: must be a host name or address (got 'a..b')",
            id="server-name",
        ),
        pytest.param(
            "downloads: 'http://a:70000'",
            ":5: downloads: must have a port from 1 to 65535, or none (got 'http://a:70000')",
            id="downloads",
        ),
    ],
)
def test_an_impossible_combination_is_refused(refusals: Refusals, text: str, reason: str) -> None:
    assert refusals(BACKENDS + text) == [f"backends.yaml{reason}"]


@pytest.mark.parametrize(
    "url", ["http://x:abc", "http://[::1", "http://x/模型", "http://модель", "http://x/a?b=c"]
)
def test_an_url_that_is_none_is_refused(refusals: Refusals, url: str) -> None:
    (reason,) = refusals(f"backends: {{x: {{url: '{url}'}}}}")
    assert reason == (
        "backends.yaml:1: backends.x.url: must be an http or https URL in ASCII without "
        f"credentials or query, such as http://vllm:8000 (got '{url}')"
    )


@pytest.mark.parametrize(
    "url", ["http://x", "https://a_b.c-d.:65535/v1", "http://[::1]:80", "http://10.0.0.1:1/a%20b"]
)
def test_an_url_that_is_one_is_taken(read: Reader, url: str) -> None:
    assert read(f"backends: {{x: {{url: '{url}'}}}}").settings.backends["x"].url == url


def test_a_file_without_certificates_is_refused_and_a_missing_one_is_a_warning(
    read: Reader, refusals: Refusals, tmp_path: Path
) -> None:
    text = "backends: {x: {url: https://x, tls: {ca_file: ca.pem}}}"
    (warning,) = read(text).warnings
    assert warning.message == f"there is no file {tmp_path}/ca.pem"
    (tmp_path / "ca.pem").write_text("garbage", encoding="utf-8")
    (reason,) = refusals(text)
    assert reason == (
        "backends.yaml:1: backends.x.tls.ca_file: must hold certificates in PEM form, which "
        "ca.pem does not"
    )


def test_a_refused_key_is_not_said_to_be_missing_as_well(refusals: Refusals) -> None:
    assert len(refusals("keys: {k: {sha256: x}}")) == 1


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        pytest.param(
            "models: {m: {targets: [{backend: gpu}, {backend: gpu2, order: 2}]}}",
            ":5: models.m: model 'm' runs on a GPU only: give it a target on a CPU with a higher "
            "`order`, or a model of `fallbacks` that has one",
            id="gpu-only",
        ),
        pytest.param(
            "models: {m: {targets: [{backend: cpu}]}}",
            ":5: models.m: model 'm' has nothing to fall back to: give it a second target, or "
            "`fallbacks`",
            id="alone",
        ),
        pytest.param(
            "models:\n  m: {service: embeddings, targets: [{backend: gpu}, {backend: cpu}]}",
            ":6: models.m.targets: model 'm' does not fail over: embeddings do so only between "
            "targets that declare the same `weights`",
            id="embeddings",
        ),
        pytest.param(
            "models:\n  nomic-embed-text:\n    targets:\n"
            "      - {backend: gpu, weights: a}\n      - {backend: cpu, weights: b}",
            ":7: models.nomic-embed-text.targets: model 'nomic-embed-text' does not fail over: "
            "embeddings do so only between targets that declare the same `weights`",
            id="embeddings-by-name",
        ),
        pytest.param(
            "auto: {default: m}",
            ":5: auto.default: no model 'm' in this file, so a backend must list it; "
            "there are none",
            id="auto-default",
        ),
        pytest.param(
            "auto:\n  rules:\n    - {name: r, model: m, tools: true}",
            ":7: auto.rules[0].model: no model 'm' in this file, so a backend must list it; "
            "there are none",
            id="auto-rule",
        ),
        pytest.param(
            "keys: {k: {env: NOT_THERE}}",
            ":5: keys.k.env: the environment variable NOT_THERE is not set",
            id="key-variable",
        ),
        pytest.param(
            "  x: {url: http://x, api_key_env: NOT_THERE}",
            ":5: backends.x.api_key_env: the environment variable NOT_THERE is not set",
            id="backend-key-variable",
        ),
        pytest.param(
            "  x: {url: http://x, tls: {verify: false}}",
            ":5: backends.x.tls: is not used: the backend's url is not https",
            id="tls-without-https",
        ),
    ],
)
def test_what_is_doubtful_is_a_warning(
    read: Reader, tmp_path: Path, text: str, warning: str
) -> None:
    warnings = read(BACKENDS + text).warnings
    assert [str(each) for each in warnings] == [f"{tmp_path}/backends.yaml{warning}"]


def test_a_missing_key_file_is_a_warning_that_names_it(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "there").write_text("sk-1", encoding="utf-8")
    (warning,) = read("keys:\n  a: {file: there}\n  b: {file: keys/b}").warnings
    assert warning.message == f"there is no file {tmp_path}/keys/b"
    assert warning.place.line == 3


def test_a_rule_without_conditions_hides_the_rules_after_it(read: Reader) -> None:
    rules = "[{name: a, model: m}, {name: b, model: m, tools: true}]"
    models = "models: {m: {targets: [{backend: gpu}, {backend: cpu}]}}\n"
    (warning,) = read(f"{BACKENDS}{models}auto: {{rules: {rules}}}").warnings
    assert warning.message == "has no condition, so that no later rule is ever reached"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "models: {m: {targets: [{backend: gpu}, {backend: cpu, order: 2}]}}", id="cpu-order"
        ),
        pytest.param(
            "models:\n  m: {fallbacks: [n], targets: [{backend: gpu}]}\n"
            "  n: {targets: [{backend: cpu}, {backend: gpu}]}",
            id="cpu-fallback",
        ),
        pytest.param("models: {my-embedder: {targets: [{backend: cpu}]}}", id="embeddings-alone"),
        pytest.param(
            "models:\n  m:\n    service: embeddings\n    targets:\n"
            "      - {backend: gpu, weights: a}\n      - {backend: cpu, weights: a}",
            id="same-weights",
        ),
        pytest.param(
            "models: {m: {aliases: [n], targets: [{backend: gpu}, {backend: cpu}]}}\n"
            "auto: {default: n, rules: [{name: r, model: m, min_chars: 4, max_chars: 4}]}",
            id="auto",
        ),
        pytest.param(f"keys: {{unlimited: {{sha256: {'0' * 64}}}}}", id="unlimited-key"),
    ],
)
def test_what_is_as_it_should_be_gives_no_warning(read: Reader, text: str) -> None:
    assert read(BACKENDS + text).warnings == ()


def test_a_single_backend_is_not_told_that_it_is_alone(read: Reader) -> None:
    text = "backends: {a: {url: http://a}}\nmodels: {m: {targets: [{backend: a}]}}"
    assert read(text).warnings == ()
