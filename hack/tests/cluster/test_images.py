"""Tags follow from content, and whatever runs in the cluster was loaded into it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest
import yaml
from hack.cluster import addons, daemons, images, release
from hack.cluster.settings import ROOT
from hack.cluster.shell import run

if TYPE_CHECKING:
    from pathlib import Path

KUSTOMIZATION = "argocd-kustomization"
MANIFESTS = sorted({path.stem for path in addons.MANIFESTS.glob("*.yaml")} - {KUSTOMIZATION})


def loaded() -> set[str]:
    parts = {part.reference for part in images.PART.values()}
    return parts | {images.project_reference(name) for name in images.PROJECT}


def full_name(reference: str) -> str:
    """As containerd completes a name: no registry means Docker's."""
    first = reference.split("/", 1)[0]
    if "/" in reference and ("." in first or ":" in first):
        return reference
    return f"docker.io/{reference if '/' in reference else f'library/{reference}'}"


def images_in(text: str) -> set[str]:
    return set(re.findall(r"image: [\"']?([^\"'\s,}]+)", text))


@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_name_images_that_are_loaded(name: str) -> None:
    text = addons.manifest(name)
    assert list(yaml.safe_load_all(text))
    assert {full_name(image) for image in images_in(text)} <= loaded()


def images_of(*files: Path) -> set[str]:
    flags = [word for file in files for word in ("--values", str(file))]
    rendered = run([daemons.tool("helm4"), "template", "synapse", ROOT / "charts/synapse", *flags])
    return {full_name(image) for image in images_in(rendered)}


@pytest.fixture
def tags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("hack.cluster.release.TAGS", tmp_path / "images.yaml")
    return release.tag_values()


@pytest.mark.usefixtures("tags")
def test_the_release_names_images_that_are_loaded() -> None:
    named = images_of(*release.value_files())
    assert {full_name(images.project_reference(name)) for name in images.CORE} <= named
    assert named <= loaded()


def test_the_last_phase_names_images_that_are_loaded(tags: Path) -> None:
    small = ROOT / "conformance/overlays/small.yaml"
    named = images_of(ROOT / "values/phase6.yaml", small, release.OVERLAY, tags)
    assert {full_name(images.project_reference(name)) for name in images.PHASES} <= named
    assert named <= loaded()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a Dockerfile that copies two things."""
    run(["git", "init", "-q", tmp_path])
    (tmp_path / "Dockerfile").write_text(
        "FROM base\nCOPY a.txt \\\n  folder to/\nCOPY --from=x y z\n"
    )
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/b.txt").write_text("b")
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / ".gitignore").write_text("ignored\n")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    monkeypatch.setattr(images, "PROJECT", {"thing": ("Dockerfile", ())})
    return tmp_path


@pytest.mark.parametrize("path", ["a.txt", "folder/b.txt", "folder/new.txt", "Dockerfile"])
def test_a_tag_changes_with_what_goes_into_the_image(checkout: Path, path: str) -> None:
    before = images.project_tag("thing")
    with (checkout / path).open("a") as file:
        file.write("# more\n")
    assert images.project_tag("thing") != before


@pytest.mark.parametrize("path", ["other.txt", "folder/ignored"])
def test_a_tag_stays_when_something_else_changes(checkout: Path, path: str) -> None:
    before = images.project_tag("thing")
    (checkout / path).write_text("changed")
    assert images.project_tag("thing") == before


@pytest.mark.parametrize("name", images.PROJECT)
def test_what_a_dockerfile_copies_is_found(name: str) -> None:
    dockerfile, more = images.PROJECT[name]
    copied = images.context_paths(ROOT / dockerfile)
    lines = (ROOT / dockerfile).read_text().replace("\\\n", " ").splitlines()
    copies = [line for line in lines if line.startswith("COPY") and "--from" not in line]
    assert bool(copied) == bool(copies)
    assert all((ROOT / path).exists() for path in [*more, *copied] if path != "ollama")


def test_every_tag_is_given_to_a_value_of_the_chart(tags: Path) -> None:
    values = json.loads(tags.read_text())
    defaults = yaml.safe_load((ROOT / "charts/synapse/values.yaml").read_text())
    for path in release.TAG_PATHS:
        here, there = values, defaults
        for part in path.split("."):
            here, there = here[part], there[part]
        assert here["tag"]
        assert "tag" in there
