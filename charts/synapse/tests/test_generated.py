# ruff: noqa: N802 - http.server finds methods by these names
"""Generated files are what their sources give, and the programs that make them refuse gaps."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import CHART, ROOT
from charts.synapse.tests.servers import Handler, running
from hack import chart_compose, chart_docs, chart_network, pin_digests

from synapse_gateway.config.load import load

if TYPE_CHECKING:
    from pathlib import Path


def test_schema_and_readme_follow_from_values_yaml() -> None:
    for path, text in chart_docs.outputs().items():
        assert path.read_text() == text, f"{path.name} is stale: run make chart"


def test_a_value_without_a_comment_is_refused() -> None:
    entries = chart_docs.read_entries("# A group.\ngroup:\n  lonely: 1\n")
    with pytest.raises(chart_docs.DocsError, match=r"group\.lonely: has no comment above it"):
        chart_docs.schema_of(entries["group"], {})


def test_a_bound_in_a_comment_reaches_the_schema() -> None:
    entries = chart_docs.read_entries("# Pods.\n# @schema {minimum: 1, maximum: 9}\nreplicas: 2\n")
    assert chart_docs.schema_of(entries["replicas"], {}) == {
        "description": "Pods.",
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
    }


def _objects(schema: Any, path: str = "") -> list[str]:
    """Paths of object schemas that would take any key."""
    found = []
    if isinstance(schema, dict):
        closed = schema.get("additionalProperties") is False
        if schema.get("type") == "object" and "properties" in schema and not closed:
            found.append(path)
        for key, value in schema.items():
            found += _objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for value in schema:
            found += _objects(value, path)
    return found


def test_no_object_of_the_schema_takes_unknown_keys() -> None:
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())
    assert _objects(schema) == []


def test_the_network_page_is_the_table_of_the_chart() -> None:
    assert chart_network.PAGE.read_text() == chart_network.page()


def test_compose_follows_from_the_embedded_values() -> None:
    for path, text in chart_compose.texts().items():
        assert path.read_text() == text, f"{path.name} is stale: run make chart"


def test_the_gateway_takes_the_configuration_of_compose() -> None:
    found = load(chart_compose.CONFIG, {})
    services = yaml.safe_load(chart_compose.COMPOSE.read_text())["services"]
    for backend in found.settings.backends.values():
        host = re.sub(r"^http://([^:/]+).*$", r"\1", backend.url)
        assert host in services, f"no service answers to {backend.url}"


def test_compose_publishes_on_loopback_only() -> None:
    services = yaml.safe_load(chart_compose.COMPOSE.read_text())["services"]
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_service_of_compose_is_bounded_and_confined() -> None:
    for name, service in yaml.safe_load(chart_compose.COMPOSE.read_text())["services"].items():
        assert service["mem_limit"].endswith("m"), name
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name


class Registry(Handler):
    """The distribution specification's manifest call, behind a token like Docker Hub's."""

    def do_GET(self) -> None:
        self.read()
        if self.path.startswith("/token"):
            self.answer_json(200, {"token": "pull"})
        elif self.headers.get("Authorization") != "Bearer pull":
            challenge = f'Bearer realm="{self.server.url}/token",service="here"'
            self.answer(401, WWW_Authenticate=challenge)
        elif self.path == "/v2/ollama/ollama/manifests/0.17.7":
            self.answer(200, Docker_Content_Digest="sha256:" + "ab" * 32)
        else:
            self.answer(404)


def test_digests_are_written_beside_their_tags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_SCHEME", "http")
    path = tmp_path / "values.yaml"
    with running(Registry) as server:
        host = server.url.removeprefix("http://")
        image = "  image:\n    registry: {0}\n    repository: {1}\n    # Source.\n    tag: {2}\n"
        image += '    digest: "" # kept\n'
        text = "ollama:\n" + image.format(host, "ollama/ollama", "0.17.7")
        text += "other:\n" + image.format(host, "a/b", "1")
        text += "ours:\n" + image.format('""', "synapse-gateway", '""')
        path.write_text(text)
        problems = pin_digests.pin(path)
    values = yaml.safe_load(path.read_text())
    assert values["ollama"]["image"]["digest"] == "sha256:" + "ab" * 32
    assert values["other"]["image"]["digest"] == ""
    assert values["ours"]["image"]["digest"] == ""
    assert problems == [f"{host}/a/b:1: the registry answers 404"]
    assert path.read_text().count("# Source.") == 3
    assert path.read_text().count("# kept") == 3


def test_a_registry_out_of_reach_changes_nothing_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    text = "a:\n  registry: 127.0.0.1:1\n  repository: x/y\n  tag: v1\n  digest: ''\n"
    path.write_text(text)
    script = ROOT / "hack" / "pin_digests.py"
    done = subprocess.run(
        [sys.executable, str(script), str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not pinned: 127.0.0.1:1:" in done.stderr
    assert path.read_text() == text
