from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import Dialect, load
from synapse_gateway.config.settings import Backend, BackendType, Key, Service, Target, Timeouts

if TYPE_CHECKING:
    from tests.config.conftest import Reader, Refusals

EXAMPLES = Path(__file__).parent / "examples"


def entry(name: str, params: str, more: str = "") -> str:
    return f"  - {{model_name: {name!r}, litellm_params: {{{params}}}{more}}}\n"


def test_the_example_loads_unchanged() -> None:
    loaded = load(EXAMPLES / "litellm-config.yaml", {"LITELLM_MASTER_KEY": "sk-1"})
    settings = loaded.settings
    assert loaded.dialect is Dialect.LITELLM
    assert loaded.warnings == ()
    assert settings.backends == {
        "ollama": Backend(
            url="http://ollama.llm-infra.svc.cluster.local:11434", type=BackendType.OLLAMA
        ),
        "vllm-inference": Backend(url="http://vllm-inference.llm-infra.svc.cluster.local:8001/v1"),
    }
    assert settings.models["mxbai-embed-large"].targets == (
        Target(backend="ollama", model="mxbai-embed-large"),
    )
    assert settings.models["llama3.1-8b"].targets == (
        Target(backend="vllm-inference", model="meta-llama/Meta-Llama-3.1-8B-Instruct"),
        Target(backend="ollama", model="llama3.1:8b", order=2),
    )
    assert settings.models["llama3.1-8b"].timeouts == Timeouts(overall=300.0)
    assert settings.limits.attempts == 3
    assert settings.keys == {"litellm-master": Key(env="LITELLM_MASTER_KEY")}


def test_the_master_key_s_missing_variable_is_told_by_line() -> None:
    (warning,) = load(EXAMPLES / "litellm-config.yaml", {}).warnings
    assert warning.place.line == 22
    assert "LITELLM_MASTER_KEY is not set" in warning.message


@pytest.mark.parametrize(
    ("model", "kind", "there"),
    [
        ("ollama/llama3", BackendType.OLLAMA, "llama3"),
        ("ollama_chat/llama3:8b", BackendType.OLLAMA, "llama3:8b"),
        ("openai/org/model", BackendType.OPENAI_COMPATIBLE, "org/model"),
        ("text-completion-openai/m", BackendType.OPENAI_COMPATIBLE, "m"),
        ("hosted_vllm/org/model", BackendType.VLLM, "org/model"),
        ("vllm/m", BackendType.VLLM, "m"),
        ("litellm_proxy/m", BackendType.LITELLM, "m"),
        ("lm_studio/m", BackendType.OPENAI_COMPATIBLE, "m"),
        ("bare-name", BackendType.OPENAI_COMPATIBLE, "bare-name"),
    ],
)
def test_the_provider_decides_the_kind_of_backend(
    read: Reader, model: str, kind: BackendType, there: str
) -> None:
    settings = read(f"model_list:\n{entry('m', f'model: {model}, api_base: http://a:1')}").settings
    assert settings.backends == {"a": Backend(url="http://a:1", type=kind)}
    assert settings.models["m"].targets[0].model == there


@pytest.mark.parametrize("model", ["org/model", "vllm/org/model"])
def test_a_named_provider_wins_over_the_model_s_first_part(read: Reader, model: str) -> None:
    params = f"model: {model}, custom_llm_provider: vllm, api_base: http://a"
    settings = read(f"model_list:\n{entry('m', params)}").settings
    assert settings.backends["a"].type is BackendType.VLLM
    assert settings.models["m"].targets[0].model == "org/model"


@pytest.mark.parametrize(
    ("model", "backend"),
    [
        ("ollama/m", Backend(url="http://localhost:11434", type=BackendType.OLLAMA)),
        ("openai/m", Backend(url="https://api.openai.com", api_key_env="OPENAI_API_KEY")),
    ],
)
def test_a_provider_with_an_address_of_its_own_needs_none(
    read: Reader, model: str, backend: Backend
) -> None:
    settings = read(f"model_list:\n{entry('m', f'model: {model}')}").settings
    assert list(settings.backends.values()) == [backend]


def test_a_value_from_the_environment_is_looked_up(read: Reader) -> None:
    params = "model: os.environ/MODEL, api_base: os.environ/BASE, api_key: os.environ/KEY"
    environ = {"MODEL": "vllm/m", "BASE": "http://a/v1/", "KEY": "sk-1"}
    settings = read(f"model_list:\n{entry('m', params)}", environ).settings
    assert settings.backends == {
        "a": Backend(url="http://a/v1", type=BackendType.VLLM, api_key_env="KEY")
    }


def test_a_key_in_clear_goes_into_the_header_that_carries_it(read: Reader) -> None:
    params = "model: vllm/m, api_base: http://a, api_key: sk-1"
    settings = read(f"model_list:\n{entry('m', params)}").settings
    assert settings.backends["a"].headers == {"Authorization": "Bearer sk-1"}


def test_a_master_key_in_clear_is_kept_as_its_digest(read: Reader) -> None:
    settings = read("general_settings: {master_key: sk-1234}").settings
    assert settings.keys == {"litellm-master": Key(sha256=sha256(b"sk-1234").hexdigest())}


def test_backends_are_named_after_their_hosts(read: Reader) -> None:
    bases = [
        "http://vllm.a.svc:8000",
        "http://vllm.b.svc:8000",
        "http://vllm.c.svc:8000",
        "http://vllm.a.svc:8000",
        "https://vllm.d",
        "http://10.0.0.1:8000/v1",
        "http://[fd00::1]:8000",
    ]
    entries = "".join(entry("m", f"model: vllm/m, api_base: '{base}'") for base in bases)
    settings = read(f"model_list:\n{entries}").settings
    assert {name: backend.url for name, backend in settings.backends.items()} == {
        "vllm": "http://vllm.a.svc:8000",
        "vllm-8000": "http://vllm.b.svc:8000",
        "vllm-2": "http://vllm.c.svc:8000",
        "vllm-https": "https://vllm.d",
        "10-0-0-1": "http://10.0.0.1:8000/v1",
        "fd00-1": "http://[fd00::1]:8000",
    }


@pytest.mark.parametrize(
    ("extras", "orders"),
    [
        ([", order: 2", ", order: 1"], [2, 1]),
        ([", order: 10", ", order: 0", ", order: 10"], [2, 1, 2]),
        (["", ", order: 1"], [2, 1]),
        (["", ""], [1, 1]),
    ],
)
def test_orders_are_numbered_from_one_and_entries_without_come_last(
    read: Reader, extras: list[str], orders: list[int]
) -> None:
    entries = "".join(entry("m", f"model: vllm/m, api_base: http://a{extra}") for extra in extras)
    targets = read(f"model_list:\n{entries}").settings.models["m"].targets
    assert [target.order for target in targets] == orders


@pytest.mark.parametrize(
    ("extras", "weights"),
    [
        ([", weight: 3", ", weight: 1"], [1.0, 1 / 3]),
        ([", rpm: 100, tpm: 1", ", rpm: 50, tpm: 1"], [1.0, 0.5]),
        ([", tpm: 100", ", tpm: 400"], [0.25, 1.0]),
        ([", weight: 1", ""], [1.0, 0.001]),
        (["", ""], [1.0, 1.0]),
    ],
)
def test_shares_come_from_weight_or_else_the_rates(
    read: Reader, extras: list[str], weights: list[float]
) -> None:
    entries = "".join(entry("m", f"model: vllm/m, api_base: http://a{extra}") for extra in extras)
    targets = read(f"model_list:\n{entries}").settings.models["m"].targets
    assert [target.weight for target in targets] == pytest.approx(weights)


THREE = "model_list:\n" + "".join(
    entry(name, "model: ollama/x, api_base: http://a") for name in ("a", "b", "c")
)


@pytest.mark.parametrize(
    ("text", "fallbacks"),
    [
        (
            "litellm_settings: {fallbacks: [{a: [b, c]}, {b: [c]}]}",
            {"a": ("b", "c"), "b": ("c",), "c": ()},
        ),
        ("router_settings: {fallbacks: [{a: [b]}]}", {"a": ("b",), "b": (), "c": ()}),
        (
            "litellm_settings: {fallbacks: [{a: [c]}], default_fallbacks: [b]}",
            {"a": ("c",), "b": (), "c": ("b",)},
        ),
        ("litellm_settings: {fallbacks: [{'*': [a]}]}", {"a": (), "b": ("a",), "c": ("a",)}),
    ],
)
def test_fallbacks_are_those_of_both_sections_and_the_defaults(
    read: Reader, text: str, fallbacks: dict[str, tuple[str, ...]]
) -> None:
    models = read(THREE + text).settings.models
    assert {name: model.fallbacks for name, model in models.items()} == fallbacks


def test_a_context_window_fallback_is_the_first_one_named(read: Reader) -> None:
    loaded = read(THREE + "litellm_settings: {context_window_fallbacks: [{a: [b, c]}]}")
    assert loaded.settings.models["a"].context_fallback == "b"
    assert loaded.settings.models["b"].context_fallback is None
    (warning,) = loaded.warnings
    assert warning.message == "only the first one is used"


def test_model_group_aliases_are_aliases(read: Reader) -> None:
    aliases = "{gpt-4: a, gpt-4o: {model: a, hidden: true}}"
    models = read(THREE + f"router_settings: {{model_group_alias: {aliases}}}").settings.models
    assert models["a"].aliases == ("gpt-4", "gpt-4o")


@pytest.mark.parametrize(
    ("mode", "service"),
    [
        ("embedding", Service.EMBEDDINGS),
        ("chat", Service.LLM),
        ("audio_transcription", Service.STT),
        ("audio_speech", Service.TTS),
        ("image_generation", None),
    ],
)
def test_the_mode_decides_the_service(read: Reader, mode: str, service: Service | None) -> None:
    more = f", model_info: {{mode: {mode}, base_model: x, tags: [a]}}"
    text = "model_list:\n" + entry("m", "model: ollama/x, api_base: http://a", more)
    loaded = read(text)
    assert loaded.settings.models["m"].service is service
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("text", "attempts"),
    [
        ("litellm_settings: {num_retries: 0}", 1),
        ("router_settings: {num_retries: 4}", 5),
        ("litellm_settings: {num_retries: 100}", 10),
        ("litellm_settings: {}", 3),
    ],
)
def test_retries_become_attempts(read: Reader, text: str, attempts: int) -> None:
    assert read(THREE + text).settings.limits.attempts == attempts


def test_router_timeout_and_cooldown_are_taken_over(read: Reader) -> None:
    settings = read(THREE + "router_settings: {timeout: 30, cooldown_time: 60}").settings
    assert settings.models["a"].timeouts == Timeouts(overall=30.0)
    assert settings.limits.breaker.cool_down == 60.0


def test_what_is_not_used_is_named_in_a_warning(read: Reader) -> None:
    text = "model_list:\n" + entry("m", "model: ollama/x, api_base: http://a, temperature: 1")
    text += """\
litellm_settings: {drop_params: true}
router_settings:
  routing_strategy: latency-based-routing
  redis_host: localhost
general_settings: {database_url: x}
environment_variables: {A: b}
"""
    assert [str(warning).split(".yaml:")[1] for warning in read(text).warnings] == [
        "2: model_list[0].litellm_params.temperature: is not used",
        "3: litellm_settings.drop_params: is not used",
        (
            "5: router_settings.routing_strategy: 'latency-based-routing' is not used: the target "
            "with the least outstanding work is chosen"
        ),
        "6: router_settings.redis_host: is not used",
        "7: general_settings.database_url: is not used",
        "8: environment_variables: is not used",
    ]


def test_a_wildcard_leaves_the_backend_to_list_its_models(read: Reader) -> None:
    text = "model_list:\n" + entry("*", "model: openai/*, api_base: http://a")
    text += entry("m", "model: ollama/x, api_base: http://b")
    text += "litellm_settings: {fallbacks: [{m: ['*']}]}"
    loaded = read(text)
    assert list(loaded.settings.backends) == ["a", "b"]
    assert list(loaded.settings.models) == ["m"]
    assert loaded.settings.models["m"].fallbacks == ()
    assert loaded.warnings[0].message.startswith("a wildcard is not used")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "model_list:\n" + entry("m", "model: bedrok/x"),
            (
                "2: model_list[0].litellm_params.model: unknown provider 'bedrok'; there are: "
                "custom_openai, hosted_vllm, infinity, litellm_proxy, llamafile, lm_studio, "
                "ollama, ollama_chat, openai, openai_like, text-completion-openai, vllm, xinference"
            ),
        ),
        (
            "model_list:\n" + entry("m", "model: olama/x"),
            (
                "2: model_list[0].litellm_params.model: unknown provider 'olama'; "
                "did you mean 'ollama'?"
            ),
        ),
        (
            "model_list:\n" + entry("m", "model: vllm/x"),
            "2: model_list[0].litellm_params.api_base: is required, such as http://vllm:8000/v1",
        ),
        (
            "model_list:\n" + entry("m", "model: vllm/x, api_base: vllm:8000"),
            (
                "2: model_list[0].litellm_params.api_base: must be a URL without credentials, "
                "such as http://vllm:8000"
            ),
        ),
        (
            "model_list:\n" + entry("m", "model: vllm/x, api_base: os.environ/NOT_THERE"),
            (
                "2: model_list[0].litellm_params.api_base: the environment variable NOT_THERE "
                "is not set"
            ),
        ),
        (
            "model_list:\n" + entry("m", "model: os.environ/NOT_THERE"),
            "2: model_list[0].litellm_params.model: the environment variable NOT_THERE is not set",
        ),
        (
            THREE + "litellm_settings:\n  fallbacks:\n    - a: [z]",
            "7: litellm_settings.fallbacks[0].a[0]: unknown model 'z'; there are: a, b, c",
        ),
        (
            THREE + "litellm_settings:\n  fallbacks:\n    - z: [a]",
            "7: litellm_settings.fallbacks[0].z: unknown model 'z'; there are: a, b, c",
        ),
        (
            THREE + "router_settings: {default_fallbacks: [z]}",
            "5: router_settings.default_fallbacks[0]: unknown model 'z'; there are: a, b, c",
        ),
        (
            THREE + "router_settings: {model_group_alias: {x: z}}",
            "5: router_settings.model_group_alias.x: unknown model 'z'; there are: a, b, c",
        ),
        (
            THREE + "litellm_settings: {num_retries: -1}",
            "5: litellm_settings.num_retries: must be at least 0 (got -1)",
        ),
        (
            THREE + "general_settings: {master_key: [sk-1]}",
            "5: general_settings.master_key: must be text",
        ),
        (
            "model_list:\n  - {litellm_params: {model: vllm/m}}",
            "2: model_list[0].model_name: is required",
        ),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_file(
    refusals: Refusals, text: str, reason: str
) -> None:
    assert refusals(text)[0] == f"backends.yaml:{reason}"
