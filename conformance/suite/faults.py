"""What can happen to a backend, each with what mends it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.suite.lab import PODS
from conformance.suite.lines import NotSupported
from conformance.suite.timeouts import DRAINED, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.suite.scene import Scene

STAND_IN = "conformance-stand-in"
# Many that are small: the kernel ends the largest first, which is to be the engine. Each waits for
# the end of a line that has none.
HOG = "while :; do { head -c 40000000 /dev/zero; sleep 60; } | tail > /dev/null & sleep 0.1; done"
NO_SUCH_IMAGE = "synapse.invalid/no-such-image:0"


@dataclass(frozen=True)
class Fault:
    """A shape of fault.

    Attributes:
        name: Last part of the line's id.
        title: The line's title.
        begin: Breaks the first choice of a scene.
        mend: Undoes it; is called in any case.
        seconds: How long it lasts.
        cuts: Whether answers that had begun may end early, with an error that says so.
        meets: Outcomes of attempts, one of which the gateway has to meet; empty for any.
        replaced: Whether others have to answer meanwhile.
    """

    name: str
    title: str
    begin: Callable[[Scene], None]
    mend: Callable[[Scene], None]
    seconds: float = 6.0
    cuts: bool = True
    meets: tuple[str, ...] = ()
    replaced: bool = True


def nothing(_: Scene) -> None:
    """Nothing has to be mended: the cluster does it."""


# -- pods


def kill_pod(scene: Scene) -> None:
    """Delete the pod without a moment to end."""
    scene.cluster.delete("Pod", scene.pod["metadata"]["name"], grace=0)


def kill_process(scene: Scene) -> None:
    """Kill the engine itself; the kubelet starts it again."""
    scene.lab.in_pod(scene.pod, "signal", "SIGKILL")


def scale_to_zero(scene: Scene) -> None:
    """Take all pods away, in order."""
    scene.cluster.scale(scene.first, 0)


def take_away(scene: Scene) -> None:
    """Take all pods away, and end those that still answer when the drain has had its chance."""
    scale_to_zero(scene)
    with suppress(AssertionError):
        scene.await_pods_gone(DRAINED)
    end_pods(scene)


def end_pods(scene: Scene) -> None:
    """End all pods at once."""
    name = f"app.kubernetes.io/name={scene.first}"
    for pod in scene.cluster.all("Pod", None, name):
        scene.cluster.delete("Pod", pod["metadata"]["name"], grace=0)
    scene.await_pods_gone()


def scale_back(scene: Scene) -> None:
    """Bring them back."""
    scene.cluster.scale(scene.first, scene.workload["spec"]["replicas"])


def drop_packets(scene: Scene) -> None:
    """Drop what the pod sends, in its own network namespace."""
    scene.lab.in_pod(scene.pod, "blackhole", "60")


def heal(scene: Scene) -> None:
    """Let its packets pass again."""
    for pod in scene.cluster.pods(scene.first):
        scene.lab.in_pod(pod, "heal")


def slow_down(scene: Scene) -> None:
    """Let the pod run for a tenth of the time."""
    scene.lab.in_pod(scene.pod, "crawl", f"{SLOW:g}")


def run_out_of_memory(scene: Scene) -> None:
    """Fill the container's memory up to its limit, so that the kernel ends the engine.

    Raises:
        NotSupported: The container has no limit: the node would run out instead.
    """
    pod = scene.pod
    container = pod["spec"]["containers"][0]
    if "memory" not in container.get("resources", {}).get("limits", {}):
        raise NotSupported(f"{scene.first} has no memory limit")
    scene.lab.in_pod(pod, "expose")
    name = pod["metadata"]["name"]
    scene.cluster.exec(pod["metadata"]["namespace"], name, ["sh", "-c", HOG], seconds=120)
    eventually("the kernel has ended the engine", lambda: _was_out_of_memory(scene), 60)


def _was_out_of_memory(scene: Scene) -> bool:
    states = [
        state
        for pod in scene.cluster.pods(scene.first)
        for state in pod["status"].get("containerStatuses", [])
    ]
    return any(
        state[when].get("terminated", {}).get("reason") == "OOMKilled"
        for state in states
        for when in ("lastState", "state")
    )


# -- rollouts


def roll_out_bad_image(scene: Scene) -> None:
    """Roll out an image that does not exist."""
    _set_image(scene, NO_SUCH_IMAGE)


def roll_back(scene: Scene) -> None:
    """Roll back."""
    _set_image(scene, scene.workload["spec"]["template"]["spec"]["containers"][0]["image"])


def _set_image(scene: Scene, image: str) -> None:
    deployment = scene.cluster.get("Deployment", scene.first)
    containers = deployment["spec"]["template"]["spec"]["containers"]
    containers[0]["image"] = image
    change = {"spec": {"template": {"spec": {"containers": containers}}}}
    scene.cluster.patch("Deployment", scene.first, change)


# -- an engine that is there, and wrong


def replace_by_hanging(scene: Scene) -> None:
    """Put an engine in its place that sends the head of an answer and nothing more."""
    _stand_in(scene, "hang")


def replace_by_cutting(scene: Scene) -> None:
    """Put an engine in its place that breaks off after some words."""
    _stand_in(scene, "cut")


def _stand_in(scene: Scene, fault: str) -> None:
    scale_to_zero(scene)
    end_pods(scene)
    template = scene.workload["spec"]["template"]
    config = scene.deployment.release.config["models"]
    models = {
        str(target.get("model", name))
        for name, model in config.items()
        for target in model["targets"]
        if target["backend"] == scene.first
    }
    ports: list[dict[str, Any]] = template["spec"]["containers"][0]["ports"]
    script = (PODS / "faulty.py").read_text(encoding="utf-8")
    command = ["python3", "-c", script, str(ports[0]["containerPort"]), fault, *sorted(models)]
    scene.lab.pod(
        scene.cluster.namespace,
        STAND_IN,
        command,
        ports=ports,
        labels=template["metadata"]["labels"],
    )


def take_stand_in_away(scene: Scene) -> None:
    """Bring the engine itself back."""
    scene.cluster.delete("Pod", STAND_IN, grace=0)
    scale_back(scene)


SLOW = 12.0
FAULTS = (
    Fault("pod-killed", "A pod is killed", kill_pod, nothing),
    Fault("process-killed", "The engine's process is killed", kill_process, nothing),
    Fault("scaled-to-zero", "A backend is scaled to zero", take_away, scale_back),
    Fault(
        "packets-dropped",
        "Packets of a backend are dropped",
        drop_packets,
        heal,
        seconds=20,
        meets=("connect_timeout", "first_token_timeout", "stalled", "reset", "cut"),
    ),
    Fault(
        "slow", "A backend is ten times as slow", slow_down, nothing, seconds=SLOW, replaced=False
    ),
    Fault(
        "hung-after-headers",
        "A backend hangs after the head of its answers",
        replace_by_hanging,
        take_stand_in_away,
        seconds=0,
        meets=("first_token_timeout",),
    ),
    Fault(
        "cut-mid-stream",
        "A backend breaks its streams off",
        replace_by_cutting,
        take_stand_in_away,
        seconds=0,
        meets=("cut",),
    ),
    Fault("out-of-memory", "A backend runs out of memory", run_out_of_memory, nothing),
    Fault(
        "bad-image",
        "An image that does not exist is rolled out",
        roll_out_bad_image,
        roll_back,
        cuts=False,
        replaced=False,  # the pods that run stay until others are ready
    ),
)
