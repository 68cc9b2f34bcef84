"""Where a finished request goes: metrics, access log, traces. None of them can hurt the others."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from synapse_gateway.config.settings import Settings
    from synapse_gateway.telemetry.logs import AccessLog
    from synapse_gateway.telemetry.metrics import Metrics
    from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord

_log = logging.getLogger(__name__)


class Tracer(Protocol):
    """Makes spans of finished requests, and the trace context for backends."""

    def outgoing_traceparent(self, record: RequestRecord, attempt: AttemptRecord) -> bytes:
        """Return the `traceparent` of an attempt that is about to be sent; empty for none."""
        ...

    def finished(self, record: RequestRecord) -> None:
        """Export a request."""
        ...

    def configured(self, settings: Settings) -> None:
        """Take note of a new configuration."""
        ...


def _at_once(function: Callable[[], None]) -> None:
    function()


class Telemetry:
    """Takes every finished request."""

    def __init__(
        self,
        metrics: Metrics,
        access: AccessLog | None = None,
        tracer: Tracer | None = None,
        call_soon: Callable[[Callable[[], None]], object] = _at_once,
    ) -> None:
        """Build one.

        Args:
            metrics: The metrics.
            access: The access log, if requests are logged.
            tracer: The exporter of traces, if there is one.
            call_soon: Calls a function when others have been served who wait.
        """
        self.metrics = metrics
        self._call_soon = call_soon
        self._records: list[RequestRecord] = []
        self._tracer = tracer
        self._receivers: Sequence[Callable[[RequestRecord], None]] = [
            metrics.request_finished,
            # Before the log, which names the trace.
            *([tracer.finished] if tracer else []),
            *([access.finished] if access else []),
        ]
        self._receivers_of_others = [
            metrics.other_finished,
            *([access.finished] if access else []),
        ]
        self._failed: set[str] = set()

    def configured(
        self,
        settings: Settings,
        targets: Iterable[tuple[str, str]],
        keys: Container[str] = (),
    ) -> None:
        """Take note of a new route table.

        Args:
            settings: The configuration that it was made from.
            targets: Backend and model of each target, the model by its name in the table.
            keys: Names of all keys.
        """
        self.metrics.configured(settings.backends, targets, keys)
        if self._tracer is not None:
            self._tracer.configured(settings)

    def finished(self, record: RequestRecord) -> None:
        """Account for a request that has ended, soon."""
        self._records.append(record)
        if len(self._records) == 1:
            self._call_soon(self.account)

    def other(self, record: RequestRecord) -> None:
        """Account for a request that asked nothing of a model: it says nothing of how they serve.

        It is counted apart and not traced.
        """
        for receive in self._receivers_of_others:
            self._give(receive, record)

    def account(self) -> None:
        """Account for what has ended; never raises.

        All at once: the code of each receiver is then warm for all but the first.
        """
        records, self._records = self._records, []
        for receive in self._receivers:
            for record in records:
                self._give(receive, record)

    def _give(self, receive: Callable[[RequestRecord], None], record: RequestRecord) -> None:
        try:
            receive(record)
        except Exception:  # noqa: BLE001 - the answer has been given; say so, and go on
            self._say_once(receive)

    def outgoing_traceparent(self, record: RequestRecord, attempt: AttemptRecord) -> bytes:
        """Return the W3C `traceparent` to send with an attempt; empty where there is none.

        Without an exporter the caller's own is passed on, as by a proxy that takes no part.
        """
        if self._tracer is None:
            return record.traceparent.encode("latin-1", "ignore")
        return self._tracer.outgoing_traceparent(record, attempt)

    def _say_once(self, receive: Callable[[RequestRecord], None]) -> None:
        name = getattr(receive, "__qualname__", "telemetry")
        if name not in self._failed:
            self._failed.add(name)
            _log.exception("%s failed for a request; further failures are not logged", name)
