"""What happens to a request before its route is called."""

import time
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .admission import Admission
from .errors import MediaTooLarge, Overloaded, Unavailable, body_of
from .metrics import Metrics

if TYPE_CHECKING:
    from .app import State


# What may carry a body to be read and worked on.
_BOUNDED = {"POST", "PUT", "PATCH"}


class Gate:
    """ASGI middleware: counts, bounds the body's bytes, and lets in only as many as fit.

    Only requests with a body are bounded in number: health and metrics answer under any load.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, admission: Admission, state: "State", limit: int
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._admission = admission
        self._state = state
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request (ASGI 3)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 499  # nothing was sent: the caller left

        async def counting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["method"] in _BOUNDED:
                with self._metrics.in_flight.track_inprogress():
                    await self._bounded(scope, receive, counting_send)
            else:
                await self._app(scope, receive, counting_send)
        finally:
            route = _route_of(scope)
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.duration.labels(route).observe(time.perf_counter() - begun)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
        except (MediaTooLarge, Overloaded, Unavailable) as error:
            response = JSONResponse(body_of(error), error.status_code, headers=error.headers)
            await response(scope, receive, send)
            return
        try:
            await self._app(scope, self._counting(receive), send)
        finally:
            self._admission.leave()

    def _admit(self, scope: Scope) -> None:
        """Take a place, unless the request must not come in."""
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > self._limit:
                raise self._too_large()
        if self._state.status != "ok":
            raise Unavailable(self._state.reason)
        self._admission.enter()

    def _too_large(self) -> MediaTooLarge:
        return MediaTooLarge(
            f"the request body is larger than {self._limit} bytes", code="request_too_large"
        )

    def _counting(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                raise self._too_large()
            return message

        return counted


def _route_of(scope: Scope) -> str:
    """The route's template, never the path that a caller made up."""
    route: Any = scope.get("route")
    return getattr(route, "path", None) or "other"
