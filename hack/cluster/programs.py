"""The programs that a cluster is made of, built from their Go modules.

Each module is copied out of the module cache, made whole where its zip is not, and built there.
The result is kept under its version in CACHE/synapse/tools/NAME-VERSION.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hack.cluster.progress import Step
from hack.cluster.settings import TOOLS, ClusterError, pins
from hack.cluster.shell import last_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PINS = pins()
GO_ENVIRONMENT = {
    "CGO_ENABLED": "0",
    "GOWORK": "off",
    "GOFLAGS": "-mod=mod -buildvcs=false",
}


@dataclass(frozen=True)
class Program:
    """How one module becomes executables.

    Attributes:
        name: Folder in the cache, in front of the version.
        module: Module path.
        pin: Key of its version in versions.env.
        commands: Package, below the module, of each executable.
        module_version: Pattern of the module's own version, where it is not the release's.
        twins: Pattern of the version of modules that go.mod replaces by a folder: a module's zip
            does not hold them, but they are published.
        tags: Build tags.
        variables: Go variables that carry the version.
        files: Written into the copy before it is built.
        edits: (file, old, new) in the copy before it is built.
        keep: Files and folders of the module that are needed at run time.
    """

    name: str
    module: str
    pin: str
    commands: Mapping[str, str]
    module_version: str = "v{version}"
    twins: str = ""
    tags: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    edits: Sequence[tuple[str, str, str]] = ()
    keep: Sequence[str] = ()

    @property
    def version(self) -> str:
        """The release's version, without a v."""
        return PINS[self.pin]

    @property
    def folder(self) -> Path:
        """Where its executables are, once they are built."""
        return TOOLS / f"{self.name}-{self.version}"

    def missing(self, commands: Sequence[str] = ()) -> list[str]:
        """Those of `commands` (all if none is named) that have not been built."""
        return [name for name in commands or self.commands if not (self.folder / name).exists()]


COREDNS_PLUGINS = ("reload", "errors", "health", "ready", "prometheus", "cache", "kubernetes")
COREDNS_PACKAGES = ("reload", "errors", "health", "ready", "metrics", "cache", "kubernetes")

PROGRAMS = (
    Program(
        name="kubernetes",
        module="k8s.io/kubernetes",
        pin="KUBERNETES_VERSION",
        commands={
            name: f"cmd/{name}"
            for name in (
                "kube-apiserver",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        },
        twins="v0.{version_without_major}",
        variables={
            "k8s.io/component-base/version.gitVersion": "v{version}",
            "k8s.io/component-base/version.gitMajor": "{major}",
            "k8s.io/component-base/version.gitMinor": "{minor}",
        },
    ),
    Program(
        name="cilium",
        module="github.com/cilium/cilium",
        pin="CILIUM_VERSION",
        commands={
            "cilium-agent": "daemon",
            "cilium-operator": "operator",
            "cilium-cni": "plugins/cilium-cni",
            "cilium-dbg": "cilium-dbg",
        },
        tags="netgo,osusergo",
        # A kernel without loadable modules has no such file; the node writes one of its own.
        edits=[
            (
                "pkg/datapath/linux/modules/modules_linux.go",
                '"/proc/modules"',
                '"/run/kernel-modules"',
            )
        ],
        keep=["bpf"],
    ),
    Program(
        name="coredns",
        module="github.com/coredns/coredns",
        pin="COREDNS_VERSION",
        commands={"coredns": "cluster"},
        # What the plugins of clouds bring along is most of CoreDNS; a cluster needs none of it.
        files={
            "cluster/main.go": "package main\n\nimport (\n"
            '\t"github.com/coredns/coredns/core/dnsserver"\n'
            '\t"github.com/coredns/coredns/coremain"\n'
            + "".join(
                f'\t_ "github.com/coredns/coredns/plugin/{name}"\n' for name in COREDNS_PACKAGES
            )
            + ")\n\nfunc main() {\n\tdnsserver.Directives = []string{"
            + ", ".join(f'"{name}"' for name in COREDNS_PLUGINS)
            + "}\n\tcoremain.Run()\n}\n"
        },
    ),
    Program(
        name="metrics-server",
        module="sigs.k8s.io/metrics-server",
        pin="METRICS_SERVER_VERSION",
        commands={"metrics-server": "cmd/metrics-server"},
    ),
    Program(
        name="local-path-provisioner",
        module="github.com/rancher/local-path-provisioner",
        pin="LOCAL_PATH_PROVISIONER_VERSION",
        commands={"local-path-provisioner": "."},
    ),
    Program(
        name="prometheus-operator",
        module="github.com/prometheus-operator/prometheus-operator",
        pin="PROMETHEUS_OPERATOR_VERSION",
        commands={
            "operator": "cmd/operator",
            "prometheus-config-reloader": "cmd/prometheus-config-reloader",
        },
        twins="v{version}",
    ),
    Program(
        name="prometheus",
        module="github.com/prometheus/prometheus",
        pin="PROMETHEUS_VERSION",
        module_version="v0.{prometheus_minor}.{patch}",
        commands={"prometheus": "cmd/prometheus"},
        tags="netgo",
        # The discovery of a dozen clouds is most of Prometheus.
        files={
            "plugins/plugins.go": "package plugins\n\n"
            'import _ "github.com/prometheus/prometheus/discovery/kubernetes"\n'
        },
        variables={"github.com/prometheus/common/version.Version": "{version}"},
    ),
    Program(
        name="alertmanager",
        module="github.com/prometheus/alertmanager",
        pin="ALERTMANAGER_VERSION",
        commands={"alertmanager": "cmd/alertmanager"},
        variables={"github.com/prometheus/common/version.Version": "{version}"},
    ),
    Program(
        name="argocd",
        module="github.com/argoproj/argo-cd/v3",
        pin="ARGO_CD_VERSION",
        commands={"argocd": "cmd"},
        keep=["manifests/core-install.yaml"],
    ),
    Program(
        name="traefik",
        module="github.com/traefik/traefik/v3",
        pin="TRAEFIK_VERSION",
        commands={"traefik": "cmd/traefik"},
        variables={"github.com/traefik/traefik/v3/pkg/version.Version": "{version}"},
        files={"webui/static/index.html": "<p>This build has no dashboard.</p>\n"},
    ),
)
BY_NAME = {program.name: program for program in PROGRAMS}
EXTRAS = ("argocd", "traefik")  # built when they are asked for
CORE = tuple(name for name in BY_NAME if name not in EXTRAS)


def expand(pattern: str, version: str) -> str:
    """Fill a pattern of a `Program` with the parts of a version."""
    major, minor, patch = [*version.split("."), "0", "0"][:3]
    return pattern.format(
        version=version,
        major=major,
        minor=minor,
        patch=patch,
        version_without_major=version.partition(".")[2],
        # Prometheus 3.7.0 is the module's v0.307.0.
        prometheus_minor=f"{major}{int(minor):02}",
    )


def executable(program: str, command: str) -> Path:
    """Path of an executable, whether or not it has been built."""
    return BY_NAME[program].folder / command


def go(arguments: Sequence[str], cwd: Path, what: str) -> str:
    """Output of a go command.

    Raises:
        ClusterError: When it fails, with the end of what it said.
    """
    done = subprocess.run(
        ["go", *arguments],  # noqa: S607 - the user's own
        cwd=cwd,
        env=os.environ | GO_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ClusterError(f"{what} failed:\n{last_lines(done.stderr or done.stdout)}")
    return done.stdout


def download(program: Program, cwd: Path) -> Path:
    """Folder of a module in the module cache, downloaded if need be."""
    version = expand(program.module_version, program.version)
    name = f"{program.module}@{version}"
    try:
        text = go(["mod", "download", "-json", name], cwd, f"downloading {name}")
    except ClusterError as error:
        raise ClusterError(
            f"{error}\n  Is the Go module proxy reachable (go env GOPROXY)?"
        ) from error
    return Path(json.loads(text)["Dir"])


def replace_folders(program: Program, source: Path) -> None:
    """Point what go.mod replaces by a folder that no zip holds to its published twin."""
    module: dict[str, Any] = json.loads(go(["mod", "edit", "-json"], source, "reading go.mod"))
    twin = expand(program.twins, program.version)
    edits = [
        f"-replace={entry['Old']['Path']}={entry['Old']['Path']}@{twin}"
        for entry in module.get("Replace") or ()
        if entry["New"]["Path"].startswith(("./", "../"))
    ]
    if edits:
        go(["mod", "edit", *edits], source, "editing go.mod")


def copy_source(program: Program, work: Path) -> Path:
    """Copy a module into `work` and make it buildable."""
    source = work / "source"
    shutil.copytree(download(program, work), source, symlinks=True)
    for path in [source, *source.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200)
    if program.twins:
        replace_folders(program, source)
    for name, text in program.files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(text, encoding="utf-8")
    for name, old, new in program.edits:
        text = (source / name).read_text(encoding="utf-8")
        if old not in text:
            raise ClusterError(f"{program.name} {program.version}: {name} has no {old} any more")
        (source / name).write_text(text.replace(old, new), encoding="utf-8")
    return source


def compile_commands(
    program: Program, commands: Sequence[str], source: Path, out: Path, log: Path
) -> None:
    """Run go build; what it compiles goes to `log`, a line a package."""
    flags = " ".join(
        ["-s", "-w"]
        + [
            f"-X {name}={expand(value, program.version)}"
            for name, value in program.variables.items()
        ]
    )
    for command in commands:  # one at a time: two linkers at once need twice the memory
        arguments = ["nice", "-n", "19", "go", "build", "-v", "-trimpath", "-ldflags", flags]
        arguments += ["-o", str(out / command)]
        arguments += ["-tags", program.tags] if program.tags else []
        with log.open("ab") as sink:
            done = subprocess.run(
                [*arguments, f"./{program.commands[command]}"],
                cwd=source,
                env=os.environ | GO_ENVIRONMENT,
                stdout=sink,
                stderr=sink,
                check=False,
            )
        if done.returncode != 0:
            raise ClusterError(
                f"{command} {program.version} could not be built; the whole log is {log}\n"
                + last_lines(log.read_text(encoding="utf-8", errors="replace"))
            )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file: of two builds of the same, the second finds the work done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def build(program: Program, only: Sequence[str] = ()) -> Path:
    """Build what is missing of a program, and return its folder.

    Raises:
        ClusterError: When a tool is missing, a module cannot be had, or the build fails.
    """
    if not program.missing(only):
        return program.folder
    if not shutil.which("go"):
        raise ClusterError("go is missing; install Go 1.25 or later and run this again")
    with locked(TOOLS / f".lock.{program.folder.name}"):
        commands = program.missing(only)
        if not commands:
            return program.folder
        log = TOOLS / f".{program.folder.name}.log"
        log.unlink(missing_ok=True)
        log.touch()
        prefix = f".build-{program.name}-"
        for stale in TOOLS.glob(f"{prefix}*"):  # of a build that was killed
            shutil.rmtree(stale)

        def progress() -> str:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            loading = sum(line.startswith("go: downloading") for line in lines)
            words = f"{len(lines) - loading} packages compiled"
            return f"{loading} modules fetched, {words}" if loading else words

        with (
            tempfile.TemporaryDirectory(prefix=prefix, dir=TOOLS) as folder,
            Step(f"building {program.name} {program.version}", progress),
        ):
            work = Path(folder)
            out = work / "out"
            out.mkdir()
            source = copy_source(program, work)
            compile_commands(program, commands, source, out, log)
            for name in program.keep:
                target = program.folder / name
                if not target.exists():
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.move(source / name, target)
            program.folder.mkdir(parents=True, exist_ok=True)
            for command in commands:
                (out / command).rename(program.folder / command)
        log.unlink()
    return program.folder


def by_name(name: str) -> Program:
    """The program of a name.

    Raises:
        ClusterError: When there is none.
    """
    if name not in BY_NAME:
        raise ClusterError(f"there is no program {name}; there are {', '.join(BY_NAME)}")
    return BY_NAME[name]


def main(arguments: Sequence[str]) -> int:
    """Build PROGRAM or PROGRAM/COMMAND and print where each is; the exit code."""
    try:
        for word in arguments:
            name, _, command = word.partition("/")
            if word != "--path":
                program = by_name(name)
                if "--path" not in arguments:
                    build(program, [command] if command else [])
                sys.stdout.write(f"{program.folder / command}\n")
    except ClusterError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
