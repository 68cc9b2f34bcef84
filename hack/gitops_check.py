"""Check an Argo CD tree offline: what Argo CD would refuse, and what a release should not do.

    hack/validate-gitops.sh [--cluster NAME] [FOLDER]

Each folder of FOLDER/clusters is one Argo CD: its root, projects and applications. For each:

- objects against the definitions of Argo CD and Kubernetes, strictly;
- ApplicationSets expanded (list generators), each Application judged by its project: repositories,
  destination, kinds that it renders;
- charts of this repository rendered with the Application's own flags, at its tag where that is here
  (else from the working tree), and the result checked strictly;
- charts of others rendered too, where their repository can be reached;
- policy: a release is at a tag, prunes and heals by itself, has a project of its own; no Secret.

Exit code 1 if something is wrong. Runs with the interpreter that `install.sh kubernetes-validate`
prints (PyYAML and jsonschema).
"""

from __future__ import annotations

import argparse
import fnmatch
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "hack" / "tools"))
from validate_manifests import Validator, describe, installed, load_documents  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

KUBERNETES = "1.34"
APIS = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")
TAG = re.compile(r"^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$")
# Of the kinds that charts render; others belong to a namespace.
CLUSTER_KINDS = {
    *("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"),
    *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "PriorityClass"),
    *("StorageClass", "PersistentVolume", "RuntimeClass", "IngressClass", "APIService"),
}
Manifest = dict[str, Any]


@dataclass
class Tally:
    """What was looked at, and what was found."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    objects: int = 0
    applications: int = 0
    rendered: int = 0
    manifests: int = 0

    def line(self, name: str) -> str:
        """One line for people."""
        return (
            f"{name}: {self.objects} objects, {self.applications} applications, {self.rendered} "
            f"rendered into {self.manifests} manifests, {len(self.problems)} problems"
        )


class Tree:
    """One cluster's folder.

    Args:
        folder: The folder.
        base: What paths in sources of this repository are relative to.
    """

    def __init__(self, folder: Path, base: Path) -> None:
        self.base = base
        self.tally = Tally()
        self.objects: list[Manifest] = []
        for path in sorted(folder.glob("*.yaml")):
            documents = load_documents(path.read_text())
            # Files of values lie beside the objects that name them.
            self.objects += [one for one in documents if "kind" in one]
        self.projects = {
            one["metadata"]["name"]: one["spec"]
            for one in self.objects
            if one["kind"] == "AppProject"
        }
        roots = [one for one in self.objects if one["metadata"]["name"] == "root"]
        sources = [one["spec"]["source"]["repoURL"] for one in roots if "source" in one["spec"]]
        self.repository = sources[0] if sources else ""
        if not self.repository:
            self.tally.problems.append("there is no Application `root` to apply")

    def applications(self) -> Iterator[Manifest]:
        """Every Application, those of ApplicationSets included."""
        for one in self.objects:
            if one["kind"] == "Application":
                yield one
            if one["kind"] == "ApplicationSet":
                yield from self.expanded(one)

    def expanded(self, appset: Manifest) -> Iterator[Manifest]:
        """Applications of a set with list generators."""
        text = yaml.safe_dump(appset["spec"]["template"])
        for generator in appset["spec"]["generators"]:
            if "list" not in generator:
                self.tally.problems.append(f"{describe(appset)}: only list generators are known")
                continue
            for element in generator["list"]["elements"]:
                made = text
                for key, value in element.items():
                    made = made.replace(f"{{{{.{key}}}}}", str(value))
                if "{{" in made:
                    self.tally.problems.append(f"{describe(appset)}: {element} leaves a variable")
                yield {
                    "apiVersion": "argoproj.io/v1alpha1",
                    "kind": "Application",
                    **yaml.safe_load(made),
                }

    def check(self, validator: Validator, helm: str) -> Tally:
        """Look at everything."""
        tally = self.tally
        tally.objects = len(self.objects)
        tally.problems += validator.problems(self.objects)
        for one in self.objects:
            if one["kind"] == "Secret":
                tally.problems.append(f"{describe(one)}: secrets are named here, never held")
        for application in self.applications():
            tally.applications += 1
            label = describe(application)
            application["metadata"].setdefault("namespace", "argocd")
            tally.problems += validator.problems([application])
            found = list(self.policy(application))
            tally.problems += [f"{label}: {sentence}" for sentence in found]
            project = self.projects.get(application["spec"]["project"])
            if project is not None:
                self.render(application, project, validator, helm)
        return tally

    def policy(self, application: Manifest) -> Iterator[str]:
        """What its project would refuse, and what no release should be."""
        spec = application["spec"]
        project = self.projects.get(spec["project"])
        if project is None:
            yield f"there is no project `{spec['project']}` in this folder"
            return
        automated = spec.get("syncPolicy", {}).get("automated")
        if not automated or not (automated.get("prune") and automated.get("selfHeal")):
            yield "syncPolicy.automated: must prune and heal by itself"
        revisions: dict[str, set[str]] = {}
        for source in sources_of(spec):
            revisions.setdefault(source["repoURL"], set()).add(str(source.get("targetRevision")))
        for url, found in revisions.items():
            if len(found) > 1:
                yield f"Argo CD takes one revision of a repository, not {sorted(found)} of {url}"
        for source in sources_of(spec):
            url, revision = source["repoURL"], str(source.get("targetRevision", ""))
            if not any(fnmatch.fnmatch(url, one) for one in project["sourceRepos"]):
                yield f"its project does not allow {url}"
            follows = application["metadata"]["name"] == "root" or "ref" in source
            if not follows and not TAG.match(revision):
                yield f"targetRevision: must be a tag or a version (got {revision or 'none'})"
        if not any(same_place(spec["destination"], one) for one in project["destinations"]):
            yield f"its project does not allow {spec['destination']}"

    def render(
        self, application: Manifest, project: Manifest, validator: Validator, helm: str
    ) -> None:
        """Render its charts and folders, and judge what comes out."""
        label, spec = describe(application), application["spec"]
        for source in sources_of(spec):
            if source["repoURL"] != self.repository and "chart" not in source:
                self.tally.notes.append(f"{label}: {source['repoURL']} is not looked into")
                continue
            if "path" not in source and "chart" not in source:
                continue  # only lends values
            try:
                documents = self.documents(source, application, helm)
            except NotHere as reason:
                self.tally.notes.append(f"{label}: not rendered: {reason}")
                continue
            except (OSError, ValueError, yaml.YAMLError) as error:
                self.tally.problems.append(f"{label}: {error}")
                continue
            self.tally.rendered += 1
            self.tally.manifests += len(documents)
            if "chart" not in source:  # of others, others answer for their manifests
                found = validator.problems(documents)
                self.tally.problems += [f"{label}: {one}" for one in found]
            self.tally.problems += [f"{label}: {one}" for one in refused_kinds(documents, project)]

    def documents(self, source: Manifest, application: Manifest, helm: str) -> list[Manifest]:
        """What a source renders to.

        Raises:
            NotHere: A chart of others cannot be had.
            ValueError: It cannot be rendered.
        """
        spec = application["spec"]
        if "helm" not in source and "chart" not in source:
            folder = self.base / source["path"]
            names = source.get("directory", {}).get("include", "*.yaml")
            paths = [path for path in sorted(folder.glob("*.yaml")) if included(path.name, names)]
            return [one for path in paths for one in load_documents(path.read_text())]
        with tempfile.TemporaryDirectory() as work:
            chart = self.chart(source, Path(work), helm)
            flags = source.get("helm", {})
            name = flags.get("releaseName", application["metadata"]["name"])
            command = [helm, "template", name, str(chart)]
            command += ["--namespace", spec["destination"]["namespace"]]
            command += ["--kube-version", KUBERNETES, "--include-crds"]
            command += [word for api in APIS for word in ("--api-versions", api)]
            if flags.get("skipTests"):
                command.append("--skip-tests")
            for file in flags.get("valueFiles", []):
                path = self.values_file(file, chart, spec)
                if not path.is_file():
                    raise ValueError(f"there is no values file {file}")
                command += ["--values", str(path)]
            if "valuesObject" in flags:
                inline = Path(work) / "inline-values.yaml"
                inline.write_text(yaml.safe_dump(flags["valuesObject"]))
                command += ["--values", str(inline)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(done.stderr.strip())
        return load_documents(done.stdout)

    def values_file(self, name: str, chart: Path, spec: Manifest) -> Path:
        """Where a values file is: `$REF/path` leads to the source of that name."""
        if not name.startswith("$"):
            return chart / name
        reference, _, rest = name[1:].partition("/")
        lenders = [one for one in sources_of(spec) if one.get("ref") == reference]
        if not lenders or lenders[0]["repoURL"] != self.repository:
            raise ValueError(f"no source lends {name}")
        return self.base / rest

    def chart(self, source: Manifest, work: Path, helm: str) -> Path:
        """The chart's folder or archive.

        Raises:
            NotHere: Its repository cannot be reached.
        """
        revision = str(source["targetRevision"])
        if "chart" in source:
            command = [helm, "pull", source["chart"], "--repo", source["repoURL"]]
            command += ["--version", revision, "--destination", str(work)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise NotHere(f"{source['repoURL']} cannot be reached")
            return next(work.glob("*.tgz"))
        git = ["git", "-C", str(self.base)]
        known = subprocess.run(
            [*git, "rev-parse", "--verify", "--quiet", f"refs/tags/{revision}"],
            capture_output=True,
            check=False,
        )
        if known.returncode != 0:
            self.tally.notes.append(
                f"{source['path']} at {revision}: no such tag here, so from the working tree"
            )
            return self.base / source["path"]
        archive = subprocess.run(
            [*git, "archive", "--format=tar", revision], stdout=subprocess.PIPE, check=True
        )
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tree:
            tree.extractall(work, filter="tar")
        return work / source["path"]


class NotHere(Exception):
    """Something of others cannot be had here."""


def sources_of(spec: Manifest) -> list[Manifest]:
    """The sources of an Application, one or several."""
    return spec.get("sources") or [spec["source"]]


def included(name: str, pattern: str) -> bool:
    """Whether a file is one of a directory source: `*.yaml`, or `{a,b}.yaml`."""
    braces = re.fullmatch(r"\{(.*)\}(.*)", pattern)
    if braces is None:
        return fnmatch.fnmatch(name, pattern)
    return any(fnmatch.fnmatch(name, word + braces[2]) for word in braces[1].split(","))


def same_place(wanted: Manifest, allowed: Manifest) -> bool:
    """Whether a project's destination covers an Application's."""
    for key in ("name", "server"):
        if key in allowed and not fnmatch.fnmatch(str(wanted.get(key, "")), allowed[key]):
            return False
    return fnmatch.fnmatch(wanted.get("namespace", ""), allowed["namespace"])


def refused_kinds(documents: list[Manifest], project: Manifest) -> Iterator[str]:
    """Kinds that a project does not allow."""
    seen = set()
    wide = CLUSTER_KINDS | {
        one["spec"]["names"]["kind"]
        for one in documents
        if one["kind"] == "CustomResourceDefinition" and one["spec"]["scope"] == "Cluster"
    }
    for one in documents:
        group = one["apiVersion"].rpartition("/")[0]
        key = (group, one["kind"])
        if key in seen:
            continue
        seen.add(key)
        cluster = one["kind"] in wide
        field_name = "clusterResourceWhitelist" if cluster else "namespaceResourceWhitelist"
        allowed = project.get(field_name, [] if cluster else [{"group": "*", "kind": "*"}])
        if not any(
            fnmatch.fnmatch(group, entry["group"]) and fnmatch.fnmatch(one["kind"], entry["kind"])
            for entry in allowed
        ):
            yield f"its project does not allow the kind {one['kind']} ({one['apiVersion']})"


def main(arguments: list[str] | None = None) -> int:
    """Check every cluster of a tree; 1 if something is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "gitops")
    parser.add_argument("--cluster", default="*", help="look at this one only")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    helm = os.environ.get("HELM") or str(installed("helm4"))
    validator = Validator(KUBERNETES)
    failed = False
    for cluster in sorted((folder / "clusters").glob(options.cluster)):
        tally = Tree(cluster, folder.parent).check(validator, helm)
        for note in dict.fromkeys(tally.notes):
            sys.stdout.write(f"{cluster.name}: note: {note}\n")
        for problem in tally.problems:
            sys.stdout.write(f"{cluster.name}: {problem}\n")
        sys.stdout.write(tally.line(cluster.name) + "\n")
        failed = failed or bool(tally.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
