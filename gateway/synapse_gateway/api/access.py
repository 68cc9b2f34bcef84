"""What a route that is not hot meets: who calls, his limits, the account of it."""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request, Response

from synapse_gateway.api.errors import render
from synapse_gateway.api.records import new_record
from synapse_gateway.auth.keys import Caller
from synapse_gateway.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from synapse_gateway.api.gateway import Gateway

_log = logging.getLogger(__name__)

UNKNOWN_ROUTE = "other"
"""Label of paths that there are not."""
QUIET = frozenset({"/health", "/livez", "/readyz", "/metrics"})
"""Asked every few seconds by machines: neither logged nor counted."""


async def caller_of(request: Request) -> Caller:
    """Return the caller by the key that the request holds.

    Raises:
        Unauthorized: It holds none that is known.
        RateLimited: The key has made all requests that it may.
    """
    gateway: Gateway = request.app.state.gateway
    return await gateway.admit_reader(dict(request.headers.raw), request.state.record)


CallerOf = Annotated[Caller, Depends(caller_of)]


def error_response(error: RequestError, path: str) -> Response:
    """Return an error as an answer."""
    status, headers, body = render(error, path)
    return Response(
        body, status, {name.decode(): value.decode("latin-1") for name, value in headers}
    )


class Account:
    """Logs and counts each request, and names it to its caller (ASGI middleware).

    HEAD is GET whose body the server leaves out (RFC 9110, 9.3.2).

    Args:
        app: Serves the requests.
        gateway: Whose account it is.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}
        record = new_record(method, "", dict(scope["headers"]), scope["client"])
        scope["state"]["record"] = record

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                message["headers"].append((b"x-request-id", record.id.encode()))
            else:
                record.bytes_out += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception:
            if record.status:
                raise  # which breaks the answer off
            _log.exception("request %s failed", record.id)
            record.error = "internal_error"
            failed = RequestError("The gateway failed.", code="internal")
            await error_response(failed, scope["path"])(scope, receive, note)
        finally:
            record.ended = monotonic()
            if scope["path"] not in QUIET:
                route = scope.get("route")
                record.route = route.path if route is not None else UNKNOWN_ROUTE
                record.path = "" if route is not None else scope["path"][:200]
                self._gateway.telemetry.other(record)
