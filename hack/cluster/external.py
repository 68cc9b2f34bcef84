"""A cluster of the user's own: KUBECONFIG=... make cluster.

The images are built here and brought to it where that is possible, and the chart is installed. The
rest (network policies that are enforced, metrics, the Prometheus operator) is the cluster's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from hack.cluster import daemons, release
from hack.cluster.progress import Step, say
from hack.cluster.settings import KUBECONFIG, NAMESPACE, RELEASE, ROOT, ClusterError
from hack.cluster.shell import run, succeeds

IMAGES = ("gateway", "llama-cpp", "piper-tts", "whisper-stt")


def kubeconfig() -> str:
    """The kubeconfig of the user's own cluster, empty if none is named."""
    named = os.environ.get("KUBECONFIG", "")
    return "" if not named or Path(named) == KUBECONFIG else named


def kubectl(*arguments: str, text: str | None = None) -> str:
    """Output of kubectl against the user's cluster."""
    return run([daemons.tool("kubectl"), *arguments], text=text, timeout=120)


def helm(*arguments: str) -> str:
    """Output of Helm against the user's cluster."""
    return run([daemons.tool("helm4"), *arguments], cwd=ROOT)


def check() -> str:
    """Name of the current context.

    Raises:
        ClusterError: When the cluster does not answer.
    """
    try:
        context = kubectl("config", "current-context").strip()
        kubectl("version", "--request-timeout=10s")
    except ClusterError as error:
        raise ClusterError(
            f"The cluster of KUBECONFIG={kubeconfig()} does not answer.\n{error}\n"
            "Without KUBECONFIG, `make cluster` makes a cluster of its own."
        ) from error
    return context


def builder() -> str:
    """The builder that works here: docker or buildah."""
    named = os.environ.get("BUILDER", "")
    if named:
        return named
    return "docker" if succeeds(["docker", "info"]) else "buildah"


def reference(name: str) -> str:
    """The name that `make images` gives to an image."""
    chart = (ROOT / "charts" / "synapse" / "Chart.yaml").read_text(encoding="utf-8")
    version = next(
        line.split(":", 1)[1].strip().strip('"')
        for line in chart.splitlines()
        if line.startswith("appVersion:")
    )
    return f"docker.io/library/synapse-{name}:{os.environ.get('TAG', version)}"


def archive(name: str, folder: str) -> str:
    """Write an image to a file that nodes can read, and return its path."""
    path = f"{folder}/{name}.tar"
    if builder() == "docker":
        run(["docker", "save", "--output", path, reference(name)])
    else:
        run(
            [
                "buildah",
                "push",
                "--quiet",
                reference(name),
                f"docker-archive:{path}:{reference(name)}",
            ]
        )
    return path


def push(registry: str) -> None:
    """Push the images to a registry."""
    for name in IMAGES:
        target = f"{registry}/{reference(name).rpartition('/')[2]}"
        if builder() == "docker":
            run(["docker", "tag", reference(name), target])
            run(["docker", "push", target])
        else:
            run(["buildah", "push", reference(name), f"docker://{target}"])


def bring_images(context: str) -> None:
    """Bring the images to the cluster's nodes, or say that they could not be brought."""
    registry = os.environ.get("REGISTRY", "").rstrip("/")
    if registry:
        with Step(f"pushing to {registry}"):
            push(registry)
        return
    kind = shutil.which("kind") if context.startswith("kind-") else None
    k3s = shutil.which("k3s") if not kind else None
    if not kind and not k3s:
        say(
            "the images stay here: this is neither kind nor a K3s of this machine, and REGISTRY "
            "is not set; the nodes have to have them already"
        )
        return
    with Step(f"loading images by {'kind' if kind else 'k3s'}"), tempfile.TemporaryDirectory() as t:
        for name in IMAGES:
            path = archive(name, t)
            if kind:
                cluster = context.removeprefix("kind-")
                run([kind, "load", "image-archive", path, "--name", cluster])
            else:
                run([str(k3s), "ctr", "images", "import", path])


def deploy() -> None:
    """Build the images, bring them to the user's cluster, and install the chart."""
    context = check()
    say(f"a cluster of your own ({context}): only the images and the release are made")
    with Step("building the images"):
        run([ROOT / "hack" / "images" / "build.sh", *IMAGES], environment={"BUILDER": builder()})
    bring_images(context)
    flags = ["--values", str(release.VALUES)]
    if registry := os.environ.get("REGISTRY", "").rstrip("/"):
        flags += ["--set", f"images.registry={registry}"]
    for file in filter(None, os.environ.get("EXTRA_VALUES", "").split(",")):
        flags += ["--values", file]
    with Step("helm install, until every pod is ready"):
        helm(
            *("upgrade", "--install", RELEASE, "charts/synapse", "--namespace", NAMESPACE),
            *("--create-namespace", *flags, "--wait", "--timeout", "15m"),
        )
    sys.stdout.write(
        f"\nThe release {RELEASE} runs in {NAMESPACE}: helm test {RELEASE} -n {NAMESPACE}\n"
    )


def remove() -> None:
    """Remove the release from the user's cluster; volumes and Secrets stay."""
    context = check()
    with Step(f"removing the release {RELEASE} from {context}"):
        helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait")
    say(f"the namespace {NAMESPACE} stays, with its volumes and Secrets: make clean PURGE=1 ...")
