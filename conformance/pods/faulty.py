"""Stands in an engine's place and is wrong in one way, as it is told.

    faulty.py PORT FAULT MODEL ...

Its probes find it well; what generates text meets the fault: `hang` sends the head of an answer and
nothing more, `cut` a few words and then the end of the connection. It runs in the gateway's image,
whose test tools it uses.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from synapse_gateway.testing import FaultyUpstream, scripts
from synapse_gateway.testing.answers import compact

if TYPE_CHECKING:
    from synapse_gateway.testing import Request
    from synapse_gateway.testing.scripts import Script

FAULTS = {"hang": scripts.head_only(), "cut": scripts.broken(after=2)}


async def main(port: int, fault: str, *models: str) -> None:
    """Serve for ever."""
    tags = {"models": [{"name": name, "model": name} for name in models]}
    known = {
        "/v1/models": scripts.models(*models),
        "/api/tags": scripts.probe(compact(tags).encode()),
        "/slots": scripts.probe(b"[]"),
    }

    def choose(request: Request) -> Script:
        if request.method == "GET":
            return known.get(request.path, scripts.probe(b"{}"))
        return FAULTS[fault]

    upstream = FaultyUpstream(host="0.0.0.0")  # noqa: S104 - a pod's
    upstream.port = port
    upstream.probes.clear()
    async with upstream:
        upstream.when(choose)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], *sys.argv[3:]))
