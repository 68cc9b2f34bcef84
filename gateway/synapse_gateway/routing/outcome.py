"""What can happen to an attempt, and what the gateway does about it.

`RULES` is the failover table of the design, a row an outcome. The outcome of an attempt is known at
its end, not when its head arrives; before the caller has seen a byte everything here can be
followed by another attempt, afterwards nothing is (`RULES` of the mid-stream outcomes say so).
"""

from __future__ import annotations

import enum
from typing import NamedTuple


class Outcome(enum.StrEnum):
    """How an attempt ended; the values are metric labels and reasons in `x-synapse-fallback`."""

    OK = "ok"
    # connect
    REFUSED = "refused"
    RESET = "reset"
    CONNECT_TIMEOUT = "connect_timeout"
    DNS = "dns"
    TLS = "tls"
    # head
    THROTTLED = "throttled"
    SERVER_ERROR = "server_error"
    MISROUTED = "misrouted"
    CREDENTIALS = "credentials"
    NOT_SUPPORTED = "not_supported"
    CLIENT_ERROR = "client_error"
    CONTEXT_EXCEEDED = "context_exceeded"
    # before the first content
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"  # noqa: S105 - a reason, not a secret
    ERROR_FIRST = "error_first"
    EMPTY = "empty"
    MALFORMED = "malformed"
    # mid-stream
    CUT = "cut"
    STALLED = "stalled"
    MALFORMED_EVENT = "malformed_event"
    ERROR_EVENT = "error_event"
    # any time
    CALLER_LEFT = "caller_left"
    STOPPED = "stopped"
    DEADLINE = "deadline"


class Counts(enum.Enum):
    """What an outcome means for the target's breaker."""

    SUCCESS = "success"
    FAILURE = "failure"
    NEITHER = "neither"


class Rule(NamedTuple):
    """A row of the failover table."""

    next_target: bool
    """Whether another target is tried."""
    counts: Counts
    status: int = 502
    """What the caller gets when nothing is left to try."""
    nothing_sent: bool = False
    """Whether the backend cannot have worked on the request, so that the same one may be asked
    again even if it is the only one."""
    cools_down: bool = False
    """Whether the target is left alone for the time that it asked for."""
    mid_stream: bool = False
    """Whether the caller has seen a part of the answer."""


_FAILURE = Rule(next_target=True, counts=Counts.FAILURE)
_CONNECT = _FAILURE._replace(status=503, nothing_sent=True)
_MID_STREAM = Rule(next_target=False, counts=Counts.FAILURE, mid_stream=True)
_NEUTRAL = Rule(next_target=True, counts=Counts.NEITHER)

RULES: dict[Outcome, Rule] = {
    Outcome.OK: Rule(next_target=False, counts=Counts.SUCCESS, status=200),
    Outcome.REFUSED: _CONNECT,
    Outcome.RESET: _CONNECT,
    Outcome.CONNECT_TIMEOUT: _CONNECT._replace(status=504),
    Outcome.DNS: _CONNECT,
    Outcome.TLS: _CONNECT._replace(status=502),
    Outcome.THROTTLED: _NEUTRAL._replace(status=503, cools_down=True),
    Outcome.SERVER_ERROR: _FAILURE,
    Outcome.MISROUTED: _NEUTRAL._replace(status=404),
    Outcome.CREDENTIALS: _NEUTRAL,
    # 501 follows from what the caller asked of this model, so it must not open the breaker
    Outcome.NOT_SUPPORTED: _NEUTRAL._replace(status=400),
    Outcome.CLIENT_ERROR: Rule(next_target=False, counts=Counts.NEITHER, status=400),
    Outcome.CONTEXT_EXCEEDED: Rule(next_target=False, counts=Counts.NEITHER, status=400),
    Outcome.FIRST_TOKEN_TIMEOUT: _FAILURE._replace(status=504),
    Outcome.ERROR_FIRST: _FAILURE,
    Outcome.EMPTY: _FAILURE,
    Outcome.MALFORMED: _FAILURE,
    Outcome.CUT: _MID_STREAM,
    Outcome.STALLED: _MID_STREAM._replace(status=504),
    Outcome.MALFORMED_EVENT: _MID_STREAM,
    Outcome.ERROR_EVENT: _MID_STREAM,
    Outcome.CALLER_LEFT: Rule(next_target=False, counts=Counts.NEITHER, status=499),
    Outcome.STOPPED: Rule(next_target=False, counts=Counts.NEITHER, status=503),
    Outcome.DEADLINE: Rule(next_target=False, counts=Counts.NEITHER, status=504),
}


def of_status(status: int) -> Outcome:
    """Return what a response status alone says; an adapter may know better from the body."""
    if status < 300:
        return Outcome.OK
    if status < 400:
        # a redirect is no answer: the configured URL is not the one that serves
        return Outcome.MALFORMED
    if status >= 500:
        return Outcome.NOT_SUPPORTED if status == 501 else Outcome.SERVER_ERROR
    return _OF_STATUS.get(status, Outcome.CLIENT_ERROR)


_OF_STATUS = {
    401: Outcome.CREDENTIALS,
    403: Outcome.CREDENTIALS,
    404: Outcome.MISROUTED,
    429: Outcome.THROTTLED,
}
