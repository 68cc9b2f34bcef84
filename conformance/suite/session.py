"""The deployment that a run looks at."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import httpx
import pytest

from conformance.suite.gateway import Gateway
from conformance.suite.lines import NotLookedAt

if TYPE_CHECKING:
    from conformance.suite.options import Options


class Session:
    """What was found at the addresses that the options name.

    Args:
        options: The run's options.
    """

    def __init__(self, options: Options) -> None:
        self.options = options

    @functools.cached_property
    def gateway(self) -> Gateway:
        """The gateway.

        Raises:
            pytest.UsageError: Nothing answers there.
        """
        if not self.options.gateway_url:
            raise NotLookedAt("no --gateway-url")
        gateway = Gateway(self.options.gateway_url, self.options.api_key)
        try:
            answer = gateway.http.get("/health", timeout=20)
        except httpx.HTTPError as error:
            raise pytest.UsageError(f"no gateway answers at {gateway.url}: {error}") from None
        if answer.status_code != 200:
            raise pytest.UsageError(
                f"{gateway.url}/health answers {answer.status_code}: is this a Synapse gateway?"
            )
        return gateway

    def check(self) -> None:
        """See that there is something to look at.

        Raises:
            pytest.UsageError: There is not.
        """
        if self.options.gateway_url:
            _ = self.gateway

    def facts(self) -> list[tuple[str, str]]:
        """What heads a report."""
        facts = [("gateway", self.gateway.url)]
        facts += [("version", str(self.gateway.health.get("version", "unknown")))]
        facts += [("configuration", self.gateway.config_hash()[:12] or "unknown")]
        names = [model["id"] for model in self.gateway.models]
        facts += [("models", ", ".join(names) or "none")]
        backends = self.gateway.health.get("backends", {})
        facts += [("backends", ", ".join(f"{n} ({b.get('type')})" for n, b in backends.items()))]
        facts += [("disruptive", "yes" if self.options.disruptive else "no")]
        return facts

    def close(self) -> None:
        """Let go of everything."""
        if "gateway" in self.__dict__:
            self.gateway.close()
