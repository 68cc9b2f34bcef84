"""Routes as the registry of the existing gateway writes them, which native files may do as well.

A route is a path (`/v1/embeddings`) or a prefix (`tts/*`, with or without the leading slash), and
its value the name of a backend, or a mapping with the fields of `settings.Route`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from synapse_gateway.config.findings import Place
from synapse_gateway.config.source import Mapping, Scalar

if TYPE_CHECKING:
    from synapse_gateway.config.findings import Findings
    from synapse_gateway.config.source import Node

_PATH = re.compile(r"/?[^\s*?#]*|(/?[^\s*?#]*/)?\*")


def with_plain_routes(root: Mapping, file: str, findings: Findings) -> Mapping:
    """Return the tree with every route under its absolute path, and as a mapping.

    Args:
        root: The tree of a native or registry file.
        file: Its name in the findings.
        findings: Takes an error for each path that is malformed or there twice.
    """
    line, routes = root.entries.get("routes", (0, None))
    if not isinstance(routes, Mapping):
        return root
    plain: dict[str, tuple[int, Node]] = {}
    for written, (key_line, node) in routes.entries.items():
        path = written if written.startswith("/") else f"/{written}"
        place = Place(file, key_line, ("routes", written))
        if not _PATH.fullmatch(written):
            findings.error(place, "must be a path, or a prefix that ends in /*, such as tts/*")
        elif path in plain:
            findings.error(place, f"is the same route as line {plain[path][0]}")
        else:
            plain[path] = (key_line, _as_mapping(node))
    return replace(root, entries={**root.entries, "routes": (line, replace(routes, entries=plain))})


def _as_mapping(node: Node) -> Node:
    if isinstance(node, Scalar) and node.value is not None:
        return Mapping(node.line, {"backend": (node.line, node)})
    return node
