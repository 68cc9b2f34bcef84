"""A new configuration under traffic."""

from __future__ import annotations

import json
import shutil
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from synapse_gateway import app
from synapse_gateway.auth import check_exposure
from synapse_gateway.config.load import Dialect, Loaded, load
from synapse_gateway.config.reload import ConfigWatcher
from synapse_gateway.config.settings import Backend, Breaker, Model, RetryBudget, Target
from synapse_gateway.errors import ConfigError
from synapse_gateway.routing.breaker import BreakerState
from synapse_gateway.testing import FaultyUpstream, scripts, wire
from synapse_gateway.testing.wire import Ending
from tests.api.support import CHAT, LONG, certificate, request, scene, until

if TYPE_CHECKING:
    from pathlib import Path

    from synapse_gateway.config.settings import Settings
    from tests.api.support import Scene

ASK = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def apply(stage: Scene, settings: Settings) -> None:
    stage.running.runtime.apply(Loaded(settings, "0" * 64, Dialect.NATIVE))


def current(stage: Scene) -> Settings:
    return stage.running.runtime.gateway.state.table.settings


def elsewhere(settings: Settings, url: str) -> Settings:
    """Return the settings with `m` at another backend and the old one gone."""
    model = Model(targets=(Target(backend="other"),), timeouts=LONG)
    other = Backend(url=url, probe_interval=3600.0)
    return msgspec.structs.replace(settings, backends={"other": other}, models={"m": model})


async def test_a_stream_under_way_finishes_on_the_old_table() -> None:
    async with scene() as stage, FaultyUpstream() as other:
        stage.upstream.queue(scripts.held())
        async with wire.open_stream(stage.url, CHAT, {**ASK, "stream": True}) as stream:
            await stream.next_chunk()
            apply(stage, elsewhere(current(stage), other.url))

            new = await wire.post(stage.url, CHAT, ASK)
            assert new.header("x-synapse-backend") == "other"

            stage.upstream.gate("go").set()
            answer = await stream.read_rest()
        assert (answer.ending, answer.events()[-1]) == (Ending.COMPLETE, "[DONE]")
        assert answer.header("x-synapse-backend") == "b"
        assert (len(stage.upstream.requests), len(other.requests)) == (1, 1)
        await stage.upstream.connections[-1].closed_by_peer.wait()


async def test_a_request_that_waits_to_fail_over_does_so_on_the_old_table() -> None:
    async with scene() as stage, FaultyUpstream() as second, FaultyUpstream() as other:
        both = Model(
            targets=(Target(backend="b"), Target(backend="second", order=2)), timeouts=LONG
        )
        backends = {**current(stage).backends, "second": Backend(url=second.url)}
        apply(stage, msgspec.structs.replace(current(stage), backends=backends, models={"m": both}))

        def fails_late(request: object) -> list[scripts.Step]:
            return [scripts.Hold(), scripts.Close()]

        stage.upstream.queue(fails_late)
        line = await stage.connect()
        line.send(request())
        await stage.upstream.seen(1)
        apply(stage, elsewhere(current(stage), other.url))
        stage.upstream.gate("go").set()
        answer = await line.answer()
        assert answer.header("x-synapse-backend") == "second"
        assert other.requests == []


def with_backend(settings: Settings, **fields: Any) -> Settings:
    """Return the settings with `b` changed."""
    changed = msgspec.structs.replace(settings.backends["b"], **fields)
    return msgspec.structs.replace(settings, backends={"b": changed})


async def test_a_breaker_survives_whatever_changes_but_the_server() -> None:
    async with scene(breaker=Breaker(failures=1, cool_down=3600.0)) as stage:
        stage.upstream.queue(scripts.status(500))
        assert (await wire.post(stage.url, CHAT, ASK)).status == 502
        before = current(stage)
        models = {**before.models, "n": before.models["m"]}
        apply(stage, msgspec.structs.replace(before, models=models))
        apply(stage, with_backend(before, headers={"x": "y"}, probe_interval=7.0))
        [state] = stage.running.runtime.gateway.state.table.models["m"].states
        assert state.breaker.state is BreakerState.OPEN
        assert (await wire.post(stage.url, CHAT, ASK)).status == 503

        apply(stage, with_backend(before, url=stage.upstream.url + "/v1"))
        answer = await wire.post(stage.url, CHAT, ASK)
        assert answer.status == 200
        assert stage.upstream.requests[-1].header("x") is None


async def test_a_cap_holds_for_requests_of_before_and_after_together() -> None:
    async with scene(target=Target(backend="b", max_in_flight=1)) as stage:
        stage.upstream.queue(scripts.held(after=0))
        first, second = await stage.connect(), await stage.connect()
        first.send(request())
        await stage.upstream.seen(1)
        apply(stage, with_backend(current(stage), headers={"x": "y"}))
        second.send(request())
        waiting = stage.running.runtime.waiting
        await until(lambda: list(waiting.lengths()) == [("m", 1)])
        stage.upstream.gate("go").set()
        assert (await first.answer()).status == (await second.answer()).status == 200
        assert stage.upstream.requests[-1].header("x") == "y"


async def test_a_replaced_certificate_file_is_used(tmp_path: Path) -> None:
    theirs, other = certificate(tmp_path, "theirs"), certificate(tmp_path, "other")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(theirs, theirs.with_suffix(".key"))
    trusted = tmp_path / "ca.pem"
    shutil.copy(other, trusted)
    async with FaultyUpstream(tls=context) as upstream:
        path = tmp_path / "c.yaml"
        backend = {"url": upstream.url, "tls": {"ca_file": "ca.pem"}, "probe_interval": 3600}
        content = {
            "auth": "anonymous",
            "backends": {"b": backend},
            "models": {"m": {"targets": [{"backend": "b"}]}},
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        first = load(path, {})
        async with app.running(first.settings) as running:
            watcher = ConfigWatcher(
                path,
                {},
                first,
                on_change=running.runtime.apply,
                on_refused=running.runtime.refuse,
            )
            assert (await wire.post(running.url, CHAT, ASK)).status == 502
            shutil.copy(theirs, trusted)
            await watcher.check()
            await watcher.check()
            assert (await wire.post(running.url, CHAT, ASK)).status == 200


async def test_a_backend_is_looked_at_as_soon_as_its_settings_change() -> None:
    async with scene() as stage:
        backend = stage.running.runtime.fleet.backends["b"]
        backend.up = False
        apply(stage, with_backend(current(stage), headers={"x": "y"}))
        await until(lambda: backend.up)


async def test_the_retry_budget_follows_the_configuration() -> None:
    nothing = RetryBudget(ratio=0.0, minimum_per_second=0)
    async with scene(attempts=2, retry_budget=nothing) as stage:
        stage.upstream.script = scripts.close()
        await wire.post(stage.url, CHAT, ASK)
        assert len(stage.upstream.requests) == 1
        limits = msgspec.structs.replace(current(stage).limits, retry_budget=RetryBudget())
        apply(stage, msgspec.structs.replace(current(stage), limits=limits))
        await wire.post(stage.url, CHAT, ASK)
        assert len(stage.upstream.requests) == 3


async def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    async with scene() as stage:
        before = stage.running.runtime.gateway.state
        needy = msgspec.structs.replace(current(stage).backends["b"], api_key_env="NOT_SET")
        with pytest.raises(ConfigError, match=r"backends\.b\.api_key_env"):
            apply(stage, msgspec.structs.replace(current(stage), backends={"b": needy}))
        assert stage.running.runtime.gateway.state is before
        assert (await wire.post(stage.url, CHAT, ASK)).status == 200


@pytest.mark.parametrize(
    ("backend", "environ"),
    [
        pytest.param({"url": "http://127.0.0.1:99999"}, {}, id="port"),
        pytest.param({"url": "http://[::1::]"}, {}, id="address"),
        pytest.param({"url": "http://a/模型"}, {}, id="path"),
        pytest.param({"url": "http://a", "headers": {"x": "ключ"}}, {}, id="header"),
        pytest.param({"url": "https://a", "tls": {"ca_file": "none.pem"}}, {}, id="no-ca-file"),
        pytest.param({"url": "https://a", "tls": {"ca_file": "c.yaml"}}, {}, id="bad-ca-file"),
        pytest.param({"url": "http://a", "api_key_env": "KEY"}, {}, id="no-key"),
        pytest.param({"url": "http://a", "api_key_env": "KEY"}, {"KEY": "ключ"}, id="key"),
        pytest.param({"url": "http://a", "api_key_file": "bytes"}, {}, id="key-file"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused_and_the_next_one_taken(
    tmp_path: Path, backend: dict[str, object], environ: dict[str, str]
) -> None:
    path = tmp_path / "c.yaml"
    good = {"auth": "anonymous", "backends": {"b": {"url": "http://127.0.0.1:9"}}}
    path.write_text(json.dumps(good), encoding="utf-8")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    first = load(path, environ)
    async with app.running(first.settings, environ=environ) as running:
        runtime = running.runtime
        watcher = ConfigWatcher(
            path, environ, first, on_change=runtime.apply, on_refused=runtime.refuse
        )
        for content in (good | {"backends": {"b": backend}}, good | {"routes": {"/x": "b"}}):
            path.write_text(json.dumps(content), encoding="utf-8")
            await watcher.check()
            await watcher.check()
        assert runtime.gateway.state.table.settings.routes
        metrics = (await wire.get(running.url, "/metrics")).body.decode()
    assert 'synapse_config_reloads_total{result="refused"} 1.0' in metrics


async def test_a_reload_never_opens_what_a_start_would_have_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("keys: {k: {env: K}}", encoding="utf-8")
    environ = {"K": "sk-1"}
    permit = partial(check_exposure, host="192.0.2.1", on_loopback=False)
    runtime = app.Runtime(environ, permit=permit)
    await runtime.start(load(path, environ).settings, "")
    before = runtime.gateway.state
    for text, reason in (
        ("auth: anonymous", "listens on loopback only, not on 192.0.2.1"),
        ("auth: keys", "nobody could call"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=reason):
            runtime.apply(load(path, environ))
        assert runtime.gateway.state is before
    await runtime.stop()


async def test_callers_who_wait_look_again_on_a_reload() -> None:
    async with scene(target=Target(backend="b", max_in_flight=1)) as stage:
        stage.upstream.queue(scripts.held(after=0))
        first, second = await stage.connect(), await stage.connect()
        first.send(request())
        await stage.upstream.seen(1)
        second.send(request())
        waiting = stage.running.runtime.waiting
        await until(lambda: list(waiting.lengths()) == [("m", 1)])
        apply(stage, current(stage))
        assert list(waiting.lengths()) == [("m", 1)], "the cap has not changed"
        stage.upstream.gate("go").set()
        assert (await first.answer()).status == (await second.answer()).status == 200
