"""The voice-cloning server `backends/openvoice`.

Probed like our other servers (see `synapse_server`). It keeps the voices that it was sent in a
cache, under the digest of their recordings, and says `voice_not_found` of one that is not there
(any more).
"""

from __future__ import annotations

from typing import ClassVar

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class OpenVoice(SynapseServer):
    """Adapter for `openvoice`."""

    capabilities = frozenset({Capability.SPEECH, Capability.CLONING, Capability.INTERPOLATION})
    paths: ClassVar = {"/tts/interpolate": "/interpolate"}
