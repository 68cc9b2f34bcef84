"""The chart's release in the cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hack.cluster.daemons import CONTROL, kubectl, tool
from hack.cluster.images import PART, PROJECT, project_tag
from hack.cluster.settings import (
    HERE,
    KUBECONFIG,
    NAMESPACE,
    RELEASE,
    ROOT,
    RUN,
    ClusterError,
)
from hack.cluster.shell import last_lines, run

if TYPE_CHECKING:
    from pathlib import Path

VALUES = ROOT / "values" / "embedded.yaml"
OVERLAY = HERE / "values.yaml"
TAGS = RUN / "images.yaml"
READY_SECONDS = 600
# Where the chart takes each image's tag from.
TAG_PATHS = {
    "gateway.image": "gateway",
    "llama-embed.image": "llama-cpp",
    "llama-router.image": "llama-cpp",
    "ollama.pull.image": "llama-cpp",
    "piper-tts.image": "piper-tts",
    "whisper-stt.image": "whisper-stt",
    # In the phases alone, where some images stand in for others (conformance/overlays/small.yaml).
    "pyannote-speaker.image": "pyannote-speaker",
    "deepfilter-audio.image": "deepfilter-audio",
    "vllm.image": "llama-cpp",
    "chatterbox-tts.image": "gateway",
    "speaches.image": "whisper-stt",
    "ollama.image": "ollama",
    "terminal-feed-redis.image": "redis",
    "terminal-feed-redis.exporter.image": "redis-exporter",
}


def tag_of(name: str) -> str:
    """The tag of an image of this repository, or of the cluster's own."""
    return project_tag(name) if name in PROJECT else PART[name].reference.rpartition(":")[2]


def tag_values() -> Path:
    """Write the values file that names the tags of this working tree, and return its path."""
    values: dict[str, Any] = {}
    for path, name in TAG_PATHS.items():
        level = values
        for part in path.split("."):
            level = level.setdefault(part, {})
        level["tag"] = tag_of(name)
    TAGS.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return TAGS


def value_files() -> list[Path]:
    """The values files of the release, in order."""
    return [VALUES, OVERLAY, tag_values()]


def helm(*arguments: str) -> str:
    """Output of Helm as the cluster's administrator."""
    command = [tool("helm4"), f"--kubeconfig={KUBECONFIG}", *arguments]
    return run(CONTROL.inside(command, mounts=False), cwd=ROOT)


def make_namespace() -> None:
    """Make the release's namespace, which takes pods without privileges alone."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": labels},
    }
    kubectl("apply", "--server-side", "-f", "-", text=json.dumps(manifest))


def waits_for() -> str:
    """Pods of the release that are not ready yet, in a few words."""
    try:
        listed = kubectl("-n", NAMESPACE, "get", "pods", "--no-headers", timeout=10)
    except ClusterError:
        return ""
    names = []
    for line in listed.splitlines():
        name, ready, status, *_ = line.split()
        have, _, want = ready.partition("/")
        if have != want and status != "Completed":
            names.append(f"{name} ({status})")
    return f"waiting for {', '.join(names)}" if names else ""


def evidence() -> str:
    """Pods and what the cluster warns of, for an error."""
    pods = kubectl("-n", NAMESPACE, "get", "pods", "-o", "wide")
    warned = ["--field-selector", "type=Warning", "--sort-by", ".lastTimestamp"]
    events = kubectl("-n", NAMESPACE, "get", "events", *warned)
    return f"{pods}\n{last_lines(events)}"


def install(*more: Path, wait: bool = True) -> None:
    """Install or upgrade the release.

    Args:
        more: Values files laid over those of the release.
        wait: Return when its pods are ready.
    """
    make_namespace()
    flags = [word for file in (*value_files(), *more) for word in ("--values", str(file))]
    flags += ["--wait", "--timeout", f"{READY_SECONDS}s"] if wait else []
    chart = ROOT / "charts" / "synapse"
    try:
        helm("upgrade", "--install", RELEASE, str(chart), "--namespace", NAMESPACE, *flags)
    except ClusterError as error:
        raise ClusterError(f"{error}\n{evidence()}") from error


def wait_until_ready() -> None:
    """Return when every Deployment is available and every Job has ended well."""
    flags = ["--all", f"--timeout={READY_SECONDS}s"]
    try:
        for what, condition in (("job", "Complete"), ("deployment", "Available")):
            kubectl("-n", NAMESPACE, "wait", f"--for=condition={condition}", what, *flags)
    except ClusterError as error:
        raise ClusterError(f"{error}\n{evidence()}") from error
