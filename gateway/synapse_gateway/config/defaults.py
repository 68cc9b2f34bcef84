"""Deadlines that hold where neither the model or route nor the backend names one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from synapse_gateway.config.settings import Device, Service

if TYPE_CHECKING:
    from synapse_gateway.config.settings import Timeouts

CONNECT = 5.0
"""Seconds until a connection stands; generous within a cluster, short beside a failover."""
FIRST_TOKEN = 60.0
FIRST_TOKEN_LOADING = 120.0
"""On a CPU backend, which may have to read the model from disk first."""
BETWEEN_TOKENS = 30.0
OVERALL: dict[Service, float] = {
    Service.LLM: 300.0,
    Service.TTS: 120.0,
    Service.STT: 120.0,
    Service.SPEAKER: 120.0,
    Service.AUDIO: 60.0,
    Service.EMBEDDINGS: 60.0,
    Service.OTHER: 60.0,
}


class ResolvedTimeouts(msgspec.Struct, frozen=True):
    """The deadlines of one attempt, all in seconds."""

    connect: float
    first_token: float
    first_byte: float
    between_tokens: float
    overall: float


def effective_timeouts(
    service: Service, device: Device | None, *overrides: Timeouts
) -> ResolvedTimeouts:
    """Return the deadlines of a request on one target.

    Args:
        service: What the request asks for.
        device: Where the backend computes, if that is known.
        overrides: What the configuration says, the most specific first: the model's or the
            route's, then the backend's.

    Returns:
        Seconds each. The first three are never longer than `overall`.
    """
    loading = device is Device.CPU
    values = {
        "connect": CONNECT,
        "first_token": FIRST_TOKEN_LOADING if loading else FIRST_TOKEN,
        "between_tokens": BETWEEN_TOKENS,
        "overall": OVERALL[service],
    }
    for override in reversed(overrides):
        for name in ResolvedTimeouts.__struct_fields__:
            value = getattr(override, name)
            if value is not UNSET:
                values[name] = value
    overall = values["overall"]
    # half of it, so that there is time for another target
    values.setdefault("first_byte", overall / 2)
    return ResolvedTimeouts(**{name: min(value, overall) for name, value in values.items()})
