"""TCP ports of this machine."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
_HIGHEST = 65535


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose(count: int, first: int, *, taken: frozenset[int] = frozenset()) -> list[int]:
    """Return `count` free ports, the lowest from `first` on.

    They stay the same over a restart of what listens there, so they are not taken from the range
    that the kernel hands to outgoing connections: one of those could sit on the port meanwhile.

    Args:
        count: How many.
        first: Where to begin.
        taken: Ports not to use though they are free.

    Raises:
        LookupError: There are not so many.
    """
    found: list[int] = []
    for port in range(first, _HIGHEST + 1):
        if len(found) == count:
            break
        if port not in taken and is_free(port):
            found.append(port)
    if len(found) < count:
        raise LookupError(f"there are no {count} free ports from {first} on")
    return found
