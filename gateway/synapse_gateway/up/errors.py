"""Why `synapse up` did not work, in sentences for the person who typed it."""

from __future__ import annotations

from synapse_gateway.errors import SynapseError


class UpError(SynapseError):
    """The message says what is wrong and what to do about it."""
