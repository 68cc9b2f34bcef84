"""Images of the cluster's own parts and of this repository, built by buildah and loaded into nodes.

A tag follows from what goes into the image, so that an unchanged image is neither built nor loaded
again, and a changed one is a new image to every Deployment that names it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hack.cluster.places import NODE_PLACES, Place
from hack.cluster.programs import BY_NAME
from hack.cluster.progress import Step
from hack.cluster.settings import HERE, ROOT, STATE, ClusterError
from hack.cluster.shell import run, succeeds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

REGISTRY = "synapse.cluster"  # no such host: these images exist in the nodes alone
BASE = "docker.io/library/debian:trixie-slim"
CONTEXT_COPY = re.compile(r"^COPY (?!.*--from)(?:--\S+ )*(.+) \S+$", re.MULTILINE)


@dataclass(frozen=True)
class Part:
    """An image of the cluster's own: executables on top of nothing, or of Debian.

    Attributes:
        name: Repository.
        programs: Programs of programs.py whose executables it holds.
        lines: The Dockerfile behind its first line.
        base: What it stands on.
        sources: Other files for its context: name to path.
        tools: Programs of hack/tools/install.sh for its context: name to the tool's name.
    """

    name: str
    programs: Sequence[str]
    lines: Sequence[str]
    base: str = "scratch"
    sources: Mapping[str, Path] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)

    @property
    def dockerfile(self) -> str:
        """The whole Dockerfile."""
        return "\n".join([f"FROM {self.base}", *self.lines]) + "\n"

    @property
    def reference(self) -> str:
        """Its full name, with a tag that follows from its content."""
        total = hashlib.sha256(self.dockerfile.encode())
        for path in self.sources.values():
            total.update(path.read_bytes())
        versions = [BY_NAME[name].version for name in self.programs] or ["1"]
        return f"{REGISTRY}/{self.name}:{versions[0]}-{total.hexdigest()[:8]}"


def binary_part(name: str, program: str, command: str) -> Part:
    """An image of one static executable."""
    lines = [f"COPY {command} /bin/{command}", "USER 65534", f'ENTRYPOINT ["/bin/{command}"]']
    return Part(name, [program], lines)


APT = (
    "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends {} > /dev/null"
    " && rm -rf /var/lib/apt/lists/* /var/cache/apt/*"
)

PARTS = (
    Part(
        "pause",
        [],
        ["COPY pause /pause", "USER 65535:65535", 'ENTRYPOINT ["/pause"]'],
        sources={"pause.c": HERE / "pause.c"},
    ),
    binary_part("coredns", "coredns", "coredns"),
    binary_part("metrics-server", "metrics-server", "metrics-server"),
    # Its helper pods run a shell.
    Part(
        "local-path-provisioner",
        ["local-path-provisioner"],
        [
            "COPY local-path-provisioner /usr/local/bin/",
            'ENTRYPOINT ["local-path-provisioner"]',
        ],
        base=BASE,
    ),
    binary_part("prometheus-operator", "prometheus-operator", "operator"),
    binary_part("prometheus-config-reloader", "prometheus-operator", "prometheus-config-reloader"),
    binary_part("prometheus", "prometheus", "prometheus"),
    binary_part("alertmanager", "alertmanager", "alertmanager"),
    # Debian has it; the chart names its authors' image, which cannot be pulled here.
    Part(
        "redis-exporter",
        [],
        [
            APT.format("prometheus-redis-exporter"),
            "USER 65532",
            'ENTRYPOINT ["prometheus-redis-exporter"]',
        ],
        base=BASE,
    ),
    # What tests run commands in: clients, foreign pods, a server to call.
    Part(
        "tools",
        [],
        [APT.format("ca-certificates curl dnsutils iproute2 iputils-ping python3"), "USER 65532"],
        base=BASE,
    ),
)
# What is there only when it is asked for.
ARGO_CD = Part(
    "argocd",
    ["argocd"],
    [
        APT.format("ca-certificates git git-lfs gpg openssh-client redis-server tini"),
        (
            "RUN useradd --system --uid 999 --user-group --create-home argocd"
            " && mkdir -p /app/config && cd /app/config && mkdir -p ssh tls gpg/source gpg/keys"
            " && touch ssh/ssh_known_hosts && chown -R argocd /app"
        ),
        "COPY argocd helm /usr/local/bin/",
        (
            "RUN for name in repo-server application-controller applicationset-controller server"
            " cmp-server commit-server notifications dex k8s-auth;"
            " do ln -s argocd /usr/local/bin/argocd-$name; done"
        ),
        "USER 999",
        "WORKDIR /home/argocd",
    ],
    base=BASE,
    tools={"helm": "helm3"},
)
TRAEFIK = Part(
    "traefik",
    ["traefik"],
    ["COPY traefik /usr/local/bin/", "USER 65532", 'ENTRYPOINT ["traefik"]'],
    base=BASE,
)
PART = {part.name: part for part in (*PARTS, ARGO_CD, TRAEFIK)}

# The repository's own images, and what besides their Dockerfile's COPY lines goes into them.
PROJECT: Mapping[str, tuple[str, Sequence[str]]] = {
    "gateway": ("gateway/Dockerfile", ()),
    "llama-cpp": ("backends/llama-cpp/Dockerfile", ()),
    "piper-tts": ("backends/piper-tts/Dockerfile", ()),
    "whisper-stt": ("backends/whisper-stt/Dockerfile", ()),
    "ollama": ("hack/images/ollama.Dockerfile", ("hack/build-ollama.sh",)),
    "redis": ("hack/images/redis.Dockerfile", ()),
    "pyannote-speaker": ("backends/pyannote-speaker/Dockerfile", ()),
    "deepfilter-audio": ("backends/deepfilter-audio/Dockerfile", ()),
}
PHASES = ("pyannote-speaker", "deepfilter-audio")  # brought when the phases are asked for
CORE = tuple(name for name in PROJECT if name not in PHASES)


def source_files(paths: Iterable[str]) -> list[Path]:
    """Files below paths of the repository, without what Git ignores."""
    listed = run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *paths],
        cwd=ROOT,
    )
    return sorted(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def context_paths(dockerfile: Path) -> list[str]:
    """What a Dockerfile copies out of its context."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    return [name for found in CONTEXT_COPY.findall(text) for name in found.split()]


def project_tag(name: str) -> str:
    """The tag of one of the repository's images, from everything that goes into it."""
    dockerfile, more = PROJECT[name]
    paths = [dockerfile, *more]
    paths += [path for path in context_paths(ROOT / dockerfile) if (ROOT / path).exists()]
    total = hashlib.sha256()
    for path in source_files(paths):
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


def project_reference(name: str) -> str:
    """The full name of one of the repository's images."""
    return f"docker.io/library/synapse-{name}:{project_tag(name)}"


def is_built(reference: str) -> bool:
    """Whether buildah has an image."""
    return succeeds(["buildah", "inspect", "--type", "image", reference])


def build_part(part: Part) -> None:
    """Build an image of the cluster's own."""
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        for program in (BY_NAME[name] for name in part.programs):
            for name_in_image in program.commands:
                if f"COPY {name_in_image} " in part.dockerfile:
                    shutil.copy(program.folder / name_in_image, context)
        for name, path in part.sources.items():
            shutil.copy(path, context / name)
        for name, tool in part.tools.items():
            shutil.copy(run([ROOT / "hack/tools/install.sh", tool]).strip(), context / name)
        if "pause.c" in part.sources:
            run(["gcc", "-Os", "-static", "-o", context / "pause", context / "pause.c"])
        (context / "Dockerfile").write_text(part.dockerfile, encoding="utf-8")
        command = ["nice", "-n", "15", "buildah", "build", "--quiet", "--layers"]
        command += ["--isolation", "chroot", "--network", "host", "--tag", part.reference]
        run([*command, "--file", context / "Dockerfile", context])


def build_project(name: str) -> None:
    """Build one of the repository's images, as `make images` does."""
    run(
        [ROOT / "hack" / "images" / "build.sh", name],
        environment={"TAG": project_tag(name), "BUILDER": "buildah"},
        cwd=ROOT,
    )


def build(parts: Sequence[Part], project: Sequence[str]) -> list[str]:
    """Build what is missing, and return the names of all."""
    if any(part.base == BASE and not is_built(part.reference) for part in parts):
        run([ROOT / "hack" / "images" / "base.sh"])
    for part in parts:
        if not is_built(part.reference):
            with Step(f"image {part.reference}"):
                build_part(part)
    references = [part.reference for part in parts]
    for name in project:
        reference = project_reference(name)
        if not is_built(reference):
            with Step(f"image {reference}"):
                build_project(name)
        references.append(reference)
    forget_old()
    return references


def all_references() -> list[str]:
    """Names of every image as this working tree makes them."""
    return [
        *(part.reference for part in PART.values()),
        *(project_reference(name) for name in PROJECT),
    ]


def forget_old() -> None:
    """Remove from buildah what earlier calls have built and this working tree no longer names."""
    note = STATE / "built.json"
    known = set(json.loads(note.read_text(encoding="utf-8"))) if note.exists() else set()
    current = set(all_references())
    for reference in sorted(known - current):
        succeeds(["buildah", "rmi", reference])
    STATE.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps(sorted(current)), encoding="utf-8")


def ctr(node: Place, *arguments: str) -> str:
    """Output of containerd's command line on a node, in the kubelet's namespace."""
    return node.run("ctr", "--namespace", "k8s.io", *arguments)


def on_node(node: Place) -> set[str]:
    """Images that a node has."""
    return set(ctr(node, "images", "list", "--quiet").split())


def import_archive(node: Place, archive: Path) -> None:
    """Load an image from a file into a node."""
    command = node.inside(["ctr", "--namespace", "k8s.io", "images", "import", "-"])
    with archive.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{node.name} did not take an image: {done.stderr.strip()}")


def load(references: Sequence[str]) -> None:
    """Bring images from buildah into every node that lacks them."""
    nodes = list(NODE_PLACES.values())
    there = {node.name: on_node(node) for node in nodes}
    missing = [name for name in references if any(name not in there[node.name] for node in nodes)]
    if not missing:
        return
    STATE.mkdir(parents=True, exist_ok=True)
    done: list[str] = []
    with (
        Step(
            f"loading {len(missing)} images into {len(nodes)} nodes",
            lambda: f"{len(done)} of {len(missing)}",
        ),
        tempfile.TemporaryDirectory(prefix="archive-", dir=STATE) as folder,
        ThreadPoolExecutor() as pool,
    ):
        archive = Path(folder) / "image.tar"
        for name in missing:
            # Not an OCI archive: that one would be compressed, only to be unpacked again.
            run(["buildah", "push", "--quiet", name, f"docker-archive:{archive}:{name}"])
            list(pool.map(lambda node: import_archive(node, archive), nodes))
            archive.unlink()
            done.append(name)
    for node in nodes:
        if lost := [name for name in missing if name not in on_node(node)]:
            raise ClusterError(f"{node.name} did not take {', '.join(lost)}")


def tidy(node: Place, wanted: Iterable[str]) -> None:
    """Remove what an earlier start left in a node: containers, and images that nothing names."""
    for container in ctr(node, "containers", "list", "--quiet").split():
        ctr(node, "containers", "delete", container)
    keep = set(wanted)
    old = [name for name in on_node(node) if name not in keep and "@sha256:" not in name]
    if old:
        ctr(node, "images", "remove", *old)
