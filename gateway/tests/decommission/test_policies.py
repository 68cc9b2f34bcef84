from __future__ import annotations

from typing import Any

import pytest

from synapse_gateway.decommission.policies import admits, matches
from tests.decommission.objects import Object, policy

PODS = {"app": "gateway"}
CALLER = {"synapse.io/access": "true", "kubernetes.io/metadata.name": "my-app"}
ADMITTED = {"namespaceSelector": {"matchLabels": {"synapse.io/access": "true"}}}
DENY_ALL = policy("deny", podSelector={}, policyTypes=["Ingress", "Egress"])


def ingress(*rules: Object, **selector: Any) -> Object:
    return policy(podSelector=selector, policyTypes=["Ingress"], ingress=list(rules))


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param([], True, id="no policy"),
        pytest.param([DENY_ALL], False, id="deny all"),
        pytest.param([ingress(matchLabels={"app": "redis"})], True, id="of other pods"),
        pytest.param(
            [policy(podSelector={}, policyTypes=["Egress"])], True, id="of the other direction"
        ),
        pytest.param([DENY_ALL, ingress({"from": [ADMITTED]})], True, id="by label"),
        pytest.param(
            [ingress({"from": [{"namespaceSelector": {"matchLabels": {"x": "y"}}}]})],
            False,
            id="by another label",
        ),
        pytest.param([ingress({})], True, id="everybody"),
        pytest.param([ingress({"from": [{"namespaceSelector": {}}]})], True, id="any namespace"),
        pytest.param([ingress({"from": [{"podSelector": {}}]})], False, id="its own pods only"),
        pytest.param(
            [ingress({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})], False, id="by address"
        ),
        pytest.param([ingress({"ports": [{"port": 11434}]})], True, id="the port"),
        pytest.param([ingress({"ports": [{"port": 8000}]})], False, id="another port"),
        pytest.param([ingress({"ports": [{"port": 11000, "endPort": 12000}]})], True, id="a range"),
        pytest.param([ingress({"ports": [{"port": "ollama"}]})], True, id="a named port"),
        pytest.param(
            [ingress({"ports": [{"port": 11434, "protocol": "UDP"}]})], False, id="protocol"
        ),
    ],
)
def test_callers_are_admitted_as_the_cluster_would(policies: list[Object], expected: bool) -> None:
    assert admits(policies, PODS, CALLER, 11434) is expected


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("In", ["true"], True),
        ("In", ["false"], False),
        ("NotIn", ["true"], False),
        ("Exists", None, True),
        ("DoesNotExist", None, False),
    ],
)
def test_expressions_of_selectors(operator: str, values: list[str] | None, expected: bool) -> None:
    expression = {"key": "synapse.io/access", "operator": operator, "values": values}
    assert matches({"matchExpressions": [expression]}, CALLER) is expected
