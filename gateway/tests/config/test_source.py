from __future__ import annotations

import json
from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.config import source
from synapse_gateway.config.findings import Findings
from synapse_gateway.config.source import Mapping, Scalar, Sequence
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.config.source import Node


def parse(text: str) -> Mapping:
    findings = Findings()
    root = source.parse(dedent(text), "f.yaml", findings)
    findings.raise_errors()
    return root


def refusal(text: str) -> str:
    findings = Findings()
    source.parse(dedent(text), "f.yaml", findings)
    with pytest.raises(ConfigError) as refused:
        findings.raise_errors()
    return str(refused.value)


def plain(node: Node) -> object:
    if isinstance(node, Mapping):
        return {key: plain(child) for key, (_, child) in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def test_every_value_knows_the_line_it_begins_in() -> None:
    root = parse("""\
        a: 1

        b:
          - x
          - c: "two
              lines"
        """)
    line, listed = root.entries["b"]
    assert line == 3
    assert isinstance(listed, Sequence)
    assert [item.line for item in listed.items] == [4, 5]


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("llama3.1:8b", "llama3.1:8b"),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("-3", -3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1_000", "1_000"),
        ("9" * 64, "9" * 64),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("'null'", "null"),
        ('"1"', "1"),
        ("!!str 1", "1"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, meaning: object) -> None:
    _, node = parse(f"a: {text}").entries["a"]
    assert plain(node) == meaning
    assert type(plain(node)) is type(meaning)


@pytest.mark.parametrize("text", [".inf", "-.INF", "+.Inf"])
def test_infinity_is_a_number(text: str) -> None:
    _, node = parse(f"a: {text}").entries["a"]
    assert isinstance(node, Scalar)
    assert abs(float(str(node.value))) == float("inf")


def test_keys_are_text_however_they_are_written() -> None:
    assert list(parse("{1: a, true: b, 3.10: c, null: d}").entries) == ["1", "true", "3.10", "null"]


def test_aliases_and_merge_keys_share_values() -> None:
    root = parse("""\
        base: &base {a: 1, b: 2}
        other: &other {c: 3, a: 4}
        one: {<<: *base, b: 5}
        many:
          <<: [*base, *other]
        list: &list [1]
        same: *list
        """)
    assert plain(root) == {
        "base": {"a": 1, "b": 2},
        "other": {"c": 3, "a": 4},
        "one": {"a": 1, "b": 5},
        "many": {"a": 1, "b": 2, "c": 3},
        "list": [1],
        "same": [1],
    }


def test_a_quoted_merge_key_is_a_name_like_any_other() -> None:
    assert plain(parse('{"<<": 1}')) == {"<<": 1}


def test_json_loads_even_when_it_is_indented_by_tabs() -> None:
    value = {"a": ["x", 1.5, True, None, {"b": "tab\t, / and \u00e9"}]}
    assert plain(parse(json.dumps(value, indent="\t"))) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(
            "a: 1\nb: 2\na: 3", "f.yaml:3: a: is there twice, first in line 1", id="twice"
        ),
        pytest.param(
            "x:\n- {y: {a: 1, a: 2}}",
            "f.yaml:2: x[0].y.a: is there twice, first in line 2",
            id="twice-inside",
        ),
        pytest.param(
            "", "f.yaml:1: must hold a mapping, such as 'backends: ...' (got nothing)", id="empty"
        ),
        pytest.param(
            "[]", "f.yaml:1: must hold a mapping, such as 'backends: ...' (got a list)", id="list"
        ),
        pytest.param(
            "word",
            "f.yaml:1: must hold a mapping, such as 'backends: ...' (got 'word')",
            id="scalar",
        ),
        pytest.param(
            "a: 1\n---\nb: 2", "f.yaml:2: must hold one YAML document, not several", id="documents"
        ),
        pytest.param(
            "a: *b",
            "f.yaml:1: a: alias *b stands for nothing that ended before it",
            id="unknown-alias",
        ),
        pytest.param(
            "a: &a [*a]",
            "f.yaml:1: a[0]: alias *a stands for nothing that ended before it",
            id="recursion",
        ),
        pytest.param(
            "a: !!python/object/apply:os.system [x]",
            "f.yaml:1: a: must carry no tag (got tag:yaml.org,2002:python/object/apply:os.system)",
            id="tagged-list",
        ),
        pytest.param("a: !env X", "f.yaml:1: a: must carry no tag (got !env)", id="tagged-scalar"),
        pytest.param(
            "[1, 2]: x",
            "f.yaml:1: a key must be text, not a list or a mapping",
            id="list-as-key",
        ),
        pytest.param(
            "a:\n  <<: 1",
            "f.yaml:2: a: '<<' takes a mapping, or a list of mappings",
            id="merged-scalar",
        ),
        pytest.param(
            "a:\n  <<: [{b: 1}, 2]",
            "f.yaml:2: a: '<<' takes a mapping, or a list of mappings",
            id="merged-list-of-scalars",
        ),
    ],
)
def test_a_refusal_names_line_path_and_reason(text: str, reason: str) -> None:
    assert refusal(text) == reason


def test_broken_yaml_names_its_line() -> None:
    assert refusal("a: 1\nb: [1\nc: 2").startswith("f.yaml:3: is not YAML: ")


def test_control_characters_are_refused_without_a_line() -> None:
    assert refusal("a: \x01").startswith("f.yaml: is not YAML: ")


def test_depth_is_bounded() -> None:
    assert refusal("a: " + "[" * 100_000).endswith("must be nested at most 32 deep")


def test_aliases_cannot_expand_without_bound() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "must hold at most 200000 values, aliases expanded" in refusal("\n".join(lines))


def test_a_file_is_read_as_utf8_with_or_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: \xc3\xa9")
    assert source.read_text(path) == "a: é"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a: 1\nb: \xff", ":2: must be UTF-8 text"),
        (b"#" * (source.MAX_BYTES + 1), ": must be at most 4194304 bytes"),
    ],
    ids=["latin1", "huge"],
)
def test_an_unreadable_file_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        source.read_text(path)
    assert str(refused.value) == f"{path}{reason}"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        source.read_text(tmp_path / "none.yaml")
