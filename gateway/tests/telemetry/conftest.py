"""Finished requests, as the hot path hands them over."""

from __future__ import annotations

from typing import Any

import pytest

from synapse_gateway.telemetry.record import AttemptRecord, RequestRecord


class Records:
    """Makes records that differ from a good streamed chat in what a test names."""

    started = 1000.0
    started_unix = 1_800_000_000.0

    def attempt(self, **changes: Any) -> AttemptRecord:
        values: dict[str, Any] = {
            "backend": "vllm",
            "model": "llama3.1",
            "order": 1,
            "started": 1000.5,
            "head": 1000.6,
            "first_content": 1000.75,
            "ended": 1002.75,
            "status": 200,
            "outcome": "ok",
        }
        return AttemptRecord(**(values | changes))

    def request(self, **changes: Any) -> RequestRecord:
        values: dict[str, Any] = {
            "id": "0193c6f0-7b1d-7d4e-9f1a-0123456789ab",
            "method": "POST",
            "route": "/v1/chat/completions",
            "started": self.started,
            "started_unix": self.started_unix,
            "client": "192.0.2.7",
            "caller": "app",
            "model_asked": "llama3.1",
            "model": "llama3.1",
            "stream": True,
            "status": 200,
            "queued": 0.25,
            "overhead": 0.0005,
            "first_content": 1000.75,
            "ended": 1002.75,
            "tokens_in": 12,
            "tokens_out": 41,
            "bytes_in": 300,
            "bytes_out": 5000,
        }
        if "attempts" not in changes:
            values["attempts"] = [self.attempt()]
        return RequestRecord(**(values | changes))


@pytest.fixture
def records() -> Records:
    return Records()
