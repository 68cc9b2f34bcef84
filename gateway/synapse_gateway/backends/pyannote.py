"""The speaker server `backends/pyannote-speaker`.

Probed like our other servers (see `synapse_server`); it is reached by routes (`/speakers/*`), not
by a model's name.
"""

from __future__ import annotations

from typing import ClassVar

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class Pyannote(SynapseServer):
    """Adapter for `pyannote`."""

    capabilities = frozenset({Capability.DIARIZATION, Capability.VERIFICATION})
    paths: ClassVar = {"/speakers/diarize": "/diarize", "/speakers/verify": "/verify"}
