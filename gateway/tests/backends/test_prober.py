"""When backends are looked at, and which looks count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.backends import adapter, prober
from synapse_gateway.backends.base import Probe, Reply
from synapse_gateway.backends.prober import Prober
from synapse_gateway.config.settings import Backend, BackendType
from synapse_gateway.routing.fleet import BackendState, Fleet
from synapse_gateway.testing import FaultyUpstream, scripts
from tests.backends.support import WireHttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from synapse_gateway.backends.base import Adapter, Http, Refusal

UP = Probe(up=True, status=200, detail="ok")
DOWN = Probe(up=False, detail="connection refused")
NEVER = 3600.0
"""Interval of a backend that is only looked at when it is nudged."""


class Scripted:
    """An adapter whose looks end as the test says.

    Attributes:
        results: What the next looks show; the last one stays.
        looks: How many have begun.
        overlapped: Whether two were under way at once.
        hold: Cleared, looks wait for it.
    """

    capabilities = frozenset[object]()

    def __init__(self, *results: Probe | BaseException) -> None:
        self.results = list(results)
        self.looks = 0
        self.overlapped = False
        self.hold = asyncio.Event()
        self.hold.set()
        self._under_way = 0

    async def probe(self, http: Http, health: str | None) -> Probe:
        self.looks += 1
        self._under_way += 1
        self.overlapped |= self._under_way > 1
        try:
            await self.hold.wait()
            await asyncio.sleep(0)
            result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
            if isinstance(result, BaseException):
                raise result
            return result
        finally:
            self._under_way -= 1

    def refusal(self, status: int, body: bytes) -> Refusal | None:
        return None

    def upstream_path(self, path: str) -> str:
        return path


class NoHttp:
    async def request(
        self, method: str, path: str, *, body: bytes = b"", timeout: float = 5.0
    ) -> Reply:
        raise AssertionError("the scripted adapter sends nothing")


class Watched:
    """A prober, a fleet that it reports to, and every report."""

    def __init__(self, **adapters: Scripted) -> None:
        self.reports: list[tuple[str, Probe]] = []
        self.fleet = Fleet()
        self.states = {
            name: BackendState(
                name,
                Backend(url="http://127.0.0.1:9", probe_interval=NEVER),
                scripted,  # type: ignore[arg-type]  # its capabilities are nobody's business
            )
            for name, scripted in adapters.items()
        }
        self.fleet.adopt(self.states)
        self.changed = asyncio.Condition()
        self.prober = Prober(lambda _: NoHttp(), self.report, deadline=1.0)

    def report(self, name: str, probe: Probe) -> None:
        self.reports.append((name, probe))
        self.fleet.report(name, probe)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - conditions of several objects
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let looks follow each other quickly."""
    monkeypatch.setattr(prober, "NUDGE_GAP", 0.001)
    monkeypatch.setattr(prober, "SOON", 0.002)


@pytest.fixture
async def watch() -> AsyncIterator[Callable[..., Awaitable[Watched]]]:
    begun: list[Watched] = []

    async def begin(**adapters: Scripted) -> Watched:
        watched = Watched(**adapters)
        begun.append(watched)
        watched.prober.adopt(watched.states)
        await watched.prober.first_look()
        return watched

    yield begin
    for watched in begun:
        await watched.prober.stop()


async def test_every_backend_is_looked_at_before_the_first_request(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    watched = await watch(a=Scripted(UP), b=Scripted(DOWN))

    assert dict(watched.reports) == {"a": UP, "b": DOWN}
    assert [state.up for state in watched.states.values()] == [True, False]


async def test_a_backend_that_does_not_answer_holds_nothing_up() -> None:
    dead = Scripted(UP)
    dead.hold.clear()
    watched = Watched(dead=dead, alive=Scripted(UP))
    watched.prober.adopt(watched.states)

    await watched.prober.first_look(timeout=0.05)

    assert [name for name, _ in watched.reports] == ["alive"]
    assert watched.states["dead"].up is None
    await watched.prober.stop()


async def test_a_look_that_lasts_too_long_is_a_failed_one() -> None:
    dead = Scripted(UP)
    dead.hold.clear()
    watched = Watched(dead=dead)
    watched.prober = Prober(lambda _: NoHttp(), watched.report, deadline=0.01)
    watched.prober.adopt(watched.states)

    await watched.until(lambda: bool(watched.reports))

    assert watched.reports[0] == ("dead", Probe(up=False, detail="no answer in time"))
    await watched.prober.stop()


async def test_one_failed_look_does_not_mark_a_working_backend_down(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    scripted = Scripted(UP, DOWN, UP)
    watched = await watch(a=scripted)

    watched.prober.nudge("a")
    await watched.until(lambda: scripted.looks >= 3)

    await watched.until(lambda: len(watched.reports) >= 2)
    assert watched.reports == [("a", UP), ("a", UP)]
    assert watched.states["a"].up is True


async def test_a_second_failed_look_follows_soon_and_counts(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    scripted = Scripted(UP, DOWN)
    watched = await watch(a=scripted)

    watched.prober.nudge("a")
    await watched.until(lambda: watched.states["a"].up is False)

    assert scripted.looks == 3
    assert watched.reports == [("a", UP), ("a", DOWN)]


async def test_a_request_that_succeeds_outweighs_the_looks_before_it(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    scripted = Scripted(DOWN)
    watched = await watch(a=scripted)
    watched.states["a"].up = True  # as the end of a successful request notes it
    scripted.hold.clear()

    watched.prober.nudge("a")
    await watched.until(lambda: scripted.looks == 2)
    scripted.results = [DOWN, UP]
    scripted.hold.set()
    await watched.until(lambda: len(watched.reports) == 2)

    assert watched.reports == [("a", DOWN), ("a", UP)], "the failed look between was not reported"


async def test_looks_at_one_backend_never_overlap(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    scripted = Scripted(UP)
    watched = await watch(a=scripted)
    scripted.hold.clear()

    watched.prober.nudge("a")
    await watched.until(lambda: scripted.looks == 2)
    for _ in range(100):
        watched.prober.nudge("a")
        await asyncio.sleep(0)
    scripted.hold.set()
    await watched.until(lambda: scripted.looks == 3)

    assert not scripted.overlapped
    assert scripted.looks == 3, "a hundred failed requests during a look ask for one more"


async def test_a_fault_in_reading_an_answer_does_not_end_the_looking(
    watch: Callable[..., Awaitable[Watched]], caplog: pytest.LogCaptureFixture
) -> None:
    scripted = Scripted(ValueError("ours"), UP)
    watched = await watch(a=scripted)

    watched.prober.nudge("a")
    await watched.until(lambda: watched.states["a"].up is True)

    assert watched.reports[0][1].detail == "the answer to the probe could not be read"
    assert "probing a failed" in caplog.text


async def test_nudging_an_unknown_backend_does_nothing(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    watched = await watch(a=Scripted(UP))

    watched.prober.nudge("b")

    assert len(watched.reports) == 1


async def test_a_new_configuration_leaves_what_is_the_same_alone(
    watch: Callable[..., Awaitable[Watched]],
) -> None:
    kept, gone, new = Scripted(UP), Scripted(UP), Scripted(UP)
    watched = await watch(kept=kept, gone=gone)
    other = Watched(new=new)
    states = {"kept": watched.states["kept"], "new": other.states["new"]}

    watched.prober.adopt(states)
    await watched.prober.first_look()
    watched.prober.nudge("gone")
    watched.prober.nudge("kept")
    await watched.until(lambda: kept.looks == 2)

    assert (kept.looks, gone.looks, new.looks) == (2, 1, 1)


async def test_looks_go_on_by_themselves() -> None:
    scripted = Scripted(UP)
    watched = Watched()
    config = Backend(url="http://127.0.0.1:9", probe_interval=0.002)
    state = BackendState("a", config, scripted)  # type: ignore[arg-type]
    watched.prober.adopt({"a": state})

    await watched.until(lambda: scripted.looks >= 3)

    await watched.prober.stop()
    after = scripted.looks
    await asyncio.sleep(0.01)
    assert scripted.looks == after, "stopped means stopped"


async def test_a_real_backend_goes_and_comes_back() -> None:
    async with FaultyUpstream() as upstream:
        kind: Adapter = adapter(BackendType.OPENAI_COMPATIBLE)
        config = Backend(url=upstream.url, probe_interval=0.01)
        state = BackendState("a", config, kind)
        fleet = Fleet()
        fleet.adopt({"a": state})
        watcher = Prober(lambda _: WireHttp(upstream.url), fleet.report)
        watcher.adopt(fleet.backends)
        watched = Watched()
        await watcher.first_look()
        assert (state.up, list(state.models)) == (True, ["m"])

        await upstream.refuse(drop=True)
        await watched.until(lambda: state.up is False)
        assert state.detail == "connection refused"

        upstream.probes["/v1/models"] = scripts.models("m", "n")
        await upstream.accept()
        await watched.until(lambda: state.up is True)
        assert list(state.models) == ["m", "n"]
        await watcher.stop()
        assert upstream.requests == [], "probes only"
