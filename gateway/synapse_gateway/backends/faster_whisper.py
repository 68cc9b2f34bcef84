"""A faster-whisper server: `backends/whisper-stt`, and others with the same OpenAI routes.

Proven against: `backends/whisper-stt` (see `synapse_server`).
"""

from __future__ import annotations

from typing import ClassVar

from synapse_gateway.backends.base import Capability
from synapse_gateway.backends.synapse_server import SynapseServer


class FasterWhisper(SynapseServer):
    """Adapter for `faster-whisper`."""

    capabilities = frozenset(
        {Capability.TRANSCRIPTIONS, Capability.TRANSLATIONS, Capability.TRANSCRIBE}
    )
    paths: ClassVar = {
        "/stt/transcribe": "/transcribe",
        "/stt/detect-language": "/detect-language",
        "/stt/stream": "/stream",
    }
