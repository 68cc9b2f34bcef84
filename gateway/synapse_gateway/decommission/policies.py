"""Whether NetworkPolicies let callers in, by the rules of `networking.k8s.io/v1`. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from synapse_gateway.decommission.kube import Object


def admits(
    policies: Sequence[Object],
    pod_labels: Mapping[str, str],
    namespace_labels: Mapping[str, str],
    port: int,
) -> bool:
    """Whether NetworkPolicies let some pod of a namespace reach a port of some pods.

    Args:
        policies: Those of the namespace of the pods that are called.
        pod_labels: Labels of these pods.
        namespace_labels: Labels of the namespace of the callers.
        port: A TCP port.

    Policies select by `networking.k8s.io/v1`; peers by address are taken not to mean pods.
    """
    ruling = [
        policy["spec"]
        for policy in policies
        if "Ingress" in (policy["spec"].get("policyTypes") or ["Ingress"])
        and matches(policy["spec"].get("podSelector") or {}, pod_labels)
    ]
    rules = [rule for spec in ruling for rule in spec.get("ingress") or []]
    return not ruling or any(
        _admits_port(rule, port) and _admits_peer(rule, namespace_labels) for rule in rules
    )


def _admits_port(rule: Mapping[str, Any], port: int) -> bool:
    def within(entry: Mapping[str, Any]) -> bool:
        first = entry.get("port")
        if entry.get("protocol", "TCP") != "TCP":
            return False
        # A named port is one of the gateway's own: which number it has is not told here.
        return not isinstance(first, int) or first <= port <= entry.get("endPort", first)

    return not rule.get("ports") or any(map(within, rule["ports"]))


def _admits_peer(rule: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    peers = rule.get("from")
    return not peers or any(
        "namespaceSelector" in peer and matches(peer["namespaceSelector"] or {}, labels)
        for peer in peers
    )


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector (meta/v1) selects labels; an empty one selects all."""
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _holds(expression, labels) for expression in selector.get("matchExpressions") or []
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }.get(expression["operator"], False)
