"""The configuration's JSON Schema and its reference in Markdown, both made from the structs.

What a field means stands in the docstring below it in `settings`; Python drops such docstrings,
so they are read from the source.
"""

from __future__ import annotations

import ast
import enum
import inspect
import itertools
import json
import re
from typing import Any, cast

import msgspec

from synapse_gateway.config import settings
from synapse_gateway.config.settings import Settings

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a native configuration file."""
    schema = msgspec.json.schema(Settings)
    definitions = schema["$defs"]
    documentation = field_docs()
    for name, definition in definitions.items():
        # Python 3.13 strips the indentation of a docstring, earlier versions keep it.
        definition["description"] = _as_yaml(" ".join(definition["description"].split()))
        for field, schema_of_field in definition.get("properties", {}).items():
            description = documentation[name][field]
            definition["properties"][field] = {"description": description, **schema_of_field}
    routes = definitions["Settings"]["properties"]["routes"]
    routes["additionalProperties"] = {
        "anyOf": [
            {"type": "string", "minLength": 1, "description": "Name of an entry of `backends`."},
            routes["additionalProperties"],
        ]
    }
    return {"$schema": DIALECT, "title": "Synapse gateway configuration", **schema}


def render_json_schema() -> str:
    """Return the schema as text, as it is kept in docs/config.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def field_docs() -> dict[str, dict[str, str]]:
    """Return the docstring of every field, by struct; inherited fields included."""
    documentation: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(settings)).body:
        if isinstance(node, ast.ClassDef):
            inherited = [documentation.get(ast.unparse(base), {}) for base in node.bases]
            documentation[node.name] = {}
            for fields in (*inherited, _docs_in(node.body)):
                documentation[node.name].update(fields)
    return documentation


def _docs_in(body: list[ast.stmt]) -> dict[str, str]:
    found = {}
    for field, after in itertools.pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[field.target.id] = _as_yaml(" ".join(str(after.value.value).split()))
    return found


def _as_yaml(text: str) -> str:
    """Write Python's constants as a configuration file does."""
    words = {"None": "`null`", "True": "`true`", "False": "`false`"}
    return re.sub(r"\b(?:None|True|False)\b", lambda match: words[match[0]], text)


def render_reference() -> str:
    """Return a section with a table of fields for each struct, the root first."""
    documentation = field_docs()
    structs = _structs(Settings)
    return "\n".join(_section(struct, documentation[struct.__name__]) for struct in structs)


def _structs(root: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """Return every struct that a struct is made of, in the order in which a reader meets them."""
    found: dict[type[msgspec.Struct], None] = {}

    def visit(kind: msgspec.inspect.Type) -> None:
        match kind:
            case msgspec.inspect.StructType(cls=struct, fields=fields):
                if struct not in found:
                    found[struct] = None
                    for field in fields:
                        visit(field.type)
            case msgspec.inspect.UnionType(types=types):
                for each in types:
                    visit(each)
            case (
                msgspec.inspect.DictType(value_type=inner)
                | msgspec.inspect.VarTupleType(item_type=inner)
            ):
                visit(inner)
            case msgspec.inspect.Metadata(type=inner):
                visit(inner)
            case _:
                pass

    visit(msgspec.inspect.type_info(root))
    return list(found)


def _section(struct: type[msgspec.Struct], documentation: dict[str, str]) -> str:
    kind = cast("msgspec.inspect.StructType", msgspec.inspect.type_info(struct))
    lines = [f"### {struct.__name__}", "", _as_yaml(inspect.getdoc(struct) or ""), ""]
    lines += ["| field | value | default | meaning |", "| --- | --- | --- | --- |"]
    for field in kind.fields:
        cells = (
            f"`{field.encode_name}`",
            _value(field.type),
            _default_of(field),
            documentation[field.encode_name],
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _value(kind: msgspec.inspect.Type) -> str:
    """Say in a few words what a field takes."""
    if isinstance(kind, msgspec.inspect.UnionType):
        kind = kind.types[0]
    if isinstance(kind, msgspec.inspect.Metadata):
        kind = kind.type
    match kind:
        case msgspec.inspect.StructType(cls=struct):
            return f"[{struct.__name__}](#{struct.__name__.lower()})"
        case msgspec.inspect.DictType(value_type=inner):
            return f"mapping of name to {_value(inner)}"
        case msgspec.inspect.VarTupleType(item_type=inner):
            return f"list of {_value(inner)}"
        case msgspec.inspect.EnumType(cls=members):
            return ", ".join(f"`{member.value}`" for member in members)
        case msgspec.inspect.BoolType():
            return "`true`, `false`"
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return _number(kind)
        case _:
            return "text"


def _number(kind: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    noun = "whole number" if isinstance(kind, msgspec.inspect.IntType) else "number"
    bounds = (("from", kind.ge), ("above", kind.gt), ("to", kind.le))
    return " ".join([noun, *(f"{word} {bound}" for word, bound in bounds if bound is not None)])


def _default_of(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "required"
    default = field.default
    if default in (None, msgspec.NODEFAULT, ()) or isinstance(default, msgspec.Struct):
        return "-"
    value = default.value if isinstance(default, enum.Enum) else default
    return f"`{json.dumps(value)}`" if not isinstance(value, str) else f"`{value}`"
