"""The denoising server `backends/deepfilter-audio`.

Probed like our other servers (see `synapse_server`); it is reached by routes (`/audio/*`), not by a
model's name.
"""

from __future__ import annotations

from typing import ClassVar

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class Deepfilter(SynapseServer):
    """Adapter for `deepfilter`."""

    capabilities = frozenset({Capability.DENOISING, Capability.CONVERSION})
    paths: ClassVar = {"/audio/denoise": "/denoise", "/audio/convert": "/convert"}
