"""The gateway, or what it stands on, breaks under traffic."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from conformance.suite import scene as scenes
from conformance.suite.cluster import is_ready
from conformance.suite.lines import NotSupported, line
from conformance.suite.release import GATEWAY
from conformance.suite.replicas import await_replicas, config_hashes, reloads, write_config
from conformance.suite.timeouts import CONFIG_TAKEN, NODE_NOTICED, RECOVERY, eventually
from conformance.suite.traffic import flowing, none_lost, plan, tell

if TYPE_CHECKING:
    from conformance.suite.cluster import Cluster, Object
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session
    from conformance.suite.traffic import Plan

REDIS = "terminal-feed-redis"
OWN_COMMANDS = {"auth", "ping", "info", "client", "hello", "command", "config"}
"""What probes and exporters send."""
SETTLE = 4.0
"""Seconds of traffic before and after."""


@pytest.fixture(scope="module")
def calls(deployment: Session) -> Plan:
    deployment.need_disruptive()
    return plan(deployment)


@pytest.fixture
def cluster(deployment: Session) -> Cluster:
    return deployment.cluster


@line("gateway.replica-killed", "A killed replica costs no more than the requests that it had")
def test_a_replica_is_killed(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    pods = await_replicas(cluster)
    if len(pods) < 2:
        raise NotSupported("the gateway has one replica")
    with flowing(deployment, calls) as traffic:
        traffic.flow(SETTLE)
        traffic.mark("killed")
        cluster.delete("Pod", pods[0]["metadata"]["name"], grace=0)
        traffic.flow(SETTLE)
        await_replicas(cluster)
        traffic.mark("replaced")
        traffic.flow(SETTLE)
        result = traffic.stop()
    tell(evidence, result)
    killed = result.at("killed")
    under_way = [
        one for one in result.sent(before=killed + 2) if one["t"] + one["seconds"] > killed
    ]
    evidence("under way when it was killed", len(under_way))
    late = [one for one in result.lost if one not in under_way]
    assert not late, f"lost although sent later: {late[0]['lost']}"
    assert len(result.lost) <= len(under_way)
    wrong = [one for one in result.lost if one["status"] == 200 and not one["begun"]]
    assert not wrong, "an answer without content was given as a success"


@line("gateway.rolling-restart", "A rolling restart loses no request")
def test_a_rolling_restart(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    before = {pod["metadata"]["name"] for pod in await_replicas(cluster)}
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    annotations = {"kubectl.kubernetes.io/restartedAt": now}
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    with flowing(deployment, calls) as traffic:
        traffic.flow(SETTLE)
        traffic.mark("restart")
        cluster.patch("Deployment", GATEWAY, change)

        def replaced() -> bool:
            names = {pod["metadata"]["name"] for pod in await_replicas(cluster)}
            return not names & before

        eventually("every replica is another", replaced, RECOVERY, every=1.0)
        traffic.mark("restarted")
        traffic.flow(SETTLE)
        result = traffic.stop()
    tell(evidence, result)
    evidence("took", f"{result.at('restarted') - result.at('restart'):.0f} s")
    assert not result.lost, result.why_lost()


@line("gateway.redis-gone", "Without Redis the gateway goes on, and says so")
def test_redis_is_gone(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    pods = cluster.ready(REDIS)
    if not pods:
        raise NotSupported("the release has no Redis of its own")
    with flowing(deployment, calls) as traffic:
        first = redis_commands(cluster, pods[0])
        traffic.flow(SETTLE)
        sent = redis_commands(cluster, pods[0]) - first
        evidence("commands of the gateway before", sent)
        if not sent:
            traffic.stop()
            raise NotSupported("Redis is there, but the gateway does not use it")
        replicas = cluster.get("Deployment", REDIS)["spec"]["replicas"]
        try:
            traffic.mark("gone")
            cluster.scale(REDIS, 0)
            eventually("the gateway notices", lambda: redis_up(deployment) == 0, RECOVERY)
            traffic.flow(SETTLE)
        finally:
            traffic.mark("back")
            cluster.scale(REDIS, replicas)
        eventually("the gateway finds it again", lambda: redis_up(deployment) > 0, RECOVERY)
        traffic.flow(SETTLE)
        result = traffic.stop()
    none_lost(evidence, result)


def redis_commands(cluster: Cluster, pod: Object) -> int:
    """Return how many commands Redis has carried out, probes left out."""
    command = 'REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli info commandstats'
    done = cluster.exec(
        pod["metadata"]["namespace"], pod["metadata"]["name"], ["sh", "-c", command]
    )
    total = 0
    for text in done.text.splitlines():
        name, _, rest = text.partition(":calls=")
        if rest and name.removeprefix("cmdstat_").partition("|")[0] not in OWN_COMMANDS:
            total += int(rest.partition(",")[0])
    return total


def redis_up(deployment: Session) -> float:
    """Return how many replicas say that Redis answers."""
    return scenes.value(scenes.replica_metrics(deployment), "synapse_redis_up")


@line("gateway.api-server-gone", "Without the Kubernetes API callers are answered")
def test_the_api_server_is_gone(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    node = api_server_node(cluster)
    before = api_requests(cluster)
    with flowing(deployment, calls) as traffic:
        traffic.flow(SETTLE)
        evidence("requests that it answered before", f"{api_requests(cluster) - before:.0f}")
        traffic.mark("gone")
        stopped = deployment.lab.on_node(node, "pause", API_SERVER, f"{PAUSE:g}")
        if not stopped:
            traffic.stop()
            raise NotSupported(f"{node} runs no process {API_SERVER} that could be stopped")
        traffic.flow(PAUSE + 1)
        eventually("it answers again", lambda: api_requests(cluster) > 0, RECOVERY)
        traffic.mark("back")
        traffic.flow(SETTLE)
        result = traffic.stop()
    tell(evidence, result)
    gone, back = result.at("gone"), result.at("back")
    evidence("answered meanwhile", sum(not one["lost"] for one in result.sent(gone, back)))
    assert not result.lost, result.why_lost()


API_SERVER = "kube-apiserver"
PAUSE = 8.0
"""Seconds that it is stopped: less than it takes nodes that cannot report to be given up."""


def api_server_node(cluster: Cluster) -> str:
    """Return the node of the API server.

    Raises:
        NotSupported: It is none of the cluster's nodes.
    """
    slices = cluster.all("EndpointSlice", "default", "kubernetes.io/service-name=kubernetes")
    addresses = {
        address
        for one in slices
        for endpoint in one.get("endpoints") or []
        for address in endpoint["addresses"]
    }
    for node in cluster.all("Node", ""):
        if any(one["address"] in addresses for one in node["status"]["addresses"]):
            return str(node["metadata"]["name"])
    raise NotSupported("the API server runs on none of the cluster's nodes")


def api_requests(cluster: Cluster) -> float:
    """Return how many requests the API server has answered."""
    text = cluster.text("/metrics")
    lines = (one for one in text.splitlines() if one.startswith("apiserver_request_total"))
    return sum(float(one.rpartition(" ")[2]) for one in lines)


@line("gateway.config-broken", "A broken configuration is refused, and a mended one is taken")
def test_the_configuration_is_broken_and_mended(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    good = cluster.get("ConfigMap", GATEWAY)["data"]
    broken = {name: f"{text}\nbackends: [this is no mapping\n" for name, text in good.items()}
    hashes = config_hashes(deployment)
    refused = reloads(deployment, "refused")
    with flowing(deployment, calls) as traffic:
        traffic.flow(SETTLE)
        traffic.mark("broken")
        try:
            write_config(cluster, broken)
            count = len(cluster.ready(GATEWAY))
            eventually(
                "every replica refuses it",
                lambda: reloads(deployment, "refused") >= refused + count,
                CONFIG_TAKEN,
            )
            evidence("refused by", f"{count} replicas")
            assert config_hashes(deployment) == hashes, "another configuration runs"
            traffic.flow(SETTLE)
        finally:
            traffic.mark("mended")
            write_config(cluster, good)
        changed = {name: f"{text}\n# changed\n" for name, text in good.items()}
        taken = reloads(deployment, "ok")
        write_config(cluster, changed)
        eventually("a good one is taken", lambda: reloads(deployment, "ok") > taken, CONFIG_TAKEN)
        write_config(cluster, good)
        traffic.flow(SETTLE)
        result = traffic.stop()
    none_lost(evidence, result)


@line(
    "gateway.node-lost", "A lost node is left behind, and its requests are the last that are lost"
)
def test_a_node_is_lost(
    deployment: Session, calls: Plan, cluster: Cluster, evidence: Evidence
) -> None:
    name, cidr = node_to_lose(cluster)
    evidence("node", name)
    give_a_replica(cluster, name)
    caller = deployment.lab.caller_off(name)
    with flowing(deployment, calls, caller) as traffic:
        traffic.flow(SETTLE)
        traffic.mark("cut")
        deployment.lab.on_node(name, "cut", f"{CUT:g}", cidr)
        eventually("it is noticed", lambda: not ready_node(cluster, name), NODE_NOTICED)
        traffic.mark("noticed")
        await_replicas_elsewhere(cluster, name)
        traffic.mark("replaced")
        traffic.flow(SETTLE * 3)
        traffic.mark("settled")
        eventually("it is back", lambda: ready_node(cluster, name), CUT + RECOVERY)
        result = traffic.stop()
    await_replicas(cluster)
    tell(evidence, result)
    cut, noticed = result.at("cut"), result.at("noticed")
    evidence("noticed after", f"{noticed - cut:.0f} s")
    evidence("lost before that", len([one for one in result.lost if one["t"] < noticed]))
    replaced = result.at("replaced")
    evidence("gateway replaced after", f"{replaced - cut:.0f} s")
    late = [one for one in result.sent(replaced) if one["lost"]]
    assert not late, f"{len(late)} lost after it was replaced: {late[0]['lost']}"
    assert result.sent(replaced), "nothing was answered after it was replaced"


CUT = 60.0
"""Seconds that a node is cut off."""


def node_to_lose(cluster: Cluster) -> tuple[str, str]:
    """Return a node that is not the API server's, and the addresses of its pods.

    Raises:
        NotSupported: There is none.
    """
    nodes = cluster.all("Node", "")
    if len(nodes) < 2:
        raise NotSupported("the cluster has one node")
    if len(await_replicas(cluster)) < 2:
        raise NotSupported("the gateway has one replica")
    kept = api_server_node_or_none(cluster)
    node = next(one for one in nodes if one["metadata"]["name"] != kept)
    cidr = node["spec"].get("podCIDR")
    if not cidr:
        raise NotSupported("the cluster does not say which pods a node has (spec.podCIDR)")
    return str(node["metadata"]["name"]), str(cidr)


def give_a_replica(cluster: Cluster, node: str) -> None:
    """See that a replica of the gateway runs on a node, and another one elsewhere."""
    others = [one["metadata"]["name"] for one in cluster.all("Node", "")]
    others.remove(node)
    move_a_replica(cluster, [node], others)
    move_a_replica(cluster, others, [node])


def move_a_replica(cluster: Cluster, to: list[str], off: list[str]) -> None:
    """See that a replica runs on one of some nodes; `off` are all the others."""
    pods = await_replicas(cluster)

    def there() -> bool:
        return any(pod["spec"]["nodeName"] in to for pod in cluster.ready(GATEWAY))

    if there():
        return
    try:
        for name in off:
            cluster.patch("Node", name, {"spec": {"unschedulable": True}}, "")
        cluster.delete("Pod", pods[0]["metadata"]["name"])
        eventually(f"a replica runs on {' or '.join(to)}", there, RECOVERY, every=1.0)
    finally:
        for name in off:
            cluster.patch("Node", name, {"spec": {"unschedulable": None}}, "")
    await_replicas(cluster)


def api_server_node_or_none(cluster: Cluster) -> str:
    """Return the API server's node, empty where it is none of the cluster's."""
    try:
        return api_server_node(cluster)
    except NotSupported:
        return ""


def ready_node(cluster: Cluster, name: str) -> bool:
    """Whether a node is ready."""
    return bool(is_ready(cluster.get("Node", name, "")))


def await_replicas_elsewhere(cluster: Cluster, node: str) -> None:
    """Wait until the gateway has its replicas on other nodes."""
    wanted = cluster.get("Deployment", GATEWAY)["spec"]["replicas"]

    def look() -> bool:
        pods = [pod for pod in cluster.ready(GATEWAY) if pod["spec"]["nodeName"] != node]
        return bool(len(pods) >= wanted)

    eventually("its pods run elsewhere", look, NODE_NOTICED, every=1.0)
