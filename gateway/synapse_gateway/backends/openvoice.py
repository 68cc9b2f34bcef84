"""The voice-cloning server `backends/openvoice`.

Probed like our other servers (see `synapse_server`); it is reached by routes (`/tts/*`), not by a
model's name, apart from `/v1/audio/speech`.
"""

from __future__ import annotations

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class OpenVoice(SynapseServer):
    """Adapter for `openvoice`."""

    capabilities = frozenset({Capability.SPEECH})
