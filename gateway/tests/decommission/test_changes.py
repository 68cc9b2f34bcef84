from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from synapse_gateway.decommission import changes
from synapse_gateway.decommission.errors import Refusal
from tests.decommission.objects import Object, merged, service, workload

if TYPE_CHECKING:
    from collections.abc import Callable

HOST = "ollama.llm-infra.svc.cluster.local"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def aliased(thing: Object | None = None, since: datetime = NOON) -> Object:
    thing = thing or service()
    result: Object = merged(thing, changes.alias_patch(thing, HOST, since))
    return result


def test_an_alias_has_the_gateways_name_and_no_address() -> None:
    spec = aliased()["spec"]
    assert (spec["type"], spec["externalName"]) == ("ExternalName", HOST)
    assert not {"clusterIP", "clusterIPs", "ipFamilies", "internalTrafficPolicy"} & spec.keys()
    assert spec["ports"] == service()["spec"]["ports"]


def test_a_restored_service_is_what_it_was() -> None:
    before = service(sessionAffinity="ClientIP", publishNotReadyAddresses=True)
    after = merged(aliased(before), changes.restore_patch(aliased(before)))
    assert after == before


def test_a_service_whose_address_is_taken_is_restored_without() -> None:
    patch = changes.restore_patch(aliased(), with_address=False)
    assert not {"clusterIP", "clusterIPs"} & patch["spec"].keys()
    assert patch["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("type", {"type": "ClusterIP"}),
        ("externalName", {"externalName": "elsewhere.example"}),
        ("ports", {"ports": [{"name": "http", "port": 80}]}),
        ("selector", {"selector": {"app": "other"}}),
    ],
)
def test_an_alias_that_others_changed_is_left_alone(field: str, change: Object) -> None:
    with pytest.raises(Refusal, match=rf"Service my-app/ollama was changed by others.*{field}"):
        changes.restore_patch(merged(aliased(), {"spec": change}))


def test_other_annotations_and_labels_are_no_change_that_counts() -> None:
    other = merged(aliased(), {"metadata": {"annotations": {"a": "b"}, "labels": {"c": "d"}}})
    restored = merged(other, changes.restore_patch(other))
    assert restored["metadata"]["annotations"] == {"a": "b"}


@pytest.mark.parametrize("damage", ["", "{", "[]", '"text"'])
def test_a_damaged_note_is_named(damage: str) -> None:
    thing = merged(aliased(), {"metadata": {"annotations": {changes.ORIGINAL: damage}}})
    with pytest.raises(Refusal, match=changes.ORIGINAL):
        changes.restore_patch(thing)


def test_the_old_address_is_kept_in_front_of_the_same_pods() -> None:
    for thing in (service(), aliased()):
        keeper = changes.address_service(thing)
        assert keeper is not None
        assert keeper["metadata"]["name"] == "ollama-synapse-address"
        assert keeper["spec"] == service()["spec"]
        assert changes.is_ours(keeper)


@pytest.mark.parametrize("address", ["None", "", None])
def test_a_service_without_an_address_leaves_none_to_keep(address: str | None) -> None:
    assert changes.address_service(service(clusterIP=address)) is None


def test_the_names_of_what_is_made_fit_into_a_dns_label() -> None:
    name = changes.address_name("a" * 46 + "-" + "b" * 16)
    assert len(name) <= 63
    assert "--" not in name


def test_a_bridge_holds_the_endpoints_that_are_there_now() -> None:
    endpoints = [{"addresses": ["10.1.0.3"], "conditions": {"ready": True}}]
    ports = [{"name": "http", "port": 11434}]
    slices: list[Object] = [
        {
            "metadata": {"name": "ollama-x1", "namespace": "my-app"},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": ports,
        },
        {"metadata": {"name": "ollama-x2", "namespace": "my-app"}, "endpoints": None},
    ]
    (bridge,) = changes.bridges(slices, "ollama-synapse-address")
    assert (bridge["endpoints"], bridge["ports"]) == (endpoints, ports)
    labels = bridge["metadata"]["labels"]
    assert labels[changes.SLICE_SERVICE] == "ollama-synapse-address"
    # so that neither the controller nor a second run takes it for its own
    assert labels[changes.SLICE_MANAGER] != changes.CONTROLLER
    assert changes.bridges([bridge], "other") == []


@pytest.mark.parametrize(
    ("replicas", "noted", "expected"),
    [
        pytest.param(2, None, (0, "2"), id="running"),
        pytest.param(0, None, (0, "0"), id="at zero by its owner"),
        pytest.param(0, "2", None, id="stopped by an earlier run"),
    ],
)
def test_scaling_down_notes_the_replicas(
    replicas: int, noted: str | None, expected: tuple[int, str] | None
) -> None:
    thing = workload(replicas=replicas, annotations={changes.REPLICAS: noted} if noted else {})
    patch = changes.scale_down_patch(thing)
    if expected is None:
        assert patch is None
        return
    after = merged(thing, patch)
    found = (after["spec"]["replicas"], after["metadata"]["annotations"][changes.REPLICAS])
    assert found == expected


@pytest.mark.parametrize(
    ("replicas", "noted", "expected"),
    [
        pytest.param(0, "2", 2, id="stopped"),
        pytest.param(2, "2", 2, id="scaled back by others to what it was"),
        pytest.param(0, "0", 0, id="was at zero"),
    ],
)
def test_scaling_up_restores_the_replicas_and_removes_the_note(
    replicas: int, noted: str, expected: int
) -> None:
    thing = workload(replicas=replicas, annotations={changes.REPLICAS: noted, "own": "1"})
    after = merged(thing, changes.scale_up_patch(thing))
    assert after["spec"]["replicas"] == expected
    assert after["metadata"]["annotations"] == {"own": "1"}


def test_a_workload_that_was_never_stopped_is_not_scaled_up() -> None:
    assert changes.scale_up_patch(workload()) is None


@pytest.mark.parametrize(
    ("step", "replicas", "noted", "sentence"),
    [
        (changes.scale_down_patch, 3, "2", "Deployment my-app/ollama was scaled to 3 by others"),
        (changes.scale_up_patch, 3, "2", r"was scaled to 3 by others .* \(it had 2\)"),
        (changes.scale_up_patch, 0, "two", "must be a number .got 'two'"),
    ],
)
def test_a_workload_that_others_scaled_is_left_alone(
    step: Callable[[Object], Object | None], replicas: int, noted: str, sentence: str
) -> None:
    with pytest.raises(Refusal, match=sentence):
        step(workload(replicas=replicas, annotations={changes.REPLICAS: noted}))


def test_replicas_that_are_not_given_are_one() -> None:
    thing = workload()
    del thing["spec"]["replicas"]
    assert changes.replicas_of(thing) == 1


@pytest.mark.parametrize(
    ("ages", "left"),
    [
        ([], 0),
        ([0], 300),
        ([100, 200], 200),
        ([400], -100),
        ([-50], 300),  # the clock of the machine that made the note is ahead
    ],
)
def test_the_drain_counts_from_the_youngest_alias(ages: list[float], left: float) -> None:
    services = [aliased(since=NOON - timedelta(seconds=age)) for age in ages]
    assert changes.drain_left(services, 300, NOON) == max(0, left)


def test_a_damaged_time_means_the_whole_drain() -> None:
    thing = merged(aliased(), {"metadata": {"annotations": {changes.TIME: "yesterday"}}})
    assert changes.drain_left([thing], 300, NOON) == 300
