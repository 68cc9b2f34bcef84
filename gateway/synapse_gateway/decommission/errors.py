"""What `synapse decommission` can fail of.

SynapseError
└── DecommissionError    a sentence for whoever runs the command
    ├── KubeError        the API server refused, or is not to be reached
    └── Refusal          going on would lose something, or undo somebody else's change
"""

from __future__ import annotations

from synapse_gateway.errors import SynapseError


class DecommissionError(SynapseError):
    """Base of the errors of this room; the text is a sentence."""


class KubeError(DecommissionError):
    """The API server refused a request, or did not answer it.

    Attributes:
        status: HTTP status; 0 where there was no answer.
        reason: `reason` of the Status object (such as "Conflict" or "NotFound"), or empty.
    """

    def __init__(self, message: str, *, status: int = 0, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Refusal(DecommissionError):
    """Nothing was done, because it would harm; the text says what would help."""
