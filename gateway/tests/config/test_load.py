from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import Dialect, ServeOptions, Settings, load, load_for_serving
from synapse_gateway.config.settings import AuthMode
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from tests.config.conftest import Reader, Refusals


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("backends: {}\nroutes: {}", Dialect.REGISTRY),
        ("backends: {}", Dialect.NATIVE),
        ("groups: {a: {}}", Dialect.NATIVE),
        ("groups: []", Dialect.GROUPS),
        ("groups:", Dialect.GROUPS),
        ("model_list: []", Dialect.LITELLM),
        ("general_settings: {}", Dialect.LITELLM),
    ],
)
def test_the_sections_tell_whose_file_it_is(read: Reader, text: str, dialect: Dialect) -> None:
    assert read(text).dialect is dialect


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("backends: {}", AuthMode.ANONYMOUS),
        ("model_list: []", AuthMode.ANONYMOUS),
        ("auth: keys", AuthMode.KEYS),
    ],
)
def test_the_environment_can_let_everybody_in_where_the_file_does_not_say(
    read: Reader, text: str, mode: AuthMode
) -> None:
    assert read(text, {"SYNAPSE_AUTH": "anonymous"}).settings.auth is mode
    assert read(text).settings.auth is AuthMode.KEYS


def test_a_wrong_mode_in_the_environment_is_refused(refusals: Refusals) -> None:
    assert refusals("backends: {}", {"SYNAPSE_AUTH": "none"}) == [
        "SYNAPSE_AUTH: must be one of keys, anonymous (got 'none')"
    ]


def test_names_of_files_are_relative_to_the_configuration(read: Reader, tmp_path: Path) -> None:
    loaded = read(
        """\
        backends:
          a: {url: https://a, api_key_file: a.key, tls: {ca_file: /etc/ca.pem}}
          b: {url: http://b}
        keys:
          k: {file: keys/k}
        """,
        {"SYNAPSE_API_KEYS_FILE": "/run/keys"},
    )
    assert loaded.settings.keys["k"].file == f"{tmp_path}/keys/k"
    assert loaded.files == (
        tmp_path / "backends.yaml",
        Path("/run/keys"),
        tmp_path / "keys/k",
        tmp_path / "a.key",
        Path("/etc/ca.pem"),
    )


def test_a_missing_file_is_refused_when_it_was_named(tmp_path: Path) -> None:
    options = ServeOptions(config_path=tmp_path / "none.yaml", config_named=True)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_for_serving(options, {})


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, AuthMode.KEYS),
        ({"SYNAPSE_AUTH": "anonymous"}, AuthMode.ANONYMOUS),
        ({"SYNAPSE_API_KEYS": "a=b"}, AuthMode.KEYS),
        ({"SYNAPSE_API_KEYS_FILE": "/run/keys"}, AuthMode.KEYS),
    ],
)
def test_without_any_file_there_is_an_empty_configuration(
    tmp_path: Path, environ: dict[str, str], mode: AuthMode
) -> None:
    options = ServeOptions(config_path=tmp_path / "none.yaml")
    loaded = load_for_serving(options, environ)
    assert loaded.dialect is Dialect.NONE
    assert loaded.settings == Settings(auth=mode)
    assert loaded.files[0] == options.config_path
    assert "there is no such file" in str(loaded.warnings[0])


def test_a_file_at_the_default_place_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "backends.yaml"
    path.write_text("auth: anonymous", encoding="utf-8")
    assert load_for_serving(ServeOptions(config_path=path), {}) == load(path, {})
