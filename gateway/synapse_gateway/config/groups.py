"""Worker group files: `groups: [{name, ws_auth_keys, api_keys}]`.

The keys of such a file are in clear; only their SHA-256 leaves this module.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from synapse_gateway.config.findings import Place
from synapse_gateway.config.settings import Key, Name, Settings, WorkerGroup
from synapse_gateway.config.shape import Places, shape

if TYPE_CHECKING:
    from synapse_gateway.config.findings import Findings, Path
    from synapse_gateway.config.source import Mapping

_Secret = Annotated[str, Meta(min_length=1, extra={"secret": True})]


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Name
    ws_auth_keys: tuple[_Secret, ...] = ()
    api_keys: tuple[_Secret, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: tuple[_Group, ...] = ()


def read_groups(root: Mapping, file: str, findings: Findings) -> tuple[Settings, Places]:
    """Return the groups of a file, and a key for each of their API keys.

    The keys of group `team-a` are named `team-a-1`, `team-a-2` and so on.

    Args:
        root: The tree of the file.
        file: Its name in the findings.
        findings: Takes the errors.
    """
    content, written = shape(root, _File, file, findings, lenient=True)
    places: dict[Path, Place] = {(): Place(file, root.line)}
    groups: dict[str, WorkerGroup] = {}
    keys: dict[str, Key] = {}
    joins: dict[str, Place] = {}
    for index, group in enumerate(content.groups):
        place = written.at("groups", index, "name")
        if group.name in groups:
            first = places["groups", group.name]
            findings.error(place, f"must be another one: {group.name!r} is in line {first.line}")
            continue
        places["groups", group.name] = place
        for number, key in enumerate(group.ws_auth_keys):
            where = written.at("groups", index, "ws_auth_keys", number)
            other = joins.setdefault(key, where)
            if other is not where:
                findings.error(where, f"must be another one: line {other.line} has the same key")
        digests = tuple(map(_digest, group.ws_auth_keys))
        groups[group.name] = WorkerGroup(ws_auth_keys_sha256=digests)
        for number, key in enumerate(group.api_keys):
            name = f"{group.name}-{number + 1}"
            keys[name] = Key(sha256=_digest(key), group=group.name)
            places["keys", name] = written.at("groups", index, "api_keys", number)
    return Settings(keys=keys, groups=groups), Places(places)


def _digest(key: str) -> str:
    return sha256(key.strip().encode()).hexdigest()
