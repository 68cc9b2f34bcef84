"""Scraping, rules, dashboards and autoscaling, on the live Prometheus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import pytest
from conformance.suite import scene as scenes
from conformance.suite.lines import NotSupported, line
from conformance.suite.monitoring import (
    Prometheus,
    Rendered,
    broken,
    may_be_empty,
    with_choices,
)
from conformance.suite.release import GATEWAY
from conformance.suite.timeouts import ALERT, AUTOSCALED, SCRAPED, eventually
from conformance.suite.traffic import flowing, none_lost, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence
    from conformance.suite.scene import Scene
    from conformance.suite.session import Session
    from conformance.suite.traffic import Plan

FALLBACK = "FallbackRateHigh"


@pytest.fixture(scope="module")
def rendered(deployment: Session) -> Rendered:
    found = Rendered(deployment)
    if not found.monitors and not found.rules():
        raise NotSupported("the release has neither monitors nor rules")
    return found


@pytest.fixture(scope="module")
def prometheus(deployment: Session, rendered: Rendered) -> Prometheus:
    return Prometheus(deployment)


@line("monitoring.targets", "Every monitor of the chart has a target that is up")
def test_every_monitor_scrapes(
    rendered: Rendered, prometheus: Prometheus, evidence: Evidence
) -> None:
    if not rendered.monitors:
        raise NotSupported("the release has no ServiceMonitor")

    def missing() -> set[str]:
        up = {one["labels"]["job"] for one in prometheus.targets() if one["health"] == "up"}
        return set(rendered.monitors) - up

    try:
        eventually("every monitor has a target that is up", lambda: not missing(), SCRAPED, 2.0)
    finally:
        for one in prometheus.targets():
            evidence(one["labels"]["job"], f"{one['health']} {one['lastError']}".strip())
        evidence("without a target", ", ".join(sorted(missing())) or "none")


@line("monitoring.rules", "Every alert and rule of the chart is loaded, under its name, and works")
def test_every_rule_is_evaluated(
    rendered: Rendered, prometheus: Prometheus, evidence: Evidence
) -> None:
    wanted = {rule.get("alert") or rule["record"] for rule in rendered.rules()}
    if not wanted:
        raise NotSupported("the release has no PrometheusRule")
    alerts = [rule for rule in rendered.rules() if "alert" in rule]

    def missing() -> set[str]:
        return wanted - {one["name"] for one in prometheus.rules() if one["health"] == "ok"}

    def ill() -> dict[str, str]:
        return {
            one["name"]: one.get("lastError", "")
            for one in prometheus.rules()
            if one["health"] == "err"
        }

    try:
        eventually("every rule is evaluated", lambda: not missing(), SCRAPED, 2.0)
    except AssertionError:
        raise AssertionError(f"not evaluated: {sorted(missing())}; errors: {ill()}") from None
    evidence("alerts", len(alerts))
    evidence("recording rules", len(rendered.rules()) - len(alerts))
    unknown = {one["name"] for one in prometheus.rules()} - wanted
    assert not unknown, f"rules that the chart does not have: {sorted(unknown)}"
    wrong = broken(prometheus, [rule["expr"] for rule in rendered.rules()])
    assert not wrong, wrong[0]


@pytest.fixture(scope="module")
def scene(deployment: Session) -> Scene:
    deployment.need_disruptive()
    return scenes.find(deployment)


@line("monitoring.fallback-alert", "The fallback alert fires while a fallback answers, and ends")
def test_the_fallback_alert(scene: Scene, prometheus: Prometheus, evidence: Evidence) -> None:
    deployment = scene.deployment
    # Few enough that none falls back because the first choice is busy, which the alert counts too.
    few = replace(plan(deployment), concurrent=1, rate=2)
    scene.await_ready()

    def fires() -> bool:
        return prometheus.firing(FALLBACK, model=scene.model)

    if fires():  # what was broken before is within the five minutes that the alert looks at
        with flowing(deployment, few) as traffic:
            eventually(f"{FALLBACK} rests", lambda: not fires(), ALERT, 2)
            traffic.stop()
    with flowing(deployment, few) as traffic:
        traffic.mark("first choice stopped")
        scene.cluster.scale(scene.first, 0)
        try:
            eventually(f"{FALLBACK} fires", fires, ALERT, 2)
            traffic.mark("alert")
        finally:
            scene.cluster.scale(scene.first, scene.workload["spec"]["replicas"])
        scene.await_ready()
        result = traffic.stop()
    evidence("stopped", scene.first)
    evidence("fired after", f"{result.at('alert') - result.at('first choice stopped'):.0f} s")
    with flowing(deployment, few) as traffic:
        traffic.mark("first choice back")
        eventually(f"{FALLBACK} resolves", lambda: not fires(), ALERT, 2)
        traffic.mark("resolved")
        after = traffic.stop()
    evidence("resolved after", f"{after.at('resolved') - after.at('first choice back'):.0f} s")
    none_lost(evidence, result, after)


@pytest.fixture(scope="module")
def events(deployment: Session, rendered: Rendered) -> Iterator[Gateway]:
    """What panels show: answers, refusals, callers that left, and trouble where it may be."""
    gateway = deployment.gateway
    gateway.need("/v1/chat/completions")
    _leave_early(gateway)
    disruptive = deployment.options.disruptive
    streams = 2 * scenes.slots(deployment) if disruptive else 2  # more than there is room for
    calls: Plan = replace(plan(deployment), concurrent=streams, rate=5)
    few = deployment.release.secrets.get("few", "")
    with flowing(deployment, calls) as traffic:
        traffic.flow(8)
        for _ in range(5):
            _ask_with(gateway, few)
        if disruptive:
            scene = scenes.find(deployment)
            scene.lab.in_pod(scene.pod, "signal", "SIGKILL")
            scene.await_ready()
        yield gateway
        traffic.stop()


def _leave_early(gateway: Gateway) -> None:
    """Go away in the middle of an answer: a connection with an answer half read is closed."""
    body: dict[str, object] = {"model": gateway.model("chat"), "max_tokens": 200, "stream": True}
    body["messages"] = [{"role": "user", "content": "Count to one hundred."}]
    with gateway.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        for _ in answer.iter_raw():
            break


def _ask_with(gateway: Gateway, key: str) -> None:
    """Ask once with a key that has a limit; what becomes of it is for the panels."""
    if key:
        headers = {"authorization": f"Bearer {key}"}
        body = {"model": gateway.model("embeddings"), "input": "yes"}
        httpx.post(f"{gateway.url}/v1/embeddings", json=body, headers=headers, timeout=60)


@line("monitoring.panels", "Every panel has data, or is in the list of those that cannot")
def test_every_panel_has_data(
    deployment: Session,
    rendered: Rendered,
    prometheus: Prometheus,
    events: Gateway,
    evidence: Evidence,
) -> None:
    if not rendered.panels:
        raise NotSupported("the release has no dashboards")
    namespace = deployment.release.namespace
    allowed = may_be_empty(disruptive=deployment.options.disruptive)
    panels = rendered.panels

    def empty() -> list[str]:
        return [
            panel.name
            for panel in panels
            if panel.name not in allowed
            and panel.dashboard not in allowed
            and not any(prometheus.query(with_choices(one, namespace)) for one in panel.queries)
        ]

    wrong = broken(prometheus, [with_choices(e, namespace) for p in panels for e in p.queries])
    assert not wrong, wrong[0]
    try:
        eventually("every panel has data", lambda: not empty(), SCRAPED, 3.0)
    except AssertionError:
        raise AssertionError(f"empty: {'; '.join(empty())}") from None
    listed = [p.name for p in panels if p.name in allowed or p.dashboard in allowed]
    evidence("panels", len(panels))
    evidence("with data", len(panels) - len(listed))
    evidence("listed as empty", ", ".join(sorted({allowed.get(p, p) for p in allowed})))


@line("monitoring.autoscaling", "The gateway scales out under load, and in after it")
def test_the_gateway_scales(deployment: Session, evidence: Evidence) -> None:
    deployment.need_disruptive()
    cluster = deployment.cluster
    scaler = cluster.find("HorizontalPodAutoscaler", GATEWAY)
    if scaler is None:
        raise NotSupported("the release has no autoscaler (gateway.autoscaling.enabled)")
    low, high = scaler["spec"]["minReplicas"], scaler["spec"]["maxReplicas"]
    calls = plan(deployment)

    def count() -> int:
        return len(cluster.ready(GATEWAY))

    eventually(f"{low} replicas at rest", lambda: count() == low, AUTOSCALED, 2)
    with flowing(deployment, calls) as traffic:
        traffic.mark("load")
        eventually("more replicas", lambda: count() > low, AUTOSCALED, 2)
        traffic.mark("more")
        evidence("replicas", f"{low} at rest, {count()} under load, {high} at most")
        traffic.flow(5)
        result = traffic.stop()
    evidence("scaled out after", f"{result.at('more') - result.at('load'):.0f} s")
    few = replace(calls, concurrent=1, rate=1)
    with flowing(deployment, few) as traffic:
        traffic.mark("less load")
        eventually("fewer replicas", lambda: count() == low, AUTOSCALED, 2)
        traffic.mark("fewer")
        after = traffic.stop()
    evidence("scaled in after", f"{after.at('fewer') - after.at('less load'):.0f} s")
    none_lost(evidence, result, after)
