from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import Dialect, load
from synapse_gateway.config.settings import Key, WorkerGroup

if TYPE_CHECKING:
    from tests.config.conftest import Reader, Refusals

EXAMPLES = Path(__file__).parent / "examples"


def digest(key: str) -> str:
    return sha256(key.encode()).hexdigest()


def test_the_example_loads_unchanged() -> None:
    loaded = load(EXAMPLES / "groups.yaml", {})
    assert loaded.dialect is Dialect.GROUPS
    [warning] = loaded.warnings
    assert "team-a-1, team-b-1, team-b-2: reach no model" in str(warning)
    assert loaded.settings.groups == {
        "team-a": WorkerGroup(ws_auth_keys_sha256=(digest("ws-a-1"), digest("ws-a-2"))),
        "team-b": WorkerGroup(ws_auth_keys_sha256=(digest("ws-b-1"),)),
    }
    assert loaded.settings.keys == {
        "team-a-1": Key(sha256=digest("api-a-1"), group="team-a"),
        "team-b-1": Key(sha256=digest("api-b-1"), group="team-b"),
        "team-b-2": Key(sha256=digest("api-b-2"), group="team-b"),
    }


def test_json_loads_as_well_and_unquoted_numbers_are_keys(read: Reader) -> None:
    groups = [{"name": "a", "ws_auth_keys": [123], "api_keys": [456]}]
    settings = read(json.dumps({"groups": groups})).settings
    assert settings.groups["a"].ws_auth_keys_sha256 == (digest("123"),)
    assert settings.keys["a-1"].sha256 == digest("456")


GROUPS = "groups:\n  - {name: a, ws_auth_keys: [ws-1], api_keys: [api-1]}\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GROUPS + "  - {name: a}",
            "3: groups[1].name: must be another one: 'a' is in line 2",
        ),
        (
            GROUPS + "  - {name: b, ws_auth_keys: [ws-1]}",
            "3: groups[1].ws_auth_keys[0]: must be another one: line 2 has the same key",
        ),
        (
            GROUPS + "  - {name: b, api_keys: [api-1]}",
            "3: groups[1].api_keys[0]: must be another key than the one in line 2 of backends.yaml",
        ),
        (GROUPS + "  - {}", "3: groups[1].name: is required"),
        (GROUPS + "  - {name: b, api_keys: [[api-2]]}", "3: groups[1].api_keys[0]: must be text"),
        (
            GROUPS + "  - {name: b, apikeys: []}",
            "3: groups[1].apikeys: unknown field; did you mean 'api_keys'?",
        ),
    ],
)
def test_a_fault_is_told_without_repeating_a_key(
    refusals: Refusals, text: str, reason: str
) -> None:
    (told,) = refusals(text)
    assert told == f"backends.yaml:{reason}"


@pytest.fixture
def group_file(tmp_path: Path) -> Path:
    path = tmp_path / "groups.yaml"
    path.write_text(GROUPS, encoding="utf-8")
    return path


def test_a_native_file_can_name_a_group_file(read: Reader, group_file: Path) -> None:
    own = "groups: {b: {}}\nkeys: {k: {env: K, group: a}}\n"
    loaded = read(f"{own}groups_file: groups.yaml", {"K": "sk-1"})
    assert len(loaded.warnings) == 1
    assert set(loaded.settings.groups) == {"a", "b"}
    assert loaded.settings.keys["a-1"] == Key(sha256=digest("api-1"), group="a")
    assert loaded.settings.keys["k"].group == "a"
    assert group_file in loaded.files


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "groups: {a: {}}\ngroups_file: groups.yaml",
            "groups.yaml:2: groups[0].name: groups.a is already in line 1 of backends.yaml",
        ),
        (
            "groups_file: groups.yaml\nkeys: {a-1: {env: K}}",
            "groups.yaml:2: groups[0].api_keys[0]: keys.a-1 is already in line 2 of backends.yaml",
        ),
        (
            "\ngroups_file: none.yaml",
            "backends.yaml:2: groups_file: none.yaml: cannot be read: No such file or directory",
        ),
    ],
)
@pytest.mark.usefixtures("group_file")
def test_a_group_file_that_does_not_fit_is_refused(
    refusals: Refusals, text: str, reason: str
) -> None:
    assert refusals(text) == [reason]


def test_a_broken_group_file_is_told_by_its_own_line(refusals: Refusals, group_file: Path) -> None:
    group_file.write_text("groups: [\n", encoding="utf-8")
    (told,) = refusals("groups_file: groups.yaml")
    assert told.startswith("groups.yaml:2: is not YAML: ")
