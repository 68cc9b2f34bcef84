"""The Argo CD tree passes its checks, and the checks see what is wrong with one that does not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from charts.synapse.tests.chart import ALL_VALUES, manifests
from hack import chart_render

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[2]
CHECK = ROOT / "hack" / "validate-gitops.sh"
GITOPS = ROOT / "gitops"
FORGE = Path("gitops/clusters/forge")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    for name in ("helm4", "kubernetes-validate", "crds"):
        try:
            chart_render.tool(name)
        except chart_render.RenderError as error:
            pytest.skip(str(error))


def check(folder: Path, cluster: str = "*") -> subprocess.CompletedProcess[str]:
    command = [CHECK, "--cluster", cluster, folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def objects(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def test_nothing_is_wrong_with_the_tree() -> None:
    done = check(GITOPS)
    assert done.returncode == 0, done.stdout
    counts = re.findall(
        r"^(\S+): .* (\d+) rendered into (\d+) manifests, 0 problems$", done.stdout, re.MULTILINE
    )
    assert {name for name, _, _ in counts} == {"forge", "two-sites"}
    assert all(int(rendered) >= 2 and int(made) > 90 for _, rendered, made in counts)


def copy(folder: Path) -> Path:
    """What a repository with the tree holds, as far as rendering needs it."""
    for name in ("gitops", "charts", "values", "monitoring"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    role = Path("gateway/synapse_gateway/decommission/clusterrole.yaml")
    (folder / role).parent.mkdir(parents=True)
    shutil.copy(ROOT / role, folder / role)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1))


SYNAPSE = FORGE / "synapse.yaml"
WRONG: list[Any] = [
    pytest.param(
        lambda top: edit(top / SYNAPSE, "releaseName: synapse", "relaseName: synapse"),
        "'relaseName' was unexpected",
        id="unknown-field",
    ),
    pytest.param(
        lambda top: edit(top / SYNAPSE, "targetRevision: v0.1.0", "targetRevision: main"),
        "targetRevision: must be a tag or a version (got main)",
        id="branch",
    ),
    pytest.param(
        lambda top: edit(top / SYNAPSE, "selfHeal: true", "selfHeal: false"),
        "syncPolicy.automated: must prune and heal by itself",
        id="no-self-heal",
    ),
    pytest.param(
        lambda top: edit(top / SYNAPSE, "project: synapse", "project: default"),
        "there is no project `default` in this folder",
        id="default-project",
    ),
    pytest.param(
        lambda top: edit(top / SYNAPSE, "namespace: llm-infra", "namespace: kube-system"),
        "its project does not allow {'name': 'in-cluster', 'namespace': 'kube-system'}",
        id="another-namespace",
    ),
    pytest.param(
        lambda top: edit(
            top / FORGE / "projects.yaml",
            "    - {group: networking.k8s.io, kind: NetworkPolicy}\n",
            "",
        ),
        "its project does not allow the kind NetworkPolicy",
        id="kind-not-allowed",
    ),
    pytest.param(
        lambda top: edit(top / SYNAPSE, "values/forge.yaml", "values/forg.yaml"),
        "there is no values file ../../values/forg.yaml",
        id="no-such-values",
    ),
    pytest.param(
        lambda top: edit(
            top / FORGE / "infrastructure.yaml",
            "    - repoURL: https://git.example.org/ai/synapse.git\n",
            "    - {repoURL: 'https://git.example.org/ai/synapse.git', ref: other, "
            "targetRevision: v0.1.0}\n    - repoURL: https://git.example.org/ai/synapse.git\n",
        ),
        "Argo CD takes one revision of a repository, not ['main', 'v0.1.0']",
        id="two-revisions",
    ),
    pytest.param(
        lambda top: edit(top / "values" / "forge.yaml", "timeSlices: 5", "timeSlices: 0"),
        "at '/gpu/timeSlices': minimum: got 0, want 1",
        id="wrong-value",
    ),
    pytest.param(
        lambda top: (top / FORGE / "secret.yaml").write_text(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: x, namespace: llm-infra}\n"
        ),
        "Secret/x: secrets are named here, never held",
        id="secret",
    ),
    pytest.param(
        lambda top: edit(
            top / "gitops/clusters/two-sites/sites.yaml",
            "{site: south, tag: v0.1.0}",
            "{site: south}",
        ),
        "ApplicationSet/synapse: {'site': 'south'} leaves a variable",
        id="variable-left",
    ),
]


@pytest.mark.parametrize(("spoil", "sentence"), WRONG)
def test_what_is_wrong_is_said(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    top = copy(tmp_path)
    spoil(top)
    done = check(top / "gitops", "two-sites" if "site" in sentence else "forge")
    assert done.returncode == 1, done.stdout + done.stderr
    assert sentence in done.stdout


def test_a_release_is_rendered_from_its_tag(tmp_path: Path) -> None:
    top = copy(tmp_path)
    git = ["git", "-C", str(top), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "x"], ["tag", "v0.1.0"]):
        subprocess.run([*git, *words], check=True)
    edit(top / "charts/synapse/templates/gateway/service.yaml", "{{", "{{ fail `later` }}{{")
    done = check(top / "gitops", "two-sites")
    # South is at the tag; north's is not made yet.
    assert "Application/synapse-north: " in done.stdout
    assert "Application/synapse-south: " not in done.stdout
    assert "charts/synapse at v0.1.0" not in done.stdout


def whitelist(project: dict[str, Any]) -> set[tuple[str, str]]:
    return {(one["group"], one["kind"]) for one in project["spec"]["namespaceResourceWhitelist"]}


def test_the_projects_allow_exactly_the_kinds_that_the_chart_renders() -> None:
    rendered = {
        (one["apiVersion"].rpartition("/")[0], one["kind"])
        for values in ALL_VALUES
        for one in manifests(values)
        # The opt-in rights of the move are an administrator's to give, not a release's.
        if not one["kind"].startswith("Cluster") and one["kind"] != "Pod"
    }
    forge = [one for one in objects(ROOT / FORGE / "projects.yaml") if one["kind"] == "AppProject"]
    (sites,) = objects(GITOPS / "clusters" / "two-sites" / "project.yaml")
    for project in (next(one for one in forge if one["metadata"]["name"] == "synapse"), sites):
        assert whitelist(project) == rendered
        assert project["spec"]["clusterResourceWhitelist"] == []


def test_infrastructure_is_pinned_to_the_versions_that_were_read() -> None:
    for application in objects(ROOT / FORGE / "infrastructure.yaml"):
        chart, values = application["spec"]["sources"]
        assert values["ref"] == "values"
        (file,) = chart["helm"]["valueFiles"]
        header = (ROOT / file.removeprefix("$values/")).read_text().partition("\n\n")[0]
        assert f"{chart['targetRevision']}, read at the tag " in header.replace("\n# ", " ")


def test_what_is_stood_on_comes_first() -> None:
    waves = {}
    for path in (ROOT / FORGE).glob("*.yaml"):
        for one in objects(path):
            wave = one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0")
            waves[one["kind"], one["metadata"]["name"]] = int(wave)
    assert (
        waves["Namespace", "llm-infra"]
        < waves["AppProject", "synapse"]
        < waves["Application", "prometheus"]
        < waves["Application", "synapse"]
    )


def test_the_guides_line_puts_another_repository_in_its_place(tmp_path: Path) -> None:
    shutil.copytree(GITOPS, tmp_path / "gitops")
    guide = (ROOT / "docs" / "gitops.md").read_text()
    (line,) = re.findall(r"^grep -rlZ .*$", guide, re.MULTILINE)
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=True)
    text = "".join(path.read_text() for path in (tmp_path / "gitops").rglob("*.yaml"))
    assert "git.example.org" not in text
    assert "repoURL: https://github.com/you/synapse\n" in text


def test_the_repository_is_named_the_same_everywhere() -> None:
    """So that the one line of the guide puts another in its place."""
    text = "".join(path.read_text() for path in GITOPS.rglob("*.yaml"))
    found = set(re.findall(r"https?://\S*synapse\S*\.git", text))
    assert {one.strip("]},") for one in found} == {"https://git.example.org/ai/synapse.git"}
