"""A Piper server: `backends/piper-tts`.

Proven against: `backends/piper-tts` (see `synapse_server`). Piper's own HTTP server
(`python -m piper.http_server`) has no `/v1/audio/speech` and is not this kind.
"""

from __future__ import annotations

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class Piper(SynapseServer):
    """Adapter for `piper`."""

    capabilities = frozenset({Capability.SPEECH})
