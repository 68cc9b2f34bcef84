from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from synapse_gateway.testing import wire
from tests.api.support import CHAT, scene

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.api.support import Scene


@pytest.fixture
async def stage() -> AsyncIterator[Scene]:
    async with scene() as made:
        yield made


@pytest.mark.parametrize(
    ("up", "asleep", "status", "overall"),
    [
        (True, False, "healthy", "healthy"),
        (True, True, "asleep", "healthy"),
        (False, False, "unhealthy", "unhealthy"),
        (None, False, "unknown", "unhealthy"),
    ],
)
async def test_health_tells_of_every_backend(
    stage: Scene, up: bool | None, asleep: bool, status: str, overall: str
) -> None:
    backend = stage.running.runtime.fleet.backends["b"]
    backend.up, backend.asleep, backend.waiting = up, asleep, 3
    answer = (await wire.get(stage.url, "/health")).json()
    assert answer["status"] == overall
    assert answer["backends"]["b"]["status"] == status
    assert answer["backends"]["b"]["waiting"] == 3


async def test_ready_means_that_something_can_be_served(stage: Scene) -> None:
    assert (await wire.get(stage.url, "/readyz")).status == 200
    stage.running.runtime.fleet.backends["b"].up = False
    dead = await wire.get(stage.url, "/readyz")
    assert (dead.status, dead.header("retry-after")) == (503, "5")
    assert (await wire.get(stage.url, "/livez")).status == 200, "no reason to restart"
    stage.running.runtime.fleet.backends["b"].up = True
    backends = dict(stage.running.runtime.fleet.backends)
    stage.running.runtime.fleet.backends.clear()
    assert (await wire.get(stage.url, "/readyz")).status == 503, "nothing is configured"
    assert (await wire.get(stage.url, "/health")).json()["status"] == "unhealthy"
    stage.running.runtime.fleet.backends.update(backends)
    stage.running.runtime.gateway.draining = True
    assert (await wire.get(stage.url, "/readyz")).status == 503


async def test_models_are_listed_and_described(stage: Scene) -> None:
    listed = (await wire.get(stage.url, "/v1/models")).json()
    assert [model["id"] for model in listed["data"]] == ["m"]
    for path in ("/v1/models/m", "/v1/models/m:latest", "/v1/models/%6D"):
        assert (await wire.get(stage.url, path)).json()["id"] == "m"
    unknown = await wire.get(stage.url, "/v1/models/x%2Fy:z")
    assert (unknown.status, (unknown.error() or {})["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/chat%2Fcompletions", 404, "not_found"),
    ],
)
async def test_what_is_not_there_says_so_in_the_shape_of_every_error(
    stage: Scene, method: str, path: str, status: int, code: str
) -> None:
    answer = await wire.exchange(stage.url, method, path)
    assert answer.status == status
    assert (answer.error() or {})["code"] == code
    assert (answer.header("allow") is not None) == (status == 405)


async def test_the_description_and_its_page_are_there(stage: Scene) -> None:
    assert CHAT in (await wire.get(stage.url, "/openapi.json")).json()["paths"]
    page = await wire.get(stage.url, "/docs")
    assert (page.status, b"<html" in page.body) == (200, True)
