"""Every object is one that an API server takes, from the oldest Kubernetes to the newest."""

from __future__ import annotations

import functools
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

import pytest
from charts.synapse.tests.chart import ALL_VALUES, ROOT, identify, template, tool

if TYPE_CHECKING:
    from pathlib import Path

KUBERNETES = ["1.26", "1.30", "1.34", "1.37"]


def validator_module() -> Any:
    """hack/tools/validate_manifests.py, which is a script, as a module."""
    name = "chart_validate_manifests"
    if name not in sys.modules:
        path = ROOT / "hack" / "tools" / "validate_manifests.py"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@functools.cache
def validator(version: str) -> Any:
    """A version's validator, which reads megabytes of schemas when it is made."""
    tool("kubernetes-validate")
    tool("crds")
    return validator_module().Validator(version)


@pytest.mark.slow
@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_an_api_server_takes_every_object(values: Path, version: str) -> None:
    text = template(values, kube_version=version)
    documents = validator_module().load_documents(text)
    assert documents
    assert list(validator(version).problems(documents)) == []


@pytest.mark.slow
@pytest.mark.parametrize("values", ALL_VALUES, ids=identify)
def test_an_api_server_without_the_operators_takes_every_object(values: Path) -> None:
    documents = validator_module().load_documents(template(values, apis=()))
    kinds = {one["kind"] for one in documents}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    assert list(validator(KUBERNETES[-1]).problems(documents)) == []
