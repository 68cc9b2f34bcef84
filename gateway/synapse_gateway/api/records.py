"""The record of a request, as it begins."""

from __future__ import annotations

import random
import re
import time
from time import monotonic
from typing import TYPE_CHECKING

from synapse_gateway.telemetry.record import RequestRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

_GOOD_ID = re.compile(rb"[A-Za-z0-9_.:-]{1,128}")
_GOOD_TRACE = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def new_record(
    method: str, route: str, headers: Mapping[bytes, bytes], client: tuple[str, int] | None
) -> RequestRecord:
    """Return the record of a request that has just arrived.

    Args:
        method: HTTP method.
        route: Path template.
        headers: By name in lower case; the caller may name the request and its trace.
        client: The caller's address.
    """
    given = headers.get(b"x-request-id")
    if given is not None and _GOOD_ID.fullmatch(given):
        identity = given.decode("ascii")
    else:
        identity = f"{random.getrandbits(96):024x}"
    trace = headers.get(b"traceparent", b"")
    return RequestRecord(
        id=identity,
        method=method,
        route=route,
        started=monotonic(),
        started_unix=time.time(),
        client=client[0] if client else "",
        traceparent=trace.decode("ascii") if _GOOD_TRACE.fullmatch(trace) else "",
    )
