"""Public test tools: an upstream that fails as it is told, and a client that hides nothing."""

from synapse_gateway.testing.faulty_upstream import Connection, FaultyUpstream, Request

__all__ = ["Connection", "FaultyUpstream", "Request"]
