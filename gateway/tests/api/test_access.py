"""The account of requests that no model has to work for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_gateway.testing import wire
from tests.api.support import CHAT, request
from tests.api.test_gateway import KEY, ask, keyed

if TYPE_CHECKING:
    from synapse_gateway.telemetry.record import RequestRecord
    from tests.api.support import Scene


def listen(stage: Scene, monkeypatch: pytest.MonkeyPatch) -> list[RequestRecord]:
    """Return the records of such requests as they come in."""
    records: list[RequestRecord] = []
    telemetry = stage.running.runtime.telemetry
    count = telemetry.other

    def other(record: RequestRecord) -> None:
        records.append(record)
        count(record)

    monkeypatch.setattr(telemetry, "other", other)
    return records


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "error"),
    [
        pytest.param("GET", "/v1/models", "/v1/models", 200, "", id="list"),
        pytest.param("HEAD", "/v1/models", "/v1/models", 200, "", id="head"),
        pytest.param("GET", "/v1/models/m", "/v1/models/{model:path}", 200, "", id="template"),
        pytest.param(
            "GET", "/v1/models/x", "/v1/models/{model:path}", 404, "model_not_found", id="no-model"
        ),
        pytest.param("GET", "/api/tags", "/api/tags", 200, "", id="tags"),
        pytest.param("GET", "/nowhere", "other", 404, "not_found", id="no-route"),
        pytest.param("GET", CHAT, CHAT, 405, "method_not_allowed", id="method"),
    ],
)
async def test_each_is_logged_and_counted(
    method: str, path: str, route: str, status: int, error: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keyed() as stage:
        records = listen(stage, monkeypatch)
        line = await stage.connect()
        names = ("authorization: Bearer sk-k", "x-request-id: mine", "connection: close")
        line.send(request(path, b"", *names, method=method))
        answer = await line.closed()
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"x-request-id: mine" in answer
        [record] = records
        assert (record.id, record.method, record.route) == ("mine", method, route)
        assert (record.status, record.error) == (status, error)
        assert record.path == (path if route == "other" else "")
        metrics = await wire.metrics(stage.url)
        counted = {"route": route, "code": str(status)}
        assert metrics.value("synapse_other_requests_total", **counted) == 1
        assert metrics.value("synapse_requests_total") == 0, "it says nothing of how models serve"


async def test_what_is_no_http_is_counted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keyed() as stage:
        records = listen(stage, monkeypatch)
        line = await stage.connect()
        line.send(b"hello\r\n\r\n")
        await line.closed()
        assert [(r.route, r.status, r.error) for r in records] == [("other", 400, "invalid_http")]


async def test_a_wrong_key_leaves_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    async with keyed() as stage:
        records = listen(stage, monkeypatch)
        wrong = {"authorization": "Bearer sk-wrong"}
        assert (await wire.get(stage.url, "/v1/models", headers=wrong)).status == 401
        assert [(r.caller, r.status, r.error) for r in records] == [("", 401, "invalid_api_key")]
        metrics = await wire.metrics(stage.url)
        counted = {"route": "/v1/models", "code": "401"}
        assert metrics.value("synapse_other_requests_total", **counted) == 1


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/metrics"])
async def test_what_machines_ask_every_few_seconds_leaves_none(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keyed() as stage:
        records = listen(stage, monkeypatch)
        assert (await wire.get(stage.url, path)).status == 200
        assert records == []


async def test_requests_a_minute_are_counted_wherever_a_key_is_needed() -> None:
    async with keyed(requests_per_minute=2) as stage:
        assert (await ask(stage)).status == 200
        assert (await wire.get(stage.url, "/v1/models", headers=KEY)).status == 200
        refused = await wire.get(stage.url, "/v1/models", headers=KEY)
        assert refused.status == 429
        assert refused.header("retry-after")
        assert (await ask(stage)).status == 429


async def test_a_list_takes_no_place_of_a_request_that_works() -> None:
    async with keyed(concurrency=1, tokens_per_minute=1) as stage:
        assert (await ask(stage)).status == 200
        assert (await ask(stage)).status == 429, "its tokens are used up"
        for _ in range(2):
            assert (await wire.get(stage.url, "/v1/models", headers=KEY)).status == 200
        usage = stage.running.runtime.gateway.limiter
        assert usage.in_flight("k") == 0  # type: ignore[attr-defined]
