"""What is known of one request: filled while it is served, read once when it has ended.

The hot path only assigns to these fields; metrics, access log and traces are all made from a
finished record. Times are `time.monotonic()` seconds unless they say otherwise; 0.0 is "never".
"""

from __future__ import annotations

import msgspec


class AttemptRecord(msgspec.Struct):
    """One attempt of a request on one target."""

    backend: str
    model: str
    """Name of the model in the route table."""
    order: int
    started: float
    """When the request was handed to the upstream connection."""
    head: float = 0.0
    first_content: float = 0.0
    last_byte: float = 0.0
    """When the last bytes of the answer arrived."""
    ended: float = 0.0
    status: int = 0
    """HTTP status of the backend; 0 if there was no head."""
    outcome: str = ""
    """Value of `routing.outcome.Outcome`."""
    reused: bool = False
    """Whether an idle connection served it."""
    span_id: int = 0
    """64 bits, allotted when the trace context for the backend is asked for."""


class RequestRecord(msgspec.Struct):
    """One request, from its last received byte to its last sent one."""

    id: str
    method: str
    route: str
    """Path template, for example `/v1/chat/completions`; a bounded set."""
    started: float
    started_unix: float
    """Wall-clock seconds since the epoch."""
    client: str = ""
    caller: str = ""
    """Name of the key, `anonymous`, or empty before it is known."""
    model_asked: str = ""
    """As the caller wrote it, cut to 200 characters; for the log, never for a metric."""
    model: str = ""
    """Name in the route table, or empty when it is in none."""
    stream: bool = False
    status: int = 0
    error: str = ""
    """`code` of the error object that the gateway answered with, if it did."""
    queued: float = 0.0
    """Seconds in the queue."""
    overhead: float = 0.0
    """Seconds that the gateway itself spent: before the first attempt's request was written (queue
    apart), and from the backend's last byte to the caller's."""
    first_content: float = 0.0
    """When the first real content was written to the caller."""
    ended: float = 0.0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_estimated: bool = False
    """Whether `tokens_out` counts content events, for want of the backend's usage."""
    bytes_in: int = 0
    bytes_out: int = 0
    fallback: str = ""
    """Why another than the first choice answered; empty if it did not."""
    cut: str = ""
    """Why a stream ended early; empty if it did not."""
    disconnected: bool = False
    """Whether the caller went away before the end."""
    auto_rule: str = ""
    """Rule of automatic choice that named the model."""
    path: str = ""
    """What was asked for where there is no such route; for the log."""
    traceparent: str = ""
    """W3C trace context that the caller sent."""
    trace_id: int = 0
    """128 bits, allotted together with `span_id` while traces are exported."""
    span_id: int = 0
    """64 bits, of the span of the request."""
    parent_id: int = 0
    """64 bits, of the caller's span; 0 if he sent none."""
    sampled: bool = False
    """Whether its spans are exported."""
    attempts: list[AttemptRecord] = []

    @property
    def code(self) -> int:
        """The status, or 499 (nginx' number for it) if the caller left before there was one."""
        if not self.status and self.disconnected:
            return 499
        return self.status
