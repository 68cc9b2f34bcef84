"""The repository that the proof syncs from: this one, with a cluster folder made from forge's.

The folder is forge's in all but names: repository, namespace, values. So what is proven are the
projects, waves and sync options that ship.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hack.cluster.settings import ROOT
from hack.cluster.shell import run

if TYPE_CHECKING:
    from collections.abc import Sequence

CLUSTER = Path("gitops/clusters/proof")
# What an Application of the tree reads, of this repository.
NEEDED = (
    *("charts", "values", "monitoring", "gitops", "conformance/overlays"),
    "gateway/synapse_gateway/decommission/clusterrole.yaml",
)
IDENTITY = {
    **{f"GIT_{who}_NAME": "Synapse" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "synapse@example.org" for who in ("AUTHOR", "COMMITTER")},
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
Manifest = dict[str, Any]


class Tree:
    """A working copy with the derived folder in it.

    Args:
        folder: Where it is made; must not exist.
        url: Where Argo CD finds it.
        namespace: The release's, in place of llm-infra.
        push: Git's address of the same repository, for pushing.
    """

    def __init__(self, folder: Path, url: str, namespace: str, push: str) -> None:
        self.folder = folder
        self._url = url
        self._namespace = namespace
        self._push = push

    def make(self, values: Sequence[str]) -> None:
        """Make the first commit, tag it as forge's Application wants, and push both.

        Args:
            values: Values files of the release, relative to the repository.
        """
        # The checkout may be somebody else's.
        listed = _git(
            *("-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"),
            *("--", *NEEDED),
            cwd=ROOT,
        )
        for name in filter(None, listed.split("\0")):
            source, target = ROOT / name, self.folder / name
            if not source.is_symlink() and not source.is_file():
                continue  # deleted, and not committed yet
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)
        self._derive(values)
        _git("init", "--quiet", "--initial-branch=main", cwd=self.folder)
        self.commit("Sync from here")
        tag = self._release()["spec"]["source"]["targetRevision"]
        _git("tag", tag, cwd=self.folder)
        self._send(tag)

    def use(
        self, message: str, *, files: Sequence[str] | None = None, more: Manifest | None = None
    ) -> str:
        """Change the release's values, commit and push; returns the commit.

        Args:
            message: The commit's.
            files: Other values files.
            more: Values over those of the files.
        """
        release = self._release()
        helm = release["spec"]["source"]["helm"]
        if files is not None:
            helm["valueFiles"] = _from_chart(files)
        if more is not None:
            helm["valuesObject"] = more
        self._write("synapse.yaml", [release])
        return self.commit(message, push=True)

    def revert(self, commit: str) -> str:
        """Revert a commit and push; returns the commit that does."""
        _git("revert", "--no-edit", commit, cwd=self.folder)
        self._send()
        return self.head()

    def commit(self, message: str, *, push: bool = False) -> str:
        """Commit everything; returns the commit."""
        _git("add", "--all", cwd=self.folder)
        _git("commit", "--quiet", "--message", message, cwd=self.folder)
        if push:
            self._send()
        return self.head()

    def head(self) -> str:
        """The newest commit."""
        return _git("rev-parse", "HEAD", cwd=self.folder).strip()

    def _send(self, *more: str) -> None:
        # `ext::` runs a command that speaks Git's protocol on its standard streams.
        allow = ("-c", "protocol.ext.allow=always")
        _git(*allow, "push", "--quiet", self._push, "main", *more, cwd=self.folder)

    def _derive(self, values: Sequence[str]) -> None:
        """Write the proof's folder from forge's."""
        forge = ROOT / "gitops" / "clusters" / "forge"
        root = _load(forge / "root.yaml")
        release = _load(forge / "synapse.yaml")
        namespaces = [
            one
            for one in _load(forge / "namespaces.yaml")
            if one["metadata"]["name"] == "llm-infra"
        ]
        projects = [
            one for one in _load(forge / "projects.yaml") if one["metadata"]["name"] == "synapse"
        ]
        for one in root:
            if "source" in one["spec"]:
                one["spec"]["source"]["path"] = str(CLUSTER)
            else:
                one["spec"]["destinations"] = [
                    place
                    for place in one["spec"]["destinations"]
                    if place["namespace"] in ("argocd", "llm-infra")
                ]
        release[0]["spec"]["source"]["helm"]["valueFiles"] = _from_chart(values)
        (self.folder / CLUSTER).mkdir(parents=True)
        self._write("root.yaml", root)
        self._write("namespaces.yaml", namespaces)
        self._write("projects.yaml", projects)
        self._write("synapse.yaml", release)

    def _release(self) -> Manifest:
        (release,) = _load(self.folder / CLUSTER / "synapse.yaml")
        return release

    def _write(self, name: str, objects: list[Manifest]) -> None:
        text = yaml.safe_dump_all(objects, sort_keys=False)
        text = text.replace("https://git.example.org/ai/synapse.git", self._url)
        text = text.replace("llm-infra", self._namespace)
        (self.folder / CLUSTER / name).write_text(text)


def _from_chart(files: Sequence[str]) -> list[str]:
    """Paths of the repository, as the chart's folder sees them."""
    return [f"../../{name}" for name in files]


def _load(path: Path) -> list[Manifest]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def _git(*arguments: str, cwd: Path) -> str:
    return run(["git", *arguments], cwd=cwd, environment=IDENTITY)
