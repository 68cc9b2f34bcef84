"""What is known of every backend and target right now.

These objects live as long as the process: a new route table refers to the same ones, so that
breakers, cool-downs and counts survive a reload.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from synapse_gateway.config.settings import Device
from synapse_gateway.routing.breaker import Breaker
from synapse_gateway.routing.outcome import RULES, Counts, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from synapse_gateway.backends.base import Adapter, DiscoveredModel, Probe
    from synapse_gateway.backends.downloads import Download
    from synapse_gateway.config import settings

THROTTLE_BACKOFF = 5.0
"""Seconds that a target cools down when its 429 names no time."""
MAX_COOL_DOWN = 300.0
"""Seconds that a backend's Retry-After can silence it at most."""


class BackendState:
    """A backend: its settings, and what probes and traffic tell of it."""

    __slots__ = (
        "adapter",
        "asleep",
        "config",
        "detail",
        "in_flight",
        "languages",
        "models",
        "name",
        "others",
        "slots",
        "status",
        "up",
        "version",
        "voices",
        "waiting",
    )

    def __init__(self, name: str, config: settings.Backend, adapter: Adapter) -> None:
        self.name = name
        self.config = config
        self.adapter = adapter
        self.up: bool | None = None
        self.status = 0
        self.detail = "not probed yet"
        self.asleep = False
        self.others = 0
        self.waiting: int | None = None
        self.slots: int | None = config.slots
        self.version = ""
        self.in_flight = 0
        self.models: dict[str, DiscoveredModel] = {}
        self.languages: tuple[tuple[str, str], ...] = ()
        self.voices: tuple[str, ...] = ()

    def is_at(self, config: settings.Backend) -> bool:
        """Say whether these settings are of the same server, so that what is known of it holds."""
        return self.config.url == config.url and self.config.type is config.type

    def configure(self, config: settings.Backend) -> None:
        """Go on with other settings of the same server."""
        if config.slots is not None or self.config.slots is not None:
            # what the engine itself has is told by the next probe
            self.slots = config.slots
        self.config = config

    def overloaded(self, model: str) -> bool:
        """Say whether others should be asked first, by our own count and the engine's figures."""
        slots = self.slots
        if slots is not None and self.in_flight + self.others >= slots:
            return True
        if self.waiting is not None and self.waiting > self.config.max_waiting:
            return True
        if self.config.device is Device.GPU:
            known = self.known(model)
            if known is not None and known.size is not None and known.size_vram is not None:
                return known.size_vram < known.size
        return False

    def known(self, model: str) -> DiscoveredModel | None:
        """Return what the backend says of a model; Ollama lists one without a tag as `:latest`."""
        return self.models.get(model) or self.models.get(f"{model}:latest")

    def report(self, probe: Probe) -> None:
        """Take over what a probe saw."""
        self.up = probe.up
        self.status = probe.status
        self.detail = probe.detail
        self.asleep = probe.asleep
        # what the engine computed beyond our own requests is for other callers of it
        self.others = max(0, probe.busy - self.in_flight) if probe.busy is not None else 0
        self.waiting = probe.waiting
        self.version = probe.version or self.version
        self.languages = probe.languages or self.languages
        self.voices = probe.voices or self.voices
        if self.config.slots is None and probe.slots is not None:
            self.slots = probe.slots
        if probe.models is not None:
            self.models = {model.id: model for model in probe.models}


class TargetState:
    """A model at a backend: breaker, cool-down, and requests under way."""

    __slots__ = ("backend", "breaker", "cooling_until", "identity", "in_flight", "model")

    def __init__(self, backend: BackendState, model: str, breaker: Breaker) -> None:
        self.backend = backend
        self.model = model
        """Name at the backend; empty where the caller's own name is passed on."""
        self.breaker = breaker
        self.cooling_until = 0.0
        digest = hashlib.blake2b(f"{backend.name}\0{model}".encode(), digest_size=8).digest()
        self.identity = int.from_bytes(digest, "big")
        """Stable number for hashing, the same in every replica."""
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<{self.backend.name}/{self.model or '*'} {self.breaker.state.name.lower()}>"

    def start(self) -> bool:
        """Note that a request is being sent; True if it is the breaker's probe."""
        self.in_flight += 1
        self.backend.in_flight += 1
        return self.breaker.take()

    def end(
        self,
        outcome: Outcome,
        now: float,
        retry_after: float | None = None,
        *,
        probe: bool = False,
    ) -> None:
        """Note how it ended.

        Args:
            outcome: What happened.
            now: Monotonic seconds.
            retry_after: Seconds that the backend asked to be left alone.
            probe: What `start` returned.
        """
        self.in_flight -= 1
        self.backend.in_flight -= 1
        rule = RULES[outcome]
        self.breaker.settle(rule.counts, now, probe=probe)
        if rule.cools_down:
            asked = THROTTLE_BACKOFF if retry_after is None else retry_after
            self.cooling_until = now + min(asked, MAX_COOL_DOWN)
        if rule.counts is Counts.SUCCESS:
            self.backend.up = True


class Fleet:
    """All backends and targets by name."""

    def __init__(self) -> None:
        self.backends: dict[str, BackendState] = {}
        self.downloads: dict[str, dict[str, Download]] = {}
        """Weights on their way to backends, by the model's name; for people."""
        self._targets: dict[tuple[str, str], TargetState] = {}

    def take_downloads(self, found: dict[str, dict[str, Download]]) -> None:
        """Take over what is being downloaded now."""
        self.downloads = found

    def adopt(self, backends: dict[str, BackendState]) -> None:
        """Replace the set of backends; targets of those that are gone go with them."""
        self.backends = backends
        self._targets = {
            key: target
            for key, target in self._targets.items()
            if backends.get(key[0]) is target.backend
        }

    def target(self, backend: BackendState, model: str, breaker: settings.Breaker) -> TargetState:
        """Return the target's state, made when it is asked for first."""
        state = self._targets.get((backend.name, model))
        if state is None or state.backend is not backend:
            state = TargetState(backend, model, Breaker(breaker.failures, breaker.cool_down))
            self._targets[backend.name, model] = state
        state.breaker.failures = breaker.failures
        state.breaker.cool_down = breaker.cool_down
        return state

    def targets(self) -> Iterator[TargetState]:
        """Iterate over all targets."""
        return iter(self._targets.values())

    def report(self, name: str, probe: Probe) -> bool:
        """Take over a probe; True if the backend's set of models has changed."""
        backend = self.backends.get(name)
        if backend is None:
            return False
        before = backend.models.keys()
        backend.report(probe)
        return before != backend.models.keys()
