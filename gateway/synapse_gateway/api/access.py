"""Who calls a route that is not hot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from synapse_gateway.auth.keys import Caller

if TYPE_CHECKING:
    from synapse_gateway.api.gateway import Gateway


def caller_of(request: Request) -> Caller:
    """Return the caller by the key that the request holds.

    Raises:
        Unauthorized: It holds none that is known.
    """
    gateway: Gateway = request.app.state.gateway
    headers = dict(request.headers.raw)
    return gateway.state.ring.authenticate(headers.get(b"authorization"), headers.get(b"x-api-key"))


CallerOf = Annotated[Caller, Depends(caller_of)]
