"""The denoising server `backends/deepfilter-audio`.

Probed like our other servers (see `synapse_server`); it is reached by routes (`/audio/*`), not by a
model's name.
"""

from __future__ import annotations

from synapse_gateway.backends.synapse_server import SynapseServer


class Deepfilter(SynapseServer):
    """Adapter for `deepfilter`."""
