"""Each case is an object that an API server would refuse, or prune without a word."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = Path(__file__).resolve().parents[1] / "tools"


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


validate_manifests = _load("validate_manifests")

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "engine"},
    "spec": {"containers": [{"name": "engine", "image": "engine:1"}]},
}
RULE = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "rules"},
    "spec": {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up == 0"}]}]},
}


@pytest.fixture(scope="module")
def validator() -> Any:
    return validate_manifests.Validator("1.34")


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy of the document with one place set; numbers in the path are list positions."""
    copy: dict[str, Any] = yaml.safe_load(yaml.safe_dump(document))
    *steps, last = path.split(".")
    place: Any = copy
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return copy


@pytest.mark.parametrize("document", [POD, RULE], ids=["built-in", "custom"])
def test_a_right_object_passes(validator: Any, document: dict[str, Any]) -> None:
    assert validator.problems([document]) == []


@pytest.mark.parametrize(
    ("document", "path", "value", "expected"),
    [
        pytest.param(POD, "spec.containers.0.imag", "x", "'imag' was unexpected", id="unknown"),
        pytest.param(POD, "spec.containers.0.ports", [{"name": "http"}], "containerPort", id="gap"),
        pytest.param(
            POD, "spec.terminationGracePeriodSeconds", "30", "not of type 'integer'", id="type"
        ),
        pytest.param(
            POD, "spec.containers.0.resources", {"limits": {"memory": "10Gib"}}, "10Gib", id="size"
        ),
        pytest.param(POD, "metadata.name", "Engine_1", "RFC 1123", id="name"),
        pytest.param(POD, "metadata.labels", {"a": "two words"}, "label value", id="label"),
        pytest.param(POD, "apiVersion", "v1beta1", "serves no Pod of v1beta1", id="version"),
        pytest.param(RULE, "spec.groups.0.rules.0.fro", "5m", "'fro' was unexpected", id="custom"),
        pytest.param(RULE, "apiVersion", "example.com/v1", "no definition of", id="no-definition"),
        pytest.param(RULE, "metadata.lables", {}, "'lables' was unexpected", id="custom-metadata"),
    ],
)
def test_a_wrong_object_is_named(
    validator: Any, document: dict[str, Any], path: str, value: object, expected: str
) -> None:
    (problem,) = validator.problems([changed(document, path, value)])
    assert expected in problem


def test_the_same_object_twice_is_refused(validator: Any) -> None:
    assert validator.problems([POD, POD]) == ["Pod/engine: appears twice"]


def test_a_repeated_key_is_refused() -> None:
    with pytest.raises(yaml.YAMLError, match="the key 'a' appears twice"):
        validate_manifests.load_documents("a: 1\na: 2\n")


def test_an_unknown_version_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no schemas of Kubernetes 1\.9; there are 1\.25, "):
        validate_manifests.Validator("1.9")
