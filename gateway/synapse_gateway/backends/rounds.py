"""Lets replicas look at a backend in turns: whoever takes a round's lease probes and shares.

Two keys a backend, both of which end by themselves: the lease of the round, and the last result. A
replica that dies costs its round only. Names hold a digest of the backend's address and kind, so
that replicas with different configurations never share.
"""

from __future__ import annotations

import hashlib
import uuid
from typing import TYPE_CHECKING

import msgspec

from synapse_gateway.backends.base import Probe  # noqa: TC001 - msgspec reads it at run time
from synapse_gateway.shared_state import FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from synapse_gateway.config.settings import Backend
    from synapse_gateway.shared_state import SharedState

MAX_SHARED_BYTES = 1024 * 1024
"""Largest result that is shared; every replica looks for itself at a backend with a larger one."""
ROUND = 0.8
"""Length of a lease in probe intervals: shorter than one with its jitter, so none is skipped."""
KEPT = 3
"""Probe intervals that a result is kept."""


class _Result(msgspec.Struct, frozen=True):
    serial: str
    """Tells two results apart."""
    probe: Probe


class Rounds:
    """Rounds of looking that replicas share.

    Args:
        shared: Redis, and whether it works.
    """

    def __init__(self, shared: SharedState) -> None:
        self._shared = shared
        self._seen: dict[str, str] = {}

    async def look(
        self,
        name: str,
        config: Backend,
        probe: Callable[[], Awaitable[Probe]],
        *,
        urgent: bool,
    ) -> Probe | None:
        """Return the result of this round, by own probing or another's.

        Args:
            name: The backend's.
            config: Its settings.
            probe: Probes it.
            urgent: Probe whoever has the lease, and share it.

        Returns:
            The result; None if it is another replica's and was returned before.
        """
        key = _key(name, config)
        if not self._shared.up:
            return await probe()
        interval = int(config.probe_interval * 1000)
        if not urgent and not await self._lease(key, interval):
            found = await self._read(key)
            if found is not None:
                fresh = self._seen.get(key) != found.serial
                self._seen[key] = found.serial
                return found.probe if fresh else None
        result = _Result(uuid.uuid4().hex, await probe())
        self._seen[key] = result.serial
        await self._write(key, result, interval)
        return result.probe

    async def _lease(self, key: str, interval: int) -> bool:
        length = max(1, int(interval * ROUND))
        try:
            return bool(await self._shared.client.set(f"{key}:lease", b"1", nx=True, px=length))
        except FAILURES as error:
            self._shared.failed(error)
            return True

    async def _read(self, key: str) -> _Result | None:
        try:
            found = await self._shared.client.get(f"{key}:result")
            return None if found is None else _decode(found)
        except FAILURES as error:
            self._shared.failed(error)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # of another version, or not ours
        return None

    async def _write(self, key: str, result: _Result, interval: int) -> None:
        data = msgspec.json.encode(result)
        if len(data) > MAX_SHARED_BYTES or not self._shared.up:
            return
        try:
            await self._shared.client.set(f"{key}:result", data, px=KEPT * max(1, interval))
        except FAILURES as error:
            self._shared.failed(error)


_decode = msgspec.json.Decoder(_Result).decode


def _key(name: str, config: Backend) -> str:
    told = f"{name}\0{config.url}\0{config.type}\0{config.health}"
    return f"synapse:probe:{hashlib.blake2b(told.encode(), digest_size=12).hexdigest()}"
