"""The LiteLLM proxy.

Proven against: LiteLLM 1.106.2 in front of llama.cpp, without a database; its answers are kept in
`gateway/tests/exchanges/litellm/` (made by `record_probes.py` there).

Probe: `/health/liveliness` and `/v1/models`. Its `/health` is NOT probed: it calls every model. It
answers an unknown model with 400, and, without a database, a wrong key with 400 and no key with a
plain 500.
"""

from __future__ import annotations

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Refusal
from synapse_gateway.backends.openai_compatible import (
    AUDIO,
    PASSED_THROUGH,
    TEXT,
    OpenAICompatible,
)


class Litellm(OpenAICompatible):
    """Adapter for `litellm`."""

    capabilities = TEXT | AUDIO | PASSED_THROUGH
    health_path = "/health/liveliness"
    context_phrases = ("contextwindowexceedederror",)
    missing_phrases = ("invalid model name passed in",)

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        """Say what an error answer means; a key that needs a database is a refused key."""
        if answers.error_of(body).kind in ("no_db_connection", "auth_error"):
            return Refusal.CREDENTIALS
        return super().refusal(status, body)
