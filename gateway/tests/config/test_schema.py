from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
import yaml

from synapse_gateway.config import schema, settings
from synapse_gateway.config.settings import Settings

DOCS = Path(__file__).parents[3] / "docs"
EXAMPLES = Path(__file__).parent / "examples"
BEGIN, END = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"

VALIDATOR = jsonschema_rs.Draft202012Validator(schema.json_schema())


def structs() -> list[type[msgspec.Struct]]:
    found = vars(settings).values()
    return [each for each in found if isinstance(each, type) and issubclass(each, msgspec.Struct)]


def test_every_field_of_every_section_is_documented() -> None:
    documentation = schema.field_docs()
    missing = [
        f"{struct.__name__}.{field.name}"
        for struct in structs()
        for field in msgspec.structs.fields(struct)
        if not documentation[struct.__name__].get(field.name)
    ]
    assert missing == []


def test_the_schema_is_valid_itself() -> None:
    jsonschema_rs.meta.validate(schema.json_schema())


def test_the_committed_schema_is_what_the_code_gives() -> None:
    committed = (DOCS / "config.schema.json").read_text(encoding="utf-8")
    assert committed == schema.render_json_schema(), (
        "run: synapse config schema, and make chart: its values hold parts of it"
    )


def test_the_committed_reference_is_what_the_code_gives() -> None:
    page = (DOCS / "configuration.md").read_text(encoding="utf-8")
    reference = page.split(BEGIN)[1].split(END)[0]
    assert reference.strip() == schema.render_reference().strip(), (
        "run: synapse config schema --reference"
    )


def test_descriptions_speak_of_yaml_and_not_of_python() -> None:
    text = schema.render_json_schema() + schema.render_reference()
    for word in ("None", "True", "False"):
        assert f" {word} " not in text


def test_inherited_fields_are_described_too() -> None:
    key = schema.json_schema()["$defs"]["Key"]["properties"]
    assert key["requests_per_minute"]["description"] == (
        "Requests that it may begin in a minute, lists of models among them."
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"backends": {"a": {"url": "http://a"}}, "routes": {"x/*": "a", "/y": {"backend": "a"}}},
        yaml.safe_load((EXAMPLES / "backends.yaml").read_text(encoding="utf-8")),
    ],
    ids=["empty", "native", "registry"],
)
def test_what_loads_fits_the_schema(document: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid(document)


@pytest.mark.parametrize(
    "document",
    [
        {"backend": {}},
        {"backends": {"a": {}}},
        {"backends": {"a": {"url": "a"}}},
        {"backends": {"a": {"url": "http://a", "slots": 0}}},
        {"routes": {"x": 3}},
        {"auth": "none"},
    ],
    ids=json.dumps,
)
def test_what_does_not_load_does_not_fit_the_schema(document: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(document)


def test_every_struct_of_the_tree_has_a_section() -> None:
    reference = schema.render_reference()
    for struct in structs():
        if struct is not settings._Section:
            assert f"### {struct.__name__}\n" in reference


def test_the_root_comes_first() -> None:
    assert schema.render_reference().startswith(f"### {Settings.__name__}\n")
