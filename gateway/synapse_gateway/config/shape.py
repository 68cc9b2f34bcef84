"""Checks a tree of nodes against a struct type, and says everything that does not fit.

`msgspec` itself stops at the first fault and knows no lines, so this walks its description of
the type (`msgspec.inspect`). A field may say more in `Meta(extra=...)`:

- `wish` says what the field's pattern means;
- `refers_to` names the top-level section that must have an entry of this name;
- `secret` keeps the value out of every message.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

import msgspec
from msgspec import inspect

from synapse_gateway.config.findings import Place, suggest
from synapse_gateway.config.source import Mapping, Node, Scalar, Sequence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from synapse_gateway.config.findings import Findings, Path

T = TypeVar("T")

_CREDENTIALS = re.compile(r"//[^/@\s]*@")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BOOLEANS_OF_1_1 = {"yes": True, "on": True, "no": False, "off": False}
"""What files that other programs read still use."""

_BAD: Any = object()
"""Stands for a value that was refused, after the reason was noted."""


class Places(msgspec.Struct, frozen=True):
    """Where every value of a configuration was written, refused values included."""

    by_path: dict[tuple[str | int, ...], Place]
    """By the path in `Settings`; a place has the path in the file that it was written in."""

    def at(self, *path: str | int) -> Place:
        """Return where a value was written, or else a place in the nearest thing around it."""
        end = len(path)
        while path[:end] not in self.by_path:
            end -= 1
        around = self.by_path[path[:end]]
        return around.at(around.line, *path[end:])


def shape(
    root: Mapping, struct: type[T], file: str, findings: Findings, *, lenient: bool = False
) -> tuple[T, Places]:
    """Return the tree as a struct, less the parts that were refused.

    Args:
        root: The tree.
        struct: Type to build; all its fields have defaults. Unknown fields are an error where a
            struct forbids them, else a warning.
        file: Name of the file in the findings.
        findings: Takes the errors and warnings.
        lenient: Whether an unquoted number is taken where text belongs, as other programs do.
    """
    walk = _Walk(file, findings, lenient=lenient)
    values = walk.value(root, inspect.type_info(struct), ())
    walk.resolve_references(root)
    return msgspec.convert(values, struct), Places(walk.places)


class _Slot(msgspec.Struct, frozen=True):
    """Where a value stands, and what its field says of it."""

    place: Place
    wish: str | None = None
    refers_to: str | None = None
    secret: bool = False


class _Walk:
    def __init__(self, file: str, findings: Findings, *, lenient: bool) -> None:
        self.places: dict[Path, Place] = {}
        self._file = file
        self._findings = findings
        self._lenient = lenient
        self._references: list[tuple[Place, str, str]] = []
        self._shapes: dict[type[inspect.Type], Callable[[Node, Any, _Slot], Any]] = {
            inspect.StructType: self._struct,
            inspect.DictType: self._dict,
            inspect.VarTupleType: self._list,
            inspect.EnumType: self._enum,
            inspect.StrType: self._str,
            inspect.IntType: self._int,
            inspect.FloatType: self._float,
            inspect.BoolType: self._bool,
            inspect.AnyType: lambda node, _kind, _slot: _plain(node),
        }

    def value(self, node: Node, kind: inspect.Type, path: Path, line: int | None = None) -> Any:
        """Return the value as `msgspec.convert` takes it, or `_BAD`."""
        place = Place(self._file, line or node.line, path)
        self.places[path] = place
        if isinstance(kind, inspect.UnionType):
            if _is_null(node):
                return None
            (kind,) = (each for each in kind.types if not isinstance(each, inspect.NoneType))
        slot = _Slot(place)
        if isinstance(kind, inspect.Metadata):
            slot = _Slot(place, **(kind.extra or {}))
            kind = kind.type
        return self._shapes[type(kind)](node, kind, slot)

    def resolve_references(self, root: Mapping) -> None:
        """Note an error for each name that no entry of its section has."""
        for place, section, name in self._references:
            _, entries = root.entries.get(section, (0, None))
            known = list(entries.entries) if isinstance(entries, Mapping) else []
            if name not in known:
                noun = section.removesuffix("s")
                hint = suggest(name, known, most=20)
                self._findings.error(place, f"unknown {noun} {name!r}; {hint}")

    def _refuse(self, node: Node, slot: _Slot, wish: str) -> Any:
        got = "" if slot.secret else f" (got {_describe(node)})"
        self._findings.error(slot.place, f"must be {wish}{got}")
        return _BAD

    def _struct(self, node: Node, kind: inspect.StructType, slot: _Slot) -> Any:
        if not isinstance(node, Mapping):
            return self._refuse(node, slot, "a mapping")
        fields = {field.encode_name: field for field in kind.fields}
        values: dict[str, Any] = {}
        for name, (line, child) in node.entries.items():
            place = slot.place.at(line, name)
            field = fields.get(name)
            if field is not None:
                if not (_is_null(child) and _is_collection(field.type)):
                    values[name] = self.value(child, field.type, place.path, line)
            elif kind.forbid_unknown_fields:
                self._findings.error(place, f"unknown field; {suggest(name, fields)}")
            else:
                self._findings.warn(place, "is not used")
        missing = [name for name, field in fields.items() if field.required and name not in values]
        for name in missing:
            self._findings.error(slot.place.at(slot.place.line, name), "is required")
        lost = any(fields[name].required and value is _BAD for name, value in values.items())
        return _BAD if missing or lost else _kept(values.items())

    def _dict(self, node: Node, kind: inspect.DictType, slot: _Slot) -> Any:
        if not isinstance(node, Mapping):
            return self._refuse(node, slot, "a mapping")
        values: dict[str, Any] = {}
        for name, (line, child) in node.entries.items():
            key, key_slot = Scalar(line, name, name), _Slot(slot.place.at(line, name))
            if self._str(key, cast("inspect.StrType", kind.key_type), key_slot) is not _BAD:
                values[name] = self.value(child, kind.value_type, key_slot.place.path, line)
        return _kept(values.items())

    def _list(self, node: Node, kind: inspect.VarTupleType, slot: _Slot) -> Any:
        if not isinstance(node, Sequence):
            return self._refuse(node, slot, "a list")
        if kind.min_length and len(node.items) < kind.min_length:
            return self._refuse(node, slot, f"a list of at least {kind.min_length}")
        path = slot.place.path
        items = [self.value(item, kind.item_type, (*path, i)) for i, item in enumerate(node.items)]
        # A list without one of its items would give the others wrong places.
        return _BAD if _BAD in items else items

    def _enum(self, node: Node, kind: inspect.EnumType, slot: _Slot) -> Any:
        names = [str(member.value) for member in kind.cls]
        if isinstance(node, Scalar) and node.text in names:
            return node.text
        return self._refuse(node, slot, f"one of {', '.join(names)}")

    def _str(self, node: Node, kind: inspect.StrType, slot: _Slot) -> Any:
        if not isinstance(node, Scalar):
            return self._refuse(node, slot, "text")
        if not isinstance(node.value, str) and not (self._lenient and _is_number(node.value)):
            return self._refuse(node, slot, "text" if _is_null(node) else "text, in quotes")
        if not self._text(node.text, node, kind, slot):
            return _BAD
        if slot.refers_to is not None:
            self._references.append((slot.place, slot.refers_to, node.text))
        return node.text

    def _text(self, text: str, node: Node, kind: inspect.StrType, slot: _Slot) -> bool:
        """Say whether a text is as its type wants it; the node is what a refusal shows."""
        wish = ""
        if _CONTROL.search(text):
            wish = "one line, without control characters"
        elif kind.min_length and len(text) < kind.min_length:
            wish = "not empty" if kind.min_length == 1 else f"at least {kind.min_length} long"
        elif kind.max_length and len(text) > kind.max_length:
            wish = f"at most {kind.max_length} characters long"
        elif kind.pattern and not re.search(kind.pattern, text):
            wish = slot.wish or f"of the form {kind.pattern}"
        if wish:
            self._refuse(node, slot, wish)
        return not wish

    def _bool(self, node: Node, _kind: inspect.BoolType, slot: _Slot) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, str):
            value = _BOOLEANS_OF_1_1.get(value.lower())
        return value if isinstance(value, bool) else self._refuse(node, slot, "true or false")

    def _int(self, node: Node, kind: inspect.IntType, slot: _Slot) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if not isinstance(value, int) or isinstance(value, bool):
            return self._refuse(node, slot, "a whole number")
        return self._bounded(value, node, kind, slot)

    def _float(self, node: Node, kind: inspect.FloatType, slot: _Slot) -> Any:
        value = node.value if isinstance(node, Scalar) else None
        if not _is_number(value) or not math.isfinite(value):
            return self._refuse(node, slot, "a number")
        return self._bounded(value, node, kind, slot)

    def _bounded(
        self, value: float, node: Node, kind: inspect.IntType | inspect.FloatType, slot: _Slot
    ) -> Any:
        if kind.ge is not None and value < kind.ge:
            return self._refuse(node, slot, f"at least {kind.ge}")
        if kind.gt is not None and value <= kind.gt:
            return self._refuse(node, slot, f"more than {kind.gt}")
        if kind.le is not None and value > kind.le:
            return self._refuse(node, slot, f"at most {kind.le}")
        return value


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_collection(kind: inspect.Type) -> bool:
    """Say whether nothing after a field's colon can only mean that it is empty."""
    return isinstance(kind, inspect.StructType | inspect.DictType | inspect.VarTupleType)


def _kept(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in values if value is not _BAD}


def _plain(node: Node) -> Any:
    if isinstance(node, Mapping):
        return {name: _plain(child) for name, (_, child) in node.entries.items()}
    if isinstance(node, Sequence):
        return [_plain(item) for item in node.items]
    return node.value


def _describe(node: Node) -> str:
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return f"a list of {len(node.items)}"
    if node.value is None:
        return "nothing"
    text = _CREDENTIALS.sub("//***@", node.text)
    text = text if len(text) <= 60 else text[:57] + "..."
    return repr(text) if isinstance(node.value, str) else text
