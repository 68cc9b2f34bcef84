"""Who calls, and how much he may use."""

from synapse_gateway.auth.keys import ANONYMOUS, Caller, KeyRing, check_exposure
from synapse_gateway.auth.limits import Limiter, LocalLimiter

__all__ = ["ANONYMOUS", "Caller", "KeyRing", "Limiter", "LocalLimiter", "check_exposure"]
