"""A YAML or JSON file as a tree whose every value knows its line.

Plain scalars are read by the core schema of YAML 1.2, so that `on`, `1:30` and `2026-01-01` stay
the text that they look like. Tags other than `!!str` are refused. Size, depth and the number of
values that aliases expand to are bounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn, TypeAlias, cast

import yaml

from synapse_gateway.config.findings import Place
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path as FilePath

    from synapse_gateway.config.findings import Findings, Path

MAX_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 32
MAX_NODES = 200_000
"""Values of a file with its aliases expanded."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR_TAG = "tag:yaml.org,2002:str"
_MERGE = "<<"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# 40 digits at most: a SHA-256 that happens to have no letters stays text
_INT = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]{1,40}|[0-9]{1,40}(?:\.[0-9]{0,40})?)(?:e[-+]?[0-9]{1,3})?|[-+]?\.inf|\.nan",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value: `text` is as written, `value` what that means."""

    line: int
    text: str
    value: str | int | float | bool | None
    plain: bool = True
    """Whether it stands there without quotes."""
    size: int = 1


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    line: int
    items: tuple[Node, ...]
    size: int = 1


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping; an entry is the line of its key, and its value."""

    line: int
    entries: dict[str, tuple[int, Node]]
    size: int = 1


Node: TypeAlias = Scalar | Sequence | Mapping


def read_text(path: FilePath) -> str:
    """Return a file's text.

    Raises:
        ConfigError: It cannot be read, is larger than `MAX_BYTES`, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: must be at most {MAX_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: must be UTF-8 text") from error


def parse(text: str, file: str, findings: Findings) -> Mapping:
    """Return the mapping that a YAML or JSON text holds; an empty one if it was refused.

    Args:
        text: The whole file.
        file: Its name in the findings.
        findings: Takes the errors.
    """
    if text.lstrip()[:1] in ("{", "["):
        # JSON may be indented by tabs, YAML may not; no JSON string holds one unescaped.
        text = text.replace("\t", " ")
    composer = _Composer(file, findings)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except _Stop:
        return Mapping(1, {})
    except yaml.YAMLError as error:
        findings.error(Place(file, _error_line(error)), f"is not YAML: {_error_text(error)}")
        return Mapping(1, {})
    root = composer.root
    if isinstance(root, Mapping):
        return root
    got = "a list" if isinstance(root, Sequence) else repr(root.text) if root else "nothing"
    findings.error(Place(file, 1), f"must hold a mapping, such as 'backends: ...' (got {got})")
    return Mapping(1, {})


def _error_line(error: yaml.YAMLError) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return mark.line + 1 if mark else 0


def _error_text(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None)
    return str(problem or "it cannot be parsed")


def resolve(text: str) -> str | int | float | bool | None:
    """Return what an unquoted scalar means by the core schema of YAML 1.2 (section 10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


class _Stop(Exception):
    """Ends the parse, after the reason was noted."""


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    line: int
    anchor: str | None
    is_mapping: bool
    size: int = 1
    items: list[Node] = field(default_factory=list)
    entries: dict[str, tuple[int, Node]] = field(default_factory=dict)
    merged: list[Node] = field(default_factory=list)
    key: Scalar | None = None
    ignore: bool = False
    """The value that comes next belongs to a key that was refused."""


class _Composer:
    """Builds the tree from the parser's events, without recursion."""

    def __init__(self, file: str, findings: Findings) -> None:
        self.root: Node | None = None
        self._file = file
        self._findings = findings
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._documents = 0

    def take(self, event: yaml.Event) -> None:
        line = cast("yaml.Mark", event.start_mark).line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(line, "must hold one YAML document, not several")
        elif isinstance(event, yaml.ScalarEvent):
            self._attach(self._scalar(event, line), event.anchor)
        elif isinstance(event, yaml.AliasEvent):
            node = self._anchors.get(str(event.anchor))
            if node is None:
                self._stop(line, f"alias *{event.anchor} stands for nothing that ended before it")
            self._attach(node, None)
        elif isinstance(event, yaml.CollectionStartEvent):
            if event.tag is not None:
                self._stop(line, f"must carry no tag (got {event.tag})")
            if len(self._open) == MAX_DEPTH:
                self._stop(line, f"must be nested at most {MAX_DEPTH} deep")
            self._open.append(_Open(line, event.anchor, isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            closed = self._open.pop()
            self._attach(self._close(closed), closed.anchor)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Scalar:
        if event.tag not in (None, "!", _STR_TAG):
            self._stop(line, f"must carry no tag (got {event.tag})")
        plain = event.tag is None and event.implicit[0]
        return Scalar(line, event.value, resolve(event.value) if plain else event.value, plain)

    def _close(self, closed: _Open) -> Node:
        if not closed.is_mapping:
            return Sequence(closed.line, tuple(closed.items), closed.size)
        entries = closed.entries
        for node in closed.merged:
            parts = node.items if isinstance(node, Sequence) else (node,)
            for part in parts:
                if not isinstance(part, Mapping):
                    self._stop(part.line, "'<<' takes a mapping, or a list of mappings")
                entries = {**part.entries, **entries}
        return Mapping(closed.line, entries, closed.size)

    def _attach(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += node.size
        if parent.size > MAX_NODES:
            self._stop(parent.line, f"must hold at most {MAX_NODES} values, aliases expanded")
        if not parent.is_mapping:
            parent.items.append(node)
        elif parent.key is None:
            self._take_key(parent, node)
        else:
            self._take_value(parent, parent.key, node)

    def _take_key(self, parent: _Open, node: Node) -> None:
        if not isinstance(node, Scalar):
            self._stop(node.line, "a key must be text, not a list or a mapping")
        parent.key = node
        previous = parent.entries.get(node.text)
        parent.ignore = previous is not None
        if previous is not None:
            self._findings.error(
                Place(self._file, node.line, self._path()),
                f"is there twice, first in line {previous[0]}",
            )

    def _take_value(self, parent: _Open, key: Scalar, node: Node) -> None:
        if key.text == _MERGE and key.plain:
            parent.merged.append(node)
        elif not parent.ignore:
            parent.entries[key.text] = (key.line, node)
        parent.key = None

    def _path(self) -> Path:
        steps: list[str | int] = []
        for open_ in self._open:
            if not open_.is_mapping:
                steps.append(len(open_.items))
            elif open_.key is not None:
                steps.append(open_.key.text)
        return tuple(steps)

    def _stop(self, line: int, message: str) -> NoReturn:
        self._findings.error(Place(self._file, line, self._path()), message)
        raise _Stop
