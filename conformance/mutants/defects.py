"""The defects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from conformance.suite.monitoring import Prometheus
from conformance.suite.timeouts import ALERT, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.mutants.bench import Bench
    from conformance.suite.cluster import Object


class Defect(NamedTuple):
    """A way to be wrong.

    Attributes:
        name: What it is called.
        about: What is wrong, for the table.
        line: The line that catches it.
        make: Makes it.
    """

    name: str
    about: str
    line: str
    make: Callable[[Bench], None]


# -- network


def policy_deleted(bench: Bench) -> None:
    bench.delete("NetworkPolicy", "whisper-stt")


def policies_admit_everybody(bench: Bench) -> None:
    spec: Any = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}
    bench.add({"kind": "NetworkPolicy", "metadata": {"name": "hole"}, "spec": spec})


def egress_open(bench: Bench) -> None:
    spec: Any = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{}]}
    bench.add({"kind": "NetworkPolicy", "metadata": {"name": "way-out"}, "spec": spec})


def wrong_service_port(bench: Bench) -> None:
    def change(service: Object) -> None:
        service["spec"]["ports"][0]["targetPort"] = 5999

    bench.edit("Service", "piper-tts", change)


def wrong_selector(bench: Bench) -> None:
    def change(service: Object) -> None:
        service["spec"]["selector"]["app.kubernetes.io/name"] = "llama-embeddings"

    bench.edit("Service", "llama-embed", change)


# -- configuration


def failover_off(bench: Bench) -> None:
    def change(config: dict[str, Any]) -> None:
        config["limits"]["attempts"] = 1

    bench.configure(change)


def keys_off(bench: Bench) -> None:
    def change(config: dict[str, Any]) -> None:
        config["auth"] = "anonymous"

    bench.configure(change)


def key_for_every_model(bench: Bench) -> None:
    def change(config: dict[str, Any]) -> None:
        config["keys"]["restricted"]["models"].append("*")

    bench.configure(change)


def dead_backend(bench: Bench) -> None:
    def change(config: dict[str, Any]) -> None:
        backend = config["backends"]["whisper-stt"]
        backend["url"] = f"{backend['url'].rpartition(':')[0]}:5999"

    bench.configure(change)


# -- monitoring


def alert_renamed(bench: Bench) -> None:
    def change(rules: Object) -> None:
        for rule in rules["spec"]["groups"][0]["rules"]:
            if rule.get("alert") == "FallbackRateHigh":
                rule["alert"] = "FallbackRateIsHigh"

    bench.edit("PrometheusRule", "synapse-alerts-backends", change)
    prometheus = Prometheus(bench.deployment)

    def loaded() -> bool:
        return "FallbackRateIsHigh" in {rule["name"] for rule in prometheus.rules()}

    eventually("Prometheus has the rule", loaded, ALERT, 1)


def monitor_astray(bench: Bench) -> None:
    def change(monitor: Object) -> None:
        monitor["spec"]["endpoints"][0]["path"] = "/metric"

    bench.edit("ServiceMonitor", "piper-tts", change)
    prometheus = Prometheus(bench.deployment)

    def down() -> bool:
        ours = (one for one in prometheus.targets() if one["labels"]["job"] == "piper-tts")
        return any(one["health"] == "down" for one in ours)

    eventually("Prometheus has the monitor", down, ALERT, 1)


# -- the gateway itself

FALSE_DONE = """\
from synapse_gateway.proxy import dialects
dialects.ChatDialect.error_event = lambda self, error: b"data: [DONE]\\n\\n"
"""


def false_done(bench: Bench) -> None:
    bench.code(FALSE_DONE)


DEFECTS = (
    Defect(
        "policy-deleted",
        "the NetworkPolicy of whisper-stt is deleted",
        "network.in.whisper-stt:8000",
        policy_deleted,
    ),
    Defect(
        "policies-admit-everybody",
        "a NetworkPolicy admits everybody to every pod",
        "network.in.llama-router:8082",
        policies_admit_everybody,
    ),
    Defect(
        "egress-open",
        "a NetworkPolicy lets every pod out",
        "network.out.piper-tts",
        egress_open,
    ),
    Defect(
        "wrong-service-port",
        "the Service of Piper leads to a port where nobody listens",
        "api.speech",
        wrong_service_port,
    ),
    Defect("keys-off", "callers need no key", "api.keys.required", keys_off),
    Defect(
        "key-for-every-model",
        "a key that is for one model is for all",
        "api.limits.models",
        key_for_every_model,
    ),
    Defect(
        "wrong-selector",
        "the Service of llama-embed selects no pod",
        "deployment.healthy",
        wrong_selector,
    ),
    Defect(
        "dead-backend",
        "the address of Whisper has a wrong port",
        "deployment.healthy",
        dead_backend,
    ),
    Defect(
        "alert-renamed",
        "the fallback alert has another name",
        "monitoring.rules",
        alert_renamed,
    ),
    Defect(
        "monitor-astray",
        "a monitor asks for a wrong path",
        "monitoring.targets",
        monitor_astray,
    ),
    Defect(
        "failover-off",
        "a request is tried once only",
        "failover.packets-dropped",
        failover_off,
    ),
    Defect(
        "false-done",
        "a stream that breaks ends with [DONE], without an error",
        "failover.cut-mid-stream",
        false_done,
    ),
)
