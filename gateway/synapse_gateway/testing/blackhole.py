"""An address at which connecting neither succeeds nor fails."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from typing import Self


class Blackhole:
    """A listening socket whose queue of connections is full, so that the kernel drops what comes.

    Attributes:
        url: Where nothing happens.
    """

    def __init__(self) -> None:
        self._sockets = ExitStack()
        self.url = ""

    def __enter__(self) -> Self:
        """Fill the queue."""
        listener = self._socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(8):
            filler = self._socket()
            filler.setblocking(False)
            filler.connect_ex(address)
        self.url = f"http://127.0.0.1:{address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._sockets.close()

    def _socket(self) -> socket.socket:
        return self._sockets.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
