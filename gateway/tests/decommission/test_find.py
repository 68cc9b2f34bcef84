from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from synapse_gateway.decommission import changes
from synapse_gateway.decommission.errors import Refusal
from synapse_gateway.decommission.find import (
    Instance,
    Listing,
    Target,
    find_instances,
    find_target,
    repository,
)
from tests.decommission.objects import Object, merged, namespace, pod, policy, service, workload

TARGET = Target(
    namespace="llm-infra",
    name="ollama",
    ports=frozenset({11434}),
    pod_labels={"app": "gateway"},
    host="ollama.llm-infra.svc.cluster.local",
)


def found(*objects: Object, **options: Any) -> list[Instance]:
    def of(*kinds: str) -> list[Object]:
        return [thing for thing in objects if thing["kind"] in kinds]

    listing = Listing(
        services=of("Service"),
        pods=of("Pod"),
        workloads=of("Deployment", "StatefulSet"),
        namespaces={n["metadata"]["name"]: n for n in of("Namespace")},
        policies=of("NetworkPolicy"),
    )
    return find_instances(listing, TARGET, **options)


def names(instances: list[Instance]) -> list[str]:
    return [f"{i.namespace}/{i.name}" for i in instances]


def aliased(thing: Object) -> Object:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    result: Object = merged(thing, changes.alias_patch(thing, TARGET.host, now))
    return result


@pytest.mark.parametrize(
    ("thing", "there"),
    [
        pytest.param(service(), True, id="by name"),
        pytest.param(service(port=80), True, id="by name, on another port"),
        pytest.param(service("llm"), True, id="by port"),
        pytest.param(service("llm", port=80), False, id="neither"),
        pytest.param(service(selector=None), False, id="without a selector"),
        pytest.param(service(namespace="llm-infra"), False, id="the central one's namespace"),
        pytest.param(service(selector={"app": "x"}), False, id="selects nothing"),
        pytest.param(service(labels={changes.MADE: "address"}), False, id="keeper of an address"),
        pytest.param(aliased(service("llm")), True, id="an alias already"),
    ],
)
def test_services_are_found_by_name_or_port(thing: Object, there: bool) -> None:
    own = workload(namespace=thing["metadata"]["namespace"])
    assert bool(found(thing, own)) is there


@pytest.mark.parametrize(
    ("image", "there"),
    [
        ("ollama/ollama", True),
        ("ollama/ollama:0.17.4-rocm", True),
        ("localhost:5000/mirror/ollama@sha256:0123", True),
        ("alpine/ollama-cuda:1", True),
        ("open-webui/open-webui:ollama", False),
        ("ollama/proxy:1", False),
        ("my-ollama", False),
    ],
)
def test_pods_run_ollama_by_their_image(image: str, there: bool) -> None:
    assert bool(found(service(), workload(image=image))) is there


def test_the_image_is_the_users_to_choose() -> None:
    assert found(service(), workload(image="corp/llm:1"), image="^corp/llm$")


def test_the_users_choice_of_services_takes_the_place_of_name_and_port() -> None:
    things = (service(), service("llm", port=80), workload())
    assert names(found(*things, chosen=frozenset({("my-app", "llm")}))) == ["my-app/llm"]


@pytest.mark.parametrize(
    ("image", "plain"),
    [("a/b:1", "a/b"), ("host:80/a/b", "host:80/a/b"), ("a@sha256:1", "a"), ("a:1@sha256:2", "a")],
)
def test_a_repository_is_an_image_without_tag_and_digest(image: str, plain: str) -> None:
    assert repository(image) == plain


def test_a_clean_instance_is_not_blocked() -> None:
    (instance,) = found(
        service(),
        workload(),
        pod(),
        namespace("my-app", synapse__io="x"),
        service("web", port=80, selector={"app": "web"}),
    )
    assert instance.blockers == ()
    assert instance.state == "running"


@pytest.mark.parametrize(
    ("things", "sentence"),
    [
        pytest.param(
            [service(type="LoadBalancer"), workload()],
            "of type LoadBalancer, and callers from outside the cluster would lose it",
            id="reached from outside",
        ),
        pytest.param(
            [service(port=80), workload()],
            "has port 80, which llm-infra/ollama does not answer",
            id="another port",
        ),
        pytest.param(
            [service(), pod(owner=None)],
            "pod my-app/ollama-7d9f-x is of nobody",
            id="a pod alone",
        ),
        pytest.param(
            [service(), workload(), pod("gpu-x", owner=("DaemonSet", "gpu"))],
            "pod my-app/gpu-x is of DaemonSet gpu",
            id="pods of a DaemonSet beside",
        ),
        pytest.param(
            [service(), service("metrics", port=9090), workload()],
            "Service my-app/metrics leads to Deployment my-app/ollama as well",
            id="a second name that cannot move",
        ),
        pytest.param(
            [service(), workload(replicas=0, annotations={changes.REPLICAS: "1"})],
            "was stopped by this command, but Service my-app/ollama is no alias any more",
            id="its alias was taken back by others",
        ),
        pytest.param(
            [
                service(),
                workload(),
                namespace("my-app"),
                policy(
                    podSelector={},
                    ingress=[
                        {
                            "from": [
                                {
                                    "namespaceSelector": {
                                        "matchLabels": {"synapse.io/access": "true"}
                                    }
                                }
                            ]
                        }
                    ],
                ),
            ],
            "kubectl label namespace my-app synapse.io/access=true",
            id="not admitted",
        ),
        pytest.param(
            [merged(aliased(service()), {"spec": {"externalName": "other"}}), workload()],
            "was changed by others since it became an alias",
            id="an alias that others changed",
        ),
    ],
)
def test_what_cannot_be_moved_says_why(things: list[Object], sentence: str) -> None:
    (instance,) = found(*things)
    assert len(instance.blockers) == 1
    assert sentence in instance.blockers[0]


def test_two_names_of_one_workload_move_together() -> None:
    instances = found(service(), service("ollama-api"), workload())
    assert names(instances) == ["my-app/ollama", "my-app/ollama-api"]
    assert [i.blockers for i in instances] == [(), ()]


@pytest.mark.parametrize(
    ("labels", "annotations", "manager"),
    [
        ({"app.kubernetes.io/managed-by": "Helm"}, {}, "Helm"),
        ({}, {"argocd.argoproj.io/tracking-id": "x"}, "Argo CD"),
        ({"kustomize.toolkit.fluxcd.io/name": "x"}, {}, "Flux"),
    ],
)
def test_who_may_put_it_back_is_named(
    labels: dict[str, str], annotations: dict[str, str], manager: str
) -> None:
    (instance,) = found(service(labels=labels, annotations=annotations), workload())
    assert any(f"is kept by {manager}" in text for text in instance.notes)


def test_limits_on_what_the_applications_may_call_are_noted() -> None:
    (instance,) = found(
        service(), workload(), policy("own", "my-app", podSelector={}, policyTypes=["Egress"])
    )
    assert any("limit what its pods may call (own)" in text for text in instance.notes)


@pytest.mark.parametrize(
    ("service_", "noted", "state"),
    [
        (service(), None, "running"),
        (aliased(service()), None, "aliased"),
        (aliased(service()), "2", "stopped"),
    ],
)
def test_the_state_is_read_from_the_objects(
    service_: Object, noted: str | None, state: str
) -> None:
    annotations = {changes.REPLICAS: noted} if noted else {}
    (instance,) = found(service_, workload(replicas=0 if noted else 2, annotations=annotations))
    assert instance.state == state


GATEWAY = {"app": "gateway"}


def target(*services: Object) -> Target:
    listing = Listing(services=services, pods=[], workloads=[])
    return find_target(listing, "llm-infra", "synapse-gateway", "cluster.local")


def test_names_lead_to_the_service_that_has_ollamas_port_before_the_same_pods() -> None:
    gateway = service("synapse-gateway", "llm-infra", port=8000, selector=GATEWAY)
    engine = service("ollama-engine", "llm-infra")
    ollama = service("ollama", "llm-infra", selector=GATEWAY)
    assert target(engine, gateway, ollama).host == "ollama.llm-infra.svc.cluster.local"


def test_a_gateway_that_has_ollamas_port_is_taken_itself() -> None:
    both = [{"port": 8000}, {"port": 11434}]
    gateway = service("synapse-gateway", "llm-infra", selector=GATEWAY, ports=both)
    assert target(gateway, service("ollama", "llm-infra", selector=GATEWAY)).ports == {8000, 11434}


def test_a_gateway_without_ollamas_port_is_refused() -> None:
    gateway = service("synapse-gateway", "llm-infra", port=8000, selector=GATEWAY)
    with pytest.raises(Refusal, match=r"answers port 11434; enable .*ollamaService\.enabled"):
        target(gateway, service("ollama-engine", "llm-infra"))


def test_a_gateway_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refusal, match="there is no Service llm-infra/synapse-gateway"):
        target(service())
