"""Native files; a registry of the existing gateway is one with less in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.config.registry import with_plain_routes
from synapse_gateway.config.settings import Settings
from synapse_gateway.config.shape import shape

if TYPE_CHECKING:
    from synapse_gateway.config.findings import Findings
    from synapse_gateway.config.shape import Places
    from synapse_gateway.config.source import Mapping


def read_native(root: Mapping, file: str, findings: Findings) -> tuple[Settings, Places]:
    """Return the settings of a native file, less what was refused.

    Args:
        root: The tree of the file.
        file: Its name in the findings.
        findings: Takes the errors.
    """
    return shape(with_plain_routes(root, file, findings), Settings, file, findings)
