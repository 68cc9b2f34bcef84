"""Generate the chart's values.schema.json and README.md from the comments of values.yaml.

    python hack/chart_docs.py          writes both
    python hack/chart_docs.py --check  exit code 1 if one of them differs from what would be written

The comment above a key is its description. A line `# @schema {...}` in it adds JSON Schema keywords
to what the default value implies. Shapes that return (images, resources, ...) are in
hack/chart-definitions.yaml. A key without a description is an error.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "synapse"
KEY = re.compile(r'^(?P<indent> *)(?P<key>"[^"]+"|[A-Za-z0-9_./-]+):(?:\s|$)')
RULER = re.compile(r"^# -{20,}$")
TYPES: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


class DocsError(Exception):
    """values.yaml lacks something; the text names the key."""


@dataclass
class Entry:
    """One key of values.yaml with what its comment says."""

    path: tuple[str, ...]
    value: Any
    description: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    children: dict[str, "Entry"] = field(default_factory=dict)
    section: str = ""


def _comment(block: list[str]) -> tuple[str, dict[str, Any]]:
    """Split a comment block into its prose and its schema keywords."""
    prose: list[str] = []
    extra: dict[str, Any] = {}
    for line in block:
        text = line.strip().removeprefix("#").strip()
        if text.startswith("@schema"):
            extra |= yaml.safe_load(text.removeprefix("@schema"))
        else:
            prose.append(text)
    return re.sub(r"\s+", " ", " ".join(prose)).strip(), extra


def _keys(text: str) -> Iterator[tuple[int, str, list[str], str]]:
    """Every key of block mappings: indent, name, comment block above it, section title."""
    block: list[str] = []
    section = ""
    after_ruler = False
    for line in text.splitlines():
        if RULER.match(line):
            after_ruler, block = True, []
            section = ""
            continue
        if after_ruler and line.startswith("#"):
            section, after_ruler = line.removeprefix("#").strip(), False
            continue
        if line.strip().startswith("#"):
            block.append(line)
            continue
        match = KEY.match(line)
        if match:
            yield len(match["indent"]), match["key"].strip('"'), block, section
        block = []
        after_ruler = False


def read_entries(text: str) -> dict[str, Entry]:
    """The tree of documented keys of values.yaml."""
    data = yaml.safe_load(text)
    roots: dict[str, Entry] = {}
    stack: list[tuple[int, Entry]] = []
    for indent, key, block, section in _keys(text):
        while stack and stack[-1][0] >= indent:
            stack.pop()
        parent = stack[-1][1] if stack else None
        value = (parent.value if parent else data).get(key)
        path = (*(parent.path if parent else ()), key)
        description, extra = _comment(block)
        entry = Entry(path, value, description, extra, {}, section)
        (parent.children if parent else roots)[key] = entry
        stack.append((indent, entry))
    return roots


def _open(extra: dict[str, Any]) -> bool:
    return bool({"additionalProperties", "$ref"} & set(extra))


def schema_of(entry: Entry, by_key: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of one key and of what is below it.

    Raises:
        DocsError: When a key has no description.
    """
    shared = by_key.get(entry.path[-1], {})
    extra = {**{k: v for k, v in shared.items() if k != "description"}, **entry.extra}
    description = entry.description or shared.get("description", "")
    if not description:
        raise DocsError(f"{'.'.join(entry.path)}: has no comment above it")
    entry.description = description
    if "$ref" in extra:
        entry.children = {}
        return {"description": description, "allOf": [{"$ref": extra["$ref"]}]}
    schema: dict[str, Any] = {"description": description}
    if isinstance(entry.value, dict):
        schema["type"] = "object"
        if _open(extra):
            entry.children = {}
        else:
            schema["additionalProperties"] = False
            schema["properties"] = {
                name: schema_of(child, by_key) for name, child in entry.children.items()
            }
    elif isinstance(entry.value, list):
        schema["type"] = "array"
    elif "enum" not in extra:
        if type(entry.value) not in TYPES:
            raise DocsError(f"{'.'.join(entry.path)}: its default value tells no type")
        schema["type"] = TYPES[type(entry.value)]
    return schema | extra


def make_schema(entries: dict[str, Entry], definitions: dict[str, Any]) -> str:
    """values.schema.json as text."""
    by_key = definitions["byKey"]
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Synapse chart",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            # Helm passes `global` to every chart.
            "global": {"type": "object", "description": "Not used by this chart."},
            **{name: schema_of(entry, by_key) for name, entry in entries.items()},
        },
        "definitions": definitions["definitions"],
    }
    return json.dumps(schema, indent=1) + "\n"


def _leaves(entry: Entry) -> Iterator[Entry]:
    if entry.children:
        for child in entry.children.values():
            yield from _leaves(child)
    else:
        yield entry


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _default(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def make_readme(entries: dict[str, Entry], template: str) -> str:
    """README.md of the chart: the template with the table of values in it."""
    lines: list[str] = []
    section = ""
    for entry in entries.values():
        if entry.section and entry.section != section:
            section = entry.section
            lines += [f"### {section}", ""]
        lines += [f"#### `{entry.path[0]}`", "", entry.description, ""]
        if entry.children:
            lines += ["| value | default | what it does |", "| --- | --- | --- |"]
            for leaf in _leaves(entry):
                name = ".".join(leaf.path)
                lines.append(
                    f"| `{name}` | {_cell(_default(leaf.value))} | {_cell(leaf.description)} |"
                )
            lines.append("")
        else:
            lines += [f"Default: {_default(entry.value)}", ""]
    return template.replace("{{ values }}\n", "\n".join(lines).rstrip() + "\n")


def outputs() -> dict[Path, str]:
    """Every generated file with the text that it should have."""
    entries = read_entries((CHART / "values.yaml").read_text())
    definitions = yaml.safe_load((ROOT / "hack" / "chart-definitions.yaml").read_text())
    schema = make_schema(entries, definitions)
    template = (CHART / "README.md.gotmpl").read_text()
    return {
        CHART / "values.schema.json": schema,
        CHART / "README.md": make_readme(entries, template),
    }


def main() -> int:
    """Write or check the generated files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    try:
        files = outputs()
    except DocsError as error:
        sys.stderr.write(f"values.yaml: {error}\n")
        return 1
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text() != text]
    for path in stale:
        if check:
            sys.stderr.write(f"{path.relative_to(ROOT)} is stale: run make chart\n")
        else:
            path.write_text(files[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
