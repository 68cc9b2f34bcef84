"""What the small servers of this repository (`backends/`) have in common.

Proven against: the servers themselves, started by the tests. Probe: `/health` (503 while the model
loads), `/v1/models`, `/metrics` with the requests in flight and those of them that wait, and
`/languages` of those that speak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from synapse_gateway.backends import answers
from synapse_gateway.backends.base import Capability, Probe
from synapse_gateway.backends.exposition import read_gauges
from synapse_gateway.backends.openai_compatible import OpenAICompatible

if TYPE_CHECKING:
    from synapse_gateway.backends.base import DiscoveredModel, Http, Reply

IN_FLIGHT = "synapse_backend_requests_in_flight"
"""Requests being answered or waiting."""
QUEUED = "synapse_backend_requests_queued"


class SynapseServer(OpenAICompatible):
    """Base of the adapters for our own servers."""

    capabilities = frozenset()
    health_path = "/health"

    async def describe(
        self, http: Http, reply: Reply, models: tuple[DiscoveredModel, ...] | None
    ) -> Probe:
        """Add the load, and what can be spoken."""
        found = await answers.ask_if_there(http, "/metrics")
        gauges = read_gauges(found.body, (IN_FLIGHT, QUEUED)) if found is not None else {}
        queued = int(gauges[QUEUED]) if QUEUED in gauges else None
        busy = int(gauges[IN_FLIGHT]) - (queued or 0) if IN_FLIGHT in gauges else None
        return Probe(
            up=True,
            status=reply.status,
            detail="ok",
            models=models,
            busy=None if busy is None else max(0, busy),
            waiting=queued,
            languages=await self._languages(http),
        )

    async def _languages(self, http: Http) -> tuple[tuple[str, str], ...]:
        if Capability.SPEECH not in self.capabilities:
            return ()
        found = await answers.ask_if_there(http, "/languages")
        listed = answers.items(answers.parse(found.body)) if found is not None else []
        pairs = ((answers.text(e.get("code")), answers.text(e.get("name"))) for e in listed)
        return tuple((code, name or code) for code, name in pairs if code)
