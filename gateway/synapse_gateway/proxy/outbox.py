"""What a turn of the event loop writes, written together at its end.

Writing a few hundred bytes wakes whoever waits for them at the other end, and that costs more than
all else about the write. Of many writes in a row only the first pays for it: the others find the
other end awake. So what the callbacks of a turn have to say is kept until all of them have run,
or until it is many.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_log = logging.getLogger(__name__)
BATCH = 64
"""Writes that are kept at most: nobody waits for longer than the callbacks of so many take."""


class Outbox:
    """Keeps writes until the end of the turn; those to one transport stay in order.

    Whoever closes a transport, or writes to it himself, calls `flush` first. What another turn of
    the loop does (a task, for one) comes after the flush of this one anyway.

    Args:
        call_soon: Calls a function when the callbacks of this turn have run.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._kept: list[tuple[asyncio.WriteTransport, bytes | list[bytes]]] = []
        self.turn = 0
        """Number of flushes so far: what was posted in this turn is not yet written."""

    def post(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write this soon, unless the transport is closed before."""
        kept = self._kept
        if not kept:
            self._call_soon(self.flush)
        elif kept[-1][0] is transport:
            before = kept[-1][1]
            if isinstance(before, list):
                before.append(data)
            else:
                kept[-1] = (transport, [before, data])
            return
        elif len(kept) >= BATCH:
            self.flush()
            kept = self._kept
        kept.append((transport, data))

    def flush(self) -> None:
        """Write what is kept."""
        self.turn += 1
        kept, self._kept = self._kept, []
        for transport, data in kept:
            if transport.is_closing():
                continue
            try:
                if isinstance(data, list):
                    transport.writelines(data)
                else:
                    transport.write(data)
            except Exception:  # noqa: BLE001 - whatever it is
                # one that cannot be written to must not cost the others their bytes
                _log.exception("could not write to %r", transport)
