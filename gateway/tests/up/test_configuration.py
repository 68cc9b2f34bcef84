from __future__ import annotations

import os
from typing import TYPE_CHECKING

from synapse_gateway.config.load import load
from synapse_gateway.config.settings import AuthMode
from synapse_gateway.up.configuration import as_yaml, configuration
from synapse_gateway.up.foreign import API_KEY_VARIABLE, Foreign
from synapse_gateway.up.plan import EMBEDDED

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.config.load import Loaded

PORTS = {server.name: 18081 + number for number, server in enumerate(EMBEDDED)}
OLLAMA = Foreign(
    url="http://127.0.0.1:11434", kind="ollama", models=("nomic-embed-text:latest", "qwen3:8b")
)


def loaded(tmp_path: Path, tree: dict[str, object]) -> Loaded:
    path = tmp_path / "gateway.yaml"
    path.write_text(as_yaml(tree))
    return load(path, os.environ | {API_KEY_VARIABLE: "k"})


def test_the_gateway_takes_the_embedded_configuration(tmp_path: Path) -> None:
    result = loaded(tmp_path, configuration(EMBEDDED, PORTS, [], with_key=False))
    # Speech and transcription are there once each, which the gateway is right to mention.
    assert [finding.message.split("'")[1] for finding in result.warnings] == ["piper", "whisper"]
    assert result.settings.auth is AuthMode.ANONYMOUS
    assert result.settings.auto.default == "smollm2"


def test_chat_has_a_second_server_that_serves_once_the_first_is_gone(tmp_path: Path) -> None:
    settings = loaded(tmp_path, configuration(EMBEDDED, PORTS, [], with_key=False)).settings
    targets = settings.models["smollm2"].targets
    assert [(target.backend, target.order) for target in targets] == [("chat-a", 1), ("chat-b", 2)]
    assert settings.backends["chat-a"].url != settings.backends["chat-b"].url


def test_names_that_applications_already_send_are_aliases(tmp_path: Path) -> None:
    settings = loaded(tmp_path, configuration(EMBEDDED, PORTS, [], with_key=False)).settings
    aliases = {alias for model in settings.models.values() for alias in model.aliases}
    wanted = {"llama3.1", "llama3.1-8b", "snowflake-arctic-embed2:latest", "tts-1", "whisper-1"}
    assert wanted <= aliases


def test_a_users_server_stands_alone_and_its_first_chat_model_is_the_automatic_one(
    tmp_path: Path,
) -> None:
    settings = loaded(tmp_path, configuration([], {}, [OLLAMA], with_key=False)).settings
    assert set(settings.backends) == {"mine"}
    assert settings.backends["mine"].url == OLLAMA.url
    assert settings.auto.default == "qwen3:8b"


def test_a_users_server_besides_the_embedded_ones_answers_first(tmp_path: Path) -> None:
    settings = loaded(tmp_path, configuration(EMBEDDED, PORTS, [OLLAMA], with_key=False)).settings
    assert settings.auto.default == "qwen3:8b"
    assert "smollm2" in settings.models


def test_of_two_servers_of_the_user_the_first_one_is_the_automatic_one(tmp_path: Path) -> None:
    other = Foreign(url="http://127.0.0.1:8080", kind="vllm", models=("mistral",))
    settings = loaded(tmp_path, configuration([], {}, [OLLAMA, other], with_key=False)).settings
    assert set(settings.backends) == {"mine", "mine-2"}
    assert settings.auto.default == "qwen3:8b"


def test_a_model_that_two_servers_of_the_user_have_fails_over_between_them(tmp_path: Path) -> None:
    other = Foreign(url="http://127.0.0.1:8080", kind="vllm", models=("qwen3:8b",))
    settings = loaded(tmp_path, configuration([], {}, [OLLAMA, other], with_key=False)).settings
    targets = settings.models["qwen3:8b"].targets
    assert [(target.backend, target.order) for target in targets] == [("mine", 1), ("mine-2", 2)]


def test_a_name_that_the_users_server_has_means_its_model(tmp_path: Path) -> None:
    own = Foreign(url="http://127.0.0.1:11434", kind="ollama", models=("llama3.1:8b", "piper"))
    settings = loaded(tmp_path, configuration(EMBEDDED, PORTS, [own], with_key=False)).settings
    assert settings.models["llama3.1:8b"].targets[0].backend == "mine"
    assert "llama3.1:8b" not in settings.models["smollm2"].aliases
    assert settings.models["piper"].targets[0].backend == "mine"


def test_a_users_key_is_named_and_never_written(tmp_path: Path) -> None:
    tree = configuration([], {}, [OLLAMA], with_key=True)
    assert loaded(tmp_path, tree).settings.backends["mine"].api_key_env == API_KEY_VARIABLE


def test_a_server_without_models_is_served_all_the_same(tmp_path: Path) -> None:
    empty = Foreign(url="http://127.0.0.1:11434", kind="ollama", models=())
    settings = loaded(tmp_path, configuration([], {}, [empty], with_key=False)).settings
    assert settings.auto.default is None
