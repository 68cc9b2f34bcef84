#!/usr/bin/env python3
"""Validates Kubernetes manifests strictly and offline, as an API server would refuse them.

Objects of Kubernetes itself are held against the strict schemas of one Kubernetes version (from
the kubernetes-validate package), custom resources against the structural schemas of their own
CustomResourceDefinitions. Unknown fields, duplicate keys, impossible names, labels and quantities
and objects that appear twice are refused; so is a kind that the version does not serve.
Not checked: the CEL rules of definitions and whatever an admission controller decides.

Used from the command line:

    hack/tools/validate_manifests.py --kubernetes-version 1.34 rendered.yaml
    helm template ... | hack/tools/validate_manifests.py --kubernetes-version 1.34 -

or from Python: ``Validator("1.34").problems(load_documents(text))``. The schemas and definitions
come from ``install.sh kubernetes-validate crds`` unless folders are given. Needs jsonschema 4.18+
and PyYAML, both of which the interpreter that ``install.sh kubernetes-validate`` prints has.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import best_match  # type: ignore[import-untyped]
from referencing import Registry, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HERE: Final = Path(__file__).resolve().parent

# RFC 1123, as Kubernetes applies it to the names of objects and to the keys and values of labels
# (https://kubernetes.io/docs/concepts/overview/working-with-objects/names/ and .../labels/).
SUBDOMAIN: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
# RBAC and API registration names may hold colons and capitals.
PATH_SEGMENT: Final = r"(?!\.{1,2}$)[^/%]+"
PATH_NAMED_GROUPS: Final = frozenset({"rbac.authorization.k8s.io"})
LABEL_VALUE: Final = r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?"
QUANTITY: Final = r"[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][+-]?[0-9]+)?"
# https://kubernetes.io/docs/reference/using-api/#api-groups: built-in groups have no dot or end so.
BUILT_IN_GROUP: Final = re.compile(r"[a-z]*|[a-z.]+\.k8s\.io")


# libyaml's where it is there: the same result, ten times as fast.
SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class StrictLoader(SAFE_LOADER):  # type: ignore[misc]
    """YAML's safe subset, with a key that appears twice in one mapping refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build the mapping; yaml.constructor.ConstructorError names a repeated key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen and key != "<<":
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key}' appears twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


class DefinitionLoader(SAFE_LOADER):  # type: ignore[misc]
    """YAML's safe subset, for definitions that others wrote."""


# PyYAML reads a bare "=" (seen in definitions' enums) as a tag it cannot construct.
for _loader in (StrictLoader, DefinitionLoader):
    _loader.add_constructor("tag:yaml.org,2002:value", lambda _, node: node.value)


def load_documents(text: str) -> list[dict[str, Any]]:
    """Parse manifests; empty documents are dropped and the items of a List stand for it.

    Raises:
        yaml.YAMLError: the text is not YAML, or a mapping repeats a key.
        ValueError: a document is not a mapping.
    """
    documents: list[dict[str, Any]] = []
    # Loader is a SafeLoader: nothing is constructed but plain data.
    for number, document in enumerate(yaml.load_all(text, Loader=StrictLoader), start=1):
        if document is None:
            continue
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise ValueError(f"document {number} is not an object but {kind}")  # noqa: TRY004
        if document.get("kind") == "List":
            documents += document.get("items") or []
        else:
            documents.append(document)
    return documents


def installed(tool: str) -> Path:
    """The path that install.sh prints for a tool, installing it first where it is not there."""
    run = subprocess.run([HERE / "install.sh", tool], check=True, stdout=subprocess.PIPE, text=True)
    return Path(run.stdout.strip())


@functools.cache
def default_schemas() -> Path:
    """The folder of Kubernetes schemas inside the kubernetes-validate package."""
    python = installed("kubernetes-validate")
    found = list(python.parent.parent.glob("lib/python*/site-packages/kubernetes_validate"))
    return found[0] / "kubernetes-json-schema"


def supported_versions(schemas: Path | None = None) -> list[str]:
    """The minor versions of Kubernetes that have schemas, oldest first, such as "1.34"."""
    folders = (schemas or default_schemas()).glob("v*-local-strict")
    minors = {tuple(map(int, folder.name[1:].split(".")[:2])) for folder in folders}
    return [f"{major}.{minor}" for major, minor in sorted(minors)]


class Validator:
    """Finds what one version of Kubernetes, with the given custom resources, would refuse.

    Args:
        version: the Kubernetes version, such as "1.34" or "v1.34.4".
        schemas: the folder of Kubernetes schemas; by default the pinned package's.
        crds: a folder of YAML files of CustomResourceDefinitions; by default the pinned ones.

    Raises:
        ValueError: there are no schemas of that version.
    """

    def __init__(
        self, version: str, *, schemas: Path | None = None, crds: Path | None = None
    ) -> None:
        self.version = ".".join(version.removeprefix("v").split(".")[:2])
        schemas = schemas or default_schemas()
        if self.version not in supported_versions(schemas):
            known = ", ".join(supported_versions(schemas))
            raise ValueError(f"no schemas of Kubernetes {version}; there are {known}")
        self._folder = schemas / f"v{self.version}.0-local-strict"
        definitions = json.loads((self._folder / "_definitions.json").read_text())
        quantity = definitions["$defs"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]
        quantity["oneOf"][0]["pattern"] = f"^{QUANTITY}$"
        self._definitions = definitions
        self._registry: Registry[Any] = Resource.from_contents(definitions) @ Registry()
        self._custom = _custom_schemas(crds or installed("crds"))
        self._validators: dict[tuple[str, str], Draft202012Validator | None] = {}

    def problems(self, documents: Iterable[dict[str, Any]]) -> list[str]:
        """One sentence for each thing that would be refused; an empty list is a pass."""
        found: list[str] = []
        seen: set[tuple[str, ...]] = set()
        for document in documents:
            label = describe(document)
            found += [f"{label}: {problem}" for problem in self._problems_of(document)]
            metadata = document.get("metadata") or {}
            group = str(document.get("apiVersion")).rpartition("/")[0]
            key = (
                group,
                str(document.get("kind")),
                str(metadata.get("namespace", "")),
                str(metadata.get("name")),
            )
            if key in seen:
                found.append(f"{label}: appears twice")
            seen.add(key)
        return found

    def _problems_of(self, document: dict[str, Any]) -> Iterator[str]:
        api_version, kind = document.get("apiVersion"), document.get("kind")
        if not isinstance(api_version, str) or not isinstance(kind, str):
            yield "apiVersion and kind must both be given"
            return
        validator = self._validator(api_version, kind)
        if validator is None:
            yield self._unknown(api_version, kind)
        else:
            for error in validator.iter_errors(document):
                yield _sentence(error)
        yield from _metadata_problems(api_version, document.get("metadata"))

    def _unknown(self, api_version: str, kind: str) -> str:
        group = api_version.rpartition("/")[0]
        if BUILT_IN_GROUP.fullmatch(group) and group not in {g for g, _, _ in self._custom}:
            return f"Kubernetes {self.version} serves no {kind} of {api_version}"
        return f"no definition of {kind} ({api_version}) among the custom resource definitions"

    def _validator(self, api_version: str, kind: str) -> Draft202012Validator | None:
        key = (api_version, kind)
        if key not in self._validators:
            schema = self._schema(api_version, kind)
            self._validators[key] = schema and Draft202012Validator(schema, registry=self._registry)
        return self._validators[key]

    def _schema(self, api_version: str, kind: str) -> dict[str, Any] | None:
        group, _, version = api_version.rpartition("/")
        custom = self._custom.get((group, version, kind))
        if custom is not None:
            return _strict(custom, self._definitions["$id"], root=True)
        # The package names files by the first label of the group: networkpolicy-networking-v1.
        stem = "-".join(filter(None, [kind.lower(), group.split(".")[0], version]))
        path = self._folder / f"{stem}.json"
        if not path.exists():
            return None
        schema: dict[str, Any] = json.loads(path.read_text())
        enum = schema.get("properties", {}).get("apiVersion", {}).get("enum", [api_version])
        return schema if api_version in enum else None


def describe(document: dict[str, Any]) -> str:
    """How messages name an object: Kind/name."""
    metadata = document.get("metadata")
    name = metadata.get("name", "?") if isinstance(metadata, dict) else "?"
    return f"{document.get('kind', '?')}/{name}"


def _sentence(error: Any) -> str:
    if error.context:
        error = best_match([error]) or error
    where = "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    ).removeprefix(".")
    message = error.message if len(error.message) < 300 else error.message[:300] + "..."
    return f"{where or '(top)'}: {message}"


def _metadata_problems(api_version: str, metadata: Any) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield "metadata must be given"
        return
    name = metadata.get("name")
    by_path = api_version.rpartition("/")[0] in PATH_NAMED_GROUPS
    pattern = PATH_SEGMENT if by_path else SUBDOMAIN
    if name is None and "generateName" not in metadata:
        yield "metadata.name must be given"
    elif name is not None and not (re.fullmatch(pattern, str(name)) and len(str(name)) <= 253):
        yield f"metadata.name: '{name}' is not a valid object name (RFC 1123)"
    for key, value in (metadata.get("labels") or {}).items():
        prefix, _, bare = str(key).rpartition("/")
        if (
            not re.fullmatch(LABEL_VALUE, bare)
            or not 1 <= len(bare) <= 63
            or (prefix and not re.fullmatch(SUBDOMAIN, prefix))
        ):
            yield f"metadata.labels: '{key}' is not a valid label key"
        if not re.fullmatch(LABEL_VALUE, str(value)) or len(str(value)) > 63:
            yield f"metadata.labels.{key}: '{value}' is not a valid label value"


@functools.cache
def _custom_schemas(folder: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The structural schema of each served version: (group, version, kind) -> schema."""
    schemas: dict[tuple[str, str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.yaml")):
        for definition in yaml.load_all(path.read_text(), Loader=DefinitionLoader):
            if not definition or definition.get("kind") != "CustomResourceDefinition":
                continue
            spec = definition["spec"]
            for version in spec["versions"]:
                if version.get("served"):
                    key = (spec["group"], version["name"], spec["names"]["kind"])
                    schemas[key] = version["schema"]["openAPIV3Schema"]
    return schemas


def _strict(schema: dict[str, Any], definitions: str, *, root: bool = False) -> dict[str, Any]:
    """A structural OpenAPI v3 schema as JSON Schema that refuses what the API server would prune.

    Follows https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
    custom-resource-definitions/ (structural schemas, int-or-string, preserve-unknown-fields).
    """
    strict = {k: copy.deepcopy(v) for k, v in schema.items() if not k.startswith("x-kubernetes-")}
    properties = {k: _strict(v, definitions) for k, v in schema.get("properties", {}).items()}
    if root:
        meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        properties["metadata"] = {"$ref": f"{definitions}#/$defs/{meta}"}
        properties.setdefault("apiVersion", {"type": "string"})
        properties.setdefault("kind", {"type": "string"})
    if properties:
        strict["properties"] = properties
    if isinstance(schema.get("items"), dict):
        strict["items"] = _strict(schema["items"], definitions)
    if isinstance(schema.get("additionalProperties"), dict):
        strict["additionalProperties"] = _strict(schema["additionalProperties"], definitions)
    elif properties and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        strict.pop("type", None)
        strict["type"] = ["integer", "string"]
        strict.pop("anyOf", None)
    if schema.get("nullable") and isinstance(strict.get("type"), str):
        strict["type"] = [strict["type"], "null"]
    # OpenAPI v3.0 has booleans where JSON Schema 2020-12 has numbers.
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(strict.get(bound), bool) and strict.pop(bound) and limit in strict:
            strict[bound] = strict.pop(limit)
    # Formats such as int32 and byte are not JSON Schema's, and it asserts none by default.
    strict.pop("format", None)
    return strict


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; 0 is a pass, 1 says that something would be refused."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kubernetes-version", required=True, help='such as "1.34"')
    parser.add_argument("--crds", type=Path, help="folder of CustomResourceDefinitions")
    parser.add_argument("files", nargs="+", help="YAML files, or - for standard input")
    options = parser.parse_args(arguments)
    try:
        validator = Validator(options.kubernetes_version, crds=options.crds)
    except ValueError as error:
        parser.error(str(error))
    failures = 0
    for name in options.files:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
        try:
            documents = load_documents(text)
            problems = validator.problems(documents)
        except (yaml.YAMLError, ValueError) as error:
            documents, problems = [], [str(error)]
        for problem in problems:
            sys.stdout.write(f"{name}: {problem}\n")
        failures += len(problems)
        verdict = f"{len(documents)} objects, {len(problems)} problems"
        sys.stdout.write(f"{name}: Kubernetes {validator.version}: {verdict}\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
