"""Strings that look like numbers, truths and nothing stay strings wherever they end up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import CHART, HELMS, OPERATORS, run_helm
from charts.synapse.tests.test_valid import KUBERNETES, validator_module

from synapse_gateway.config.load import load

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
VALUES = CHART / "tests" / "awkward.yaml"
# Valid names both, and numbers to YAML.
RELEASE, NAMESPACE = "1e3", "1234"


def rendered(helm: str, *more: str, release: str = RELEASE) -> str:
    arguments = ["template", release, str(CHART), "--namespace", NAMESPACE, "--values", str(VALUES)]
    done = run_helm(helm, *arguments, "--api-versions", OPERATORS[0], *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("release", [RELEASE, "true", "null", "x" * 53])
def test_an_api_server_takes_every_object(helm: str, release: str) -> None:
    text = rendered(helm, release=release)
    documents = validator_module().load_documents(text)
    assert len(documents) > 50
    for version in KUBERNETES:
        assert list(validator_module().Validator(version).problems(documents)) == []


@pytest.mark.parametrize("helm", HELMS)
def test_lint_finds_nothing(helm: str) -> None:
    done = run_helm(helm, "lint", "--strict", str(CHART), "--values", str(VALUES))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_gateway_takes_the_route_table(tmp_path: Path) -> None:
    objects: list[Any] = list(yaml.safe_load_all(rendered("helm4")))
    table = next(
        one["data"]["backends.yaml"]
        for one in objects
        if one and one["kind"] == "ConfigMap" and "backends.yaml" in one["data"]
    )
    path = tmp_path / "backends.yaml"
    path.write_text(table)
    found = load(path, {}).settings
    assert found.models["7"].aliases == ("8", "1e6", "yes")
    assert found.models["7"].targets[0].model == "3"
    assert set(found.keys) == {"12", "my.app", "true", "default"}


def test_annotations_of_a_user_replace_those_of_the_chart() -> None:
    objects: list[Any] = list(yaml.safe_load_all(rendered("helm4")))
    (ingress,) = [one for one in objects if one and one["kind"] == "Ingress"]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-body-size"] == "1"
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"
