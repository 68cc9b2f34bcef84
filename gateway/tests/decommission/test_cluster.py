"""The command against a real API server: what it does to the objects, and what it undoes."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from synapse_gateway import cli
from synapse_gateway.decommission import Kube, KubeError, changes, make_plan
from tests.decommission.cluster import MOVER, ApiServer, Controllers, Models
from tests.decommission.conftest import KEY
from tests.decommission.objects import Object, namespace, policy, service, workload
from tests.real.stack import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow
_numbers = count()
SERVER_OWN = {"resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"}
GATEWAY_PODS = {"app": "synapse-gateway"}


@dataclass
class Place:
    """An application's namespace and a gateway's, which no other test uses."""

    kube: Kube
    kubeconfig: str
    gateway_url: str
    app: str
    infra: str
    urls: list[str] = field(default_factory=list)

    def create(self, *things: Object) -> None:
        for thing in things:
            thing["metadata"].pop("resourceVersion", None)
            if thing["kind"] == "Service":
                for key in ("clusterIP", "clusterIPs"):
                    thing["spec"].pop(key, None)
            self.kube.create(thing)

    def get(self, kind: str, name: str = "ollama") -> Object:
        return self.kube.get(kind, self.app, name)

    def spec(self, kind: str, name: str = "ollama") -> Object:
        spec: Object = self.get(kind, name)["spec"]
        return spec

    def snapshot(self) -> dict[str, Object]:
        """Return everything of the application's namespace that somebody wrote."""
        kinds = ("Service", "Deployment", "StatefulSet")
        return {
            changes.name_of(thing): {
                "spec": thing["spec"],
                "labels": thing["metadata"].get("labels"),
                "annotations": thing["metadata"].get("annotations"),
            }
            for kind in kinds
            for thing in self.kube.list(kind, self.app)
        }

    def patch(self, kind: str, patch: Object, name: str = "ollama") -> None:
        self.kube.patch(self.get(kind, name), patch)

    def await_endpoints(self, namespace: str, *, there: bool = True) -> None:
        def as_wanted() -> bool | None:
            services = len(self.kube.list("Service", namespace)) if there else 0
            return len(self.kube.list("EndpointSlice", namespace)) == services or None

        until(as_wanted, f"endpoints in {namespace}")

    def instance(self, server: Models, name: str = "ollama") -> None:
        self.urls += ["--instance-url", f"{self.app}/{name}={server.url}"]

    def run(self, *arguments: str) -> int:
        fixed = [
            *("--kubeconfig", self.kubeconfig, "--namespace", self.app),
            *("--gateway-service", f"synapse-gateway.{self.infra}"),
            *("--gateway-url", self.gateway_url, "--drain", "0", "--timeout", "30"),
        ]
        return cli.main(["decommission", *fixed, *self.urls, *arguments])


@pytest.fixture
def place(
    api_server: ApiServer,
    kube: Kube,
    controllers: Controllers,
    gateway_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Place]:
    monkeypatch.setattr("synapse_gateway.decommission.run.POLL", 0.05)
    number = next(_numbers)
    made = Place(
        kube=kube,
        kubeconfig=str(api_server.kubeconfig(token=MOVER)),
        gateway_url=gateway_url,
        app=f"app-{number}",
        infra=f"infra-{number}",
    )
    for name in (made.app, made.infra):
        kube.call("POST", "/api/v1/namespaces", namespace(name))
    made.create(
        service("synapse-gateway", made.infra, port=8000, selector=GATEWAY_PODS),
        service("ollama", made.infra, selector=GATEWAY_PODS),
        workload("synapse-gateway", made.infra, image="synapse-gateway", labels=GATEWAY_PODS),
    )
    made.await_endpoints(made.infra)
    yield made
    for kind in ("Service", "Deployment", "StatefulSet"):
        for thing in kube.list(kind, made.app):
            kube.delete(thing)


@pytest.fixture
def running(place: Place, ollama: Callable[..., Models]) -> Place:
    """An application with an Ollama of its own, whose models the gateway has."""
    place.create(service(namespace=place.app), workload(namespace=place.app))
    place.instance(ollama("llama3.1:8b", "mxbai-embed-large:latest"))
    place.await_endpoints(place.app)
    return place


Output = pytest.CaptureFixture[str]


def test_the_plan_shows_and_changes_nothing(running: Place, capsys: Output) -> None:
    before = running.snapshot()
    assert running.run() == 0
    shown = capsys.readouterr().out
    assert "Deployment/ollama" in shown
    assert f"Their names will lead to ollama.{running.infra}.svc.cluster.local." in shown
    assert f"Deployment {running.app}/ollama: 2 -> 0 replicas" in shown
    assert running.snapshot() == before


def test_apply_gives_the_name_to_the_gateway_keeps_the_address_and_stops_the_pods(
    running: Place,
) -> None:
    address = running.spec("Service")["clusterIP"]
    assert running.run("--apply") == 0
    alias = running.spec("Service")
    host = f"ollama.{running.infra}.svc.cluster.local"
    assert (alias["type"], alias["externalName"]) == ("ExternalName", host)
    assert "clusterIP" not in alias
    assert running.spec("Service", "ollama-synapse-address")["clusterIP"] == address
    assert running.spec("Deployment")["replicas"] == 0
    assert running.kube.list("EndpointSlice", running.app, f"{changes.MADE}=bridge") == []


def test_undo_puts_everything_back_to_the_letter(running: Place, capsys: Output) -> None:
    before = running.snapshot()
    assert running.run("--apply") == 0
    assert running.snapshot() != before
    assert running.run("--undo") == 0
    after = running.snapshot()
    for thing in after.values():
        thing["annotations"] = thing["annotations"] or None
    assert after == before
    assert running.kube.list("EndpointSlice", running.app, changes.MADE) == []
    capsys.readouterr()
    assert running.run("--undo") == 0
    assert "nothing was left to undo" in capsys.readouterr().out


def test_undo_can_be_looked_at_first(running: Place, capsys: Output) -> None:
    assert running.run("--apply") == 0
    before = running.snapshot()
    capsys.readouterr()
    assert running.run("--undo", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert f"Deployment {running.app}/ollama: back to 2 replicas" in shown
    assert f"Service {running.app}/ollama: its name leads to its own pods again" in shown
    assert running.snapshot() == before


def test_the_pods_are_stopped_when_the_drain_is_over(
    running: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, str, int]] = []

    def sleep(seconds: float) -> None:
        service_type = running.spec("Service")["type"]
        seen.append((seconds, service_type, running.spec("Deployment")["replicas"]))

    monkeypatch.setattr("synapse_gateway.commands.decommission.time.sleep", sleep)
    assert running.run("--apply", "--drain", "3600") == 0
    drain = [entry for entry in seen if entry[0] > 1]
    assert len(drain) == 1
    assert 3000 < drain[0][0] <= 3600
    assert drain[0][1:] == ("ExternalName", 2)
    assert running.spec("Deployment")["replicas"] == 0


def test_only_what_the_labels_choose_is_moved(
    running: Place, ollama: Callable[..., Models]
) -> None:
    running.create(
        service("chosen", running.app, port=11434, selector={"app": "b"}, labels={"move": "yes"}),
        workload("b", running.app, labels={"app": "b"}),
    )
    running.instance(ollama("llama3.1"), "chosen")
    assert running.run("--apply", "--selector", "move=yes") == 0
    assert running.spec("Service", "chosen")["type"] == "ExternalName"
    assert running.spec("Service")["type"] == "ClusterIP"
    assert running.spec("Deployment")["replicas"] == 2
    assert running.run("--undo", "--selector", "move=yes") == 0
    assert running.spec("Service", "chosen")["type"] == "ClusterIP"
    assert running.spec("Deployment", "b")["replicas"] == 2


def test_every_namespace_is_looked_through_if_none_is_named(running: Place, capsys: Output) -> None:
    where = ["--kubeconfig", running.kubeconfig, "--gateway-url", running.gateway_url]
    service_name = ["--gateway-service", f"synapse-gateway.{running.infra}"]
    cli.main(["decommission", *where, *service_name, *running.urls, "--output", "json"])
    found = json.loads(capsys.readouterr().out)["instances"]
    assert (running.app, "ollama") in [(i["namespace"], i["service"]) for i in found]


def after_the_plan(monkeypatch: pytest.MonkeyPatch, change: Callable[[], None]) -> None:
    """Let others change something between the plan and its execution."""

    def plan_and_then_change(*arguments: Any) -> Any:
        plan = make_plan(*arguments)
        change()
        return plan

    monkeypatch.setattr("synapse_gateway.commands.decommission.make_plan", plan_and_then_change)


def test_a_change_between_the_plan_and_its_execution_is_not_overwritten(
    running: Place, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [{"name": "http", "port": 11434}, {"name": "metrics", "port": 9090}]
    change = {"spec": {"ports": ports}}
    after_the_plan(monkeypatch, lambda: running.patch("Service", change))
    assert running.run("--apply") == 1
    assert "was changed by others since the plan was made" in capsys.readouterr().err
    assert running.spec("Service")["type"] == "ClusterIP"
    assert running.spec("Deployment")["replicas"] == 2


def test_a_change_of_what_does_not_count_is_no_conflict(
    running: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = {"metadata": {"annotations": {"seen": "1"}}}
    after_the_plan(monkeypatch, lambda: running.patch("Service", change))
    assert running.run("--apply") == 0
    assert running.get("Service")["metadata"]["annotations"]["seen"] == "1"


def test_a_service_that_is_deleted_after_the_plan_is_named(
    running: Place, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_the_plan(monkeypatch, lambda: running.kube.delete(running.get("Service")))
    assert running.run("--apply") == 1
    assert f"Service {running.app}/ollama was deleted by others" in capsys.readouterr().err
    assert running.spec("Deployment")["replicas"] == 2


def test_a_namespace_without_an_ollama_has_nothing_to_move(place: Place, capsys: Output) -> None:
    assert place.run("--apply") == 0
    assert "No Ollama instance in other namespaces." in capsys.readouterr().out


def test_a_second_apply_changes_nothing(running: Place, capsys: Output) -> None:
    assert running.run("--apply") == 0
    before = running.snapshot()
    assert running.run("--apply", "--output", "json") == 0
    out = capsys.readouterr().out
    answer = json.loads(out[out.index("{") :])
    assert answer["changes"] == []
    assert answer["instances"][0]["state"] == "stopped"
    assert running.snapshot() == before


WRITES = {"POST", "PATCH", "DELETE"}


class Cut(Exception):
    """The run ends here, as if its process was killed."""


def applied_but_cut(place: Place, writes: int, *arguments: str) -> bool:
    """Whether the run was cut before its end."""
    done = count()

    class Limited(Kube):
        def call(self, method: str, path: str, *more: Any, **others: Any) -> Any:
            if method in WRITES and next(done) >= writes:
                raise Cut
            return super().call(method, path, *more, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("synapse_gateway.commands.decommission.Kube", Limited)
        try:
            place.run(*arguments)
        except Cut:
            return True
        return False


@pytest.mark.parametrize("writes", range(5))
def test_a_run_that_was_cut_anywhere_is_continued(running: Place, writes: int) -> None:
    # bridge, alias, address, bridge away, scale down
    assert applied_but_cut(running, writes, "--apply")
    assert running.run("--apply") == 0
    assert running.spec("Service")["type"] == "ExternalName"
    assert running.spec("Service", "ollama-synapse-address")["type"] == "ClusterIP"
    assert running.spec("Deployment")["replicas"] == 0
    assert running.kube.list("EndpointSlice", running.app, f"{changes.MADE}=bridge") == []


@pytest.mark.parametrize("writes", range(5))
def test_a_run_that_was_cut_anywhere_is_undone(running: Place, writes: int) -> None:
    before = running.snapshot()
    assert applied_but_cut(running, writes, "--apply")
    assert running.run("--undo") == 0
    assert running.snapshot() == before
    assert running.kube.list("EndpointSlice", running.app, changes.MADE) == []


@pytest.mark.parametrize("writes", range(5))
def test_an_undo_that_was_cut_anywhere_is_continued(running: Place, writes: int) -> None:
    before = running.snapshot()
    assert running.run("--apply") == 0
    # scale up, bridge, address away, name, bridge away
    assert applied_but_cut(running, writes, "--undo")
    assert running.run("--undo") == 0
    assert running.snapshot() == before
    assert running.kube.list("EndpointSlice", running.app, changes.MADE) == []


def test_a_model_that_the_gateway_lacks_stops_everything(
    running: Place, ollama: Callable[..., Models], capsys: Output
) -> None:
    running.create(
        service("ollama-b", running.app, selector={"app": "b"}),
        workload("b", running.app, labels={"app": "b"}),
    )
    running.instance(ollama("qwen3:4b", "llama3.1:8b"), "ollama-b")
    before = running.snapshot()
    assert running.run("--apply") == 1
    text = capsys.readouterr()
    assert "qwen3:4b" in text.out
    assert f"the gateway lacks qwen3:4b of {running.app}/ollama-b" in text.out
    assert "nothing was changed" in text.err
    assert running.snapshot() == before
    assert running.run("--apply", "--allow-missing", "qwen3:4b") == 0
    assert running.spec("Deployment", "b")["replicas"] == 0


def test_an_instance_that_does_not_answer_stops_everything(running: Place, capsys: Output) -> None:
    running.urls = []  # by the API server's proxy, which has no pods to call
    name = f"{running.app}/ollama"
    assert running.run("--apply") == 1
    assert f"the models of {name} cannot be listed" in capsys.readouterr().out
    assert running.spec("Service")["type"] == "ClusterIP"
    assert running.run("--apply", "--allow-unlisted", name) == 0


def test_a_gateway_that_wants_keys_stops_everything(
    running: Place,
    locked_gateway_url: str,
    capsys: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running.gateway_url = locked_gateway_url
    assert running.run("--apply") == 1
    assert "serves nobody without a key" in capsys.readouterr().err
    monkeypatch.setenv("SYNAPSE_API_KEY", KEY)
    assert running.run("--apply") == 1
    assert "say --callers-send-keys when yours do" in capsys.readouterr().out
    assert running.spec("Service")["type"] == "ClusterIP"
    assert running.run("--apply", "--callers-send-keys") == 0


def test_a_namespace_that_the_policies_keep_out_stops_everything(
    running: Place, capsys: Output
) -> None:
    admitted = {"namespaceSelector": {"matchLabels": {"synapse.io/access": "true"}}}
    rule = {"from": [admitted], "ports": [{"port": 11434}]}
    running.create(policy("in", running.infra, podSelector={}, ingress=[rule]))
    assert running.run("--apply") == 1
    assert (
        f"kubectl label namespace {running.app} synapse.io/access=true" in capsys.readouterr().out
    )
    path = f"/api/v1/namespaces/{running.app}"
    merge = {"Content-Type": "application/merge-patch+json"}
    label = {"metadata": {"labels": {"synapse.io/access": "true"}}}
    running.kube.call("PATCH", path, label, merge)
    assert running.run("--apply") == 0


def test_a_gateway_without_pods_stops_everything(running: Place, capsys: Output) -> None:
    running.kube.delete(running.kube.get("Deployment", running.infra, "synapse-gateway"))
    running.await_endpoints(running.infra, there=False)
    assert running.run("--apply") == 1
    assert f"{running.infra}/ollama has no endpoint that is ready" in capsys.readouterr().out


def test_an_alias_that_others_changed_is_not_undone_but_its_pods_are(
    running: Place, capsys: Output
) -> None:
    assert running.run("--apply") == 0
    running.patch("Service", {"spec": {"externalName": "elsewhere.example"}})
    assert running.run("--undo") == 1
    assert "was changed by others since it became an alias" in capsys.readouterr().err
    assert running.spec("Service")["externalName"] == "elsewhere.example"
    assert running.spec("Service", "ollama-synapse-address")
    assert running.spec("Deployment")["replicas"] == 2


def test_pods_that_others_started_again_are_left_alone(running: Place, capsys: Output) -> None:
    assert running.run("--apply") == 0
    running.patch("Deployment", {"spec": {"replicas": 3}})
    assert running.run("--apply") == 1
    assert "was scaled to 3 by others" in capsys.readouterr().err
    assert running.run("--undo") == 1
    assert running.spec("Deployment")["replicas"] == 3
    assert running.spec("Service")["type"] == "ClusterIP"


def test_a_name_stays_with_the_gateway_until_a_pod_is_ready(
    running: Place, controllers: Controllers, capsys: Output
) -> None:
    assert running.run("--apply") == 0
    controllers.ready = False
    assert running.run("--undo", "--timeout", "1") == 1
    assert "none of its pods is ready after 1 s" in capsys.readouterr().err
    assert running.spec("Service")["type"] == "ExternalName"
    controllers.ready = True
    assert running.run("--undo") == 0
    assert running.spec("Service")["type"] == "ClusterIP"


def test_an_address_that_was_taken_is_replaced_by_a_new_one(running: Place, capsys: Output) -> None:
    address = running.spec("Service")["clusterIP"]
    assert running.run("--apply") == 0
    running.kube.delete(running.get("Service", "ollama-synapse-address"))
    taken = service("other", running.infra, selector={"app": "other"})
    del taken["metadata"]["resourceVersion"]
    taken["spec"].update(clusterIP=address, clusterIPs=[address])
    running.kube.create(taken)
    assert running.run("--undo") == 0
    assert "its address was taken meanwhile" in capsys.readouterr().err
    spec = running.spec("Service")
    assert spec["type"] == "ClusterIP"
    assert spec["clusterIP"] != address


def test_a_stateful_set_with_a_headless_service_moves_and_comes_back(
    place: Place, ollama: Callable[..., Models]
) -> None:
    headless = service(namespace=place.app)
    place.create(headless, workload(namespace=place.app, kind="StatefulSet"))
    spec = place.get("Service")
    place.kube.delete(spec)
    spec["spec"].update(clusterIP="None", clusterIPs=["None"])
    spec["metadata"] = {"name": "ollama", "namespace": place.app}
    place.kube.create(spec)
    place.instance(ollama())
    before = place.snapshot()
    assert place.run("--apply") == 0
    assert place.spec("StatefulSet")["replicas"] == 0
    assert [s["metadata"]["name"] for s in place.kube.list("Service", place.app)] == ["ollama"]
    assert place.run("--undo") == 0
    assert place.snapshot() == before


def test_a_patch_made_from_an_older_version_is_refused(running: Place) -> None:
    stale = running.get("Deployment")
    running.patch("Deployment", {"metadata": {"annotations": {"seen": "1"}}})
    with pytest.raises(KubeError) as conflict:
        running.kube.patch(stale, {"spec": {"replicas": 0}})
    assert (conflict.value.status, conflict.value.reason) == (409, "Conflict")


def test_the_old_address_cannot_be_taken_while_the_name_is_the_gateways(running: Place) -> None:
    address = running.spec("Service")["clusterIP"]
    assert running.run("--apply") == 0
    other = service("other", running.infra)
    del other["metadata"]["resourceVersion"]
    other["spec"].update(clusterIP=address, clusterIPs=[address])
    with pytest.raises(KubeError, match="already allocated"):
        running.kube.create(other)


def test_without_the_right_the_api_servers_own_sentence_is_shown(
    running: Place, api_server: ApiServer, capsys: Output
) -> None:
    running.kubeconfig = str(api_server.kubeconfig(token="nobody"))
    assert running.run() == 1
    assert "401: Unauthorized" in capsys.readouterr().err


def test_a_certificate_is_proof_enough(running: Place, api_server: ApiServer) -> None:
    certificate = {"client-certificate": "admin.crt", "client-key": "admin.key"}
    running.kubeconfig = str(api_server.kubeconfig(**certificate))
    assert running.run() == 0
