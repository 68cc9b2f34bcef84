"""The repository of the proof: what ships, with other names, in commits that can be reverted."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hack.argocd.tree import CLUSTER, ROOT, Tree

if TYPE_CHECKING:
    from pathlib import Path

URL = "git://git.argocd.svc/synapse.git"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "synapse.git"
    command = ["git", "init", "-q", "--bare", "-b", "main", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def tree(tmp_path: Path, bare: Path) -> Tree:
    made = Tree(tmp_path / "work", URL, "proof", f"ext::git-receive-pack {bare}")
    made.make(["values/phase3.yaml"])
    return made


def shown(bare: Path, path: str, revision: str = "main") -> list[dict[str, Any]]:
    command = ["git", "-C", str(bare), "show", f"{revision}:{CLUSTER / path}"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(text))


def test_the_release_is_forges_with_other_names(tree: Tree, bare: Path) -> None:
    (made,) = shown(bare, "synapse.yaml", "v0.1.0")
    text = (ROOT / "gitops/clusters/forge/synapse.yaml").read_text()
    text = text.replace("https://git.example.org/ai/synapse.git", URL)
    text = text.replace("llm-infra", "proof").replace("values/forge.yaml", "values/phase3.yaml")
    assert made == yaml.safe_load(text)


def test_only_the_release_is_stood_up(tree: Tree, bare: Path) -> None:
    project, root = shown(bare, "root.yaml")
    assert root["spec"]["source"]["path"] == str(CLUSTER)
    assert {place["namespace"] for place in project["spec"]["destinations"]} == {"argocd", "proof"}
    assert [one["metadata"]["name"] for one in shown(bare, "namespaces.yaml")] == ["proof"]
    assert [one["metadata"]["name"] for one in shown(bare, "projects.yaml")] == ["synapse"]


def test_links_of_the_chart_lead_somewhere_in_it(tree: Tree) -> None:
    files = tree.folder / "charts" / "synapse" / "files"
    assert (files / "monitoring" / "alerts" / "gateway.yaml").is_file()
    assert (files / "decommission-clusterrole.yaml").is_file()


def test_a_change_arrives_and_a_revert_takes_it_back(tree: Tree, bare: Path) -> None:
    before = shown(bare, "synapse.yaml")
    commit = tree.use("Go on", files=["values/phase4.yaml", "values/more.yaml"], more={"x": 1})
    (after,) = shown(bare, "synapse.yaml")
    helm = after["spec"]["source"]["helm"]
    assert helm["valueFiles"] == ["../../values/phase4.yaml", "../../values/more.yaml"]
    assert helm["valuesObject"] == {"x": 1}
    tree.revert(commit)
    assert shown(bare, "synapse.yaml") == before
