"""The caller's side of an exchange, as the proxy sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from synapse_gateway.proxy.connection import Headers


class Caller(Protocol):
    """Takes an answer in parts or whole; never called again after an ending."""

    @property
    def gone(self) -> bool:
        """Whether nobody will read what is written."""
        ...

    def start(self, status: int, headers: Headers, length: int | None, first: bytes) -> None:
        """Send the head and the first bytes of the body.

        Args:
            status: HTTP status.
            headers: Without length and transfer coding.
            length: Bytes of the whole body; None sends it chunked.
            first: Bytes that are sent with the head.
        """

    def write(self, data: bytes) -> None:
        """Send bytes of the body as a chunk of their own."""

    def pass_on(self, raw: bytes, chunks: list[bytes]) -> None:
        """Send bytes of the body in the chunks that they came in.

        Args:
            raw: The chunks with their framing (RFC 9112, 7.1).
            chunks: What is in them.
        """

    def sender(self) -> Callable[[bytes], None] | None:
        """Return what sends bytes of the body that have the framing of chunks already; None if this
        caller gets no chunks. Asked for when the answer has begun.
        """

    def finish(self) -> None:
        """End the body properly."""

    def break_off(self) -> None:
        """End the body so that it cannot be taken for a whole one."""

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a whole answer."""

    def on_flow(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """Say whom to tell that the caller reads slower than it is written to, and that he has
        caught up.
        """
