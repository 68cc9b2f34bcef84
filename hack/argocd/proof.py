"""The proof: what a cluster that syncs the tree from Git does, step by step, while callers call."""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hack.argocd import install, traffic, watch
from hack.argocd.kube import NAMESPACE, get, in_laboratory, kubectl, works
from hack.argocd.traffic import Traffic
from hack.argocd.tree import CLUSTER, Tree
from hack.cluster import images, release
from hack.cluster.progress import Step, say
from hack.cluster.settings import ROOT, ClusterError
from hack.cluster.shell import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.pods.traffic import Said

RELEASE = "synapse-argocd"
"""Namespace of the release; everything else is in `argocd`."""
HEALS = 300.0
"""Seconds that a manual change may last."""
LOOKS = 10.0
"""Seconds in which nothing may happen."""
SMALL = Path(__file__).with_name("small.yaml")
LAB = ROOT / "hack" / "cluster" / "values.yaml"


class Line(NamedTuple):
    """A step of the proof, and what it showed."""

    step: str
    seconds: float
    evidence: str
    asked: int
    lost: list[str]


class StepFailed(Exception):
    """A step did not show what it should; the text says why."""


@dataclass
class Proof:
    """The steps, in order.

    Args:
        tree: The repository that is synced.
    """

    tree: Tree
    lines: list[Line] = field(default_factory=list)
    overlays: list[str] = field(default_factory=list)
    commits: dict[str, str] = field(default_factory=dict)
    known: dict[str, dict[str, Said]] = field(default_factory=dict)

    @property
    def gateway(self) -> str:
        """The gateway's address, for callers."""
        return f"http://synapse-gateway.{RELEASE}.svc:8000"

    @property
    def ollama(self) -> str:
        """The name that applications of old call."""
        return f"http://ollama.{RELEASE}.svc:11434"

    def phase(self, number: int) -> list[str]:
        """Values files of a phase."""
        return [f"values/phase{number}.yaml", *self.overlays]

    def run(self) -> None:
        """Every step; the first that fails ends it."""
        self.step("first sync, at phase 2, to Healthy", self.first_sync)
        self.step(
            "phase 3: the name ollama goes to the gateway", self.phase_3, self.ollama, anew=True
        )
        self.step("phase 4 arrives", self.phase_4, self.gateway)
        self.step("manual changes are healed", self.drift, self.gateway)
        self.step("a wrong value changes nothing, and is shown", self.mistake, self.gateway)
        self.step("a revert takes the mistake back", self.mended, self.gateway)
        self.step("an image that does not exist stops nobody", self.bad_image, self.gateway)
        self.step("a revert rolls back to phase 3", self.back, self.gateway)

    def step(
        self, name: str, action: Callable[[], str], url: str = "", *, anew: bool = False
    ) -> None:
        """Do one step while callers call, and keep what it showed.

        Args:
            name: What is shown.
            action: Does it, and returns what was seen.
            url: What is called meanwhile.
            anew: Whether each request has a connection of its own.

        Raises:
            StepFailed: It did not show what it should, or a request was lost.
        """
        begun = time.monotonic()
        with Step(name), Traffic(url, self.known, anew=anew) as callers:
            evidence = action()
        seconds = time.monotonic() - begun
        asked, lost = len(callers.answers), callers.lost
        if anew:
            evidence += f"; answered: {callers.answered}"
        self.lines.append(Line(name, seconds, evidence, asked, lost))
        say(f"  {evidence}; {asked} requests, {len(lost)} lost")
        if lost:
            reasons = Counter(lost).most_common(10)
            raise StepFailed("\n".join(["lost:", *(f"{n} x {why}" for why, n in reasons)]))

    def first_sync(self) -> str:
        """A cluster that has nothing: projects, namespace and release from one object."""
        self.tree.make(self.phase(2))
        root = (self.tree.folder / CLUSTER / "root.yaml").read_text()
        kubectl("apply", "--namespace", NAMESPACE, "-f", "-", text=root)
        watch.arrived("synapse", self.tree.head())
        self.known = traffic.learn(self.ollama)
        return f"{len(self.resources())} objects Synced and Healthy at {self.tree.head()[:8]}"

    def phase_3(self) -> str:
        """The Service `ollama` changes hands only when the gateway is healthy."""
        before = self.pods()
        commit = self.tree.use("Put the gateway in front", files=self.phase(3))
        watch.arrived("synapse", commit)
        self.restarted_nothing(before)
        selector = self.service("ollama")["spec"]["selector"]["app.kubernetes.io/name"]
        if selector != "synapse-gateway":
            raise StepFailed(f"the Service ollama selects {selector}")
        return "the Service ollama leads to the gateway; no pod of phase 2 was restarted"

    def phase_4(self) -> str:
        """A commit adds components, and restarts none."""
        before = self.pods()
        self.commits["phase 4"] = self.tree.use("Add speech", files=self.phase(4))
        watch.arrived("synapse", self.commits["phase 4"])
        self.restarted_nothing(before)
        new = sorted({name for name, _ in self.pods()} - {name for name, _ in before})
        if not {"piper-tts", "whisper-stt"} <= set(new):
            raise StepFailed(f"new pods are {new}")
        return f"new: {', '.join(new)}; no pod of phase 3 was restarted"

    def drift(self) -> str:
        """A number, a deleted object, an object's content are as Git has them again."""
        kubectl("-n", RELEASE, "scale", "deployment/piper-tts", "--replicas=0")
        kubectl("-n", RELEASE, "delete", "networkpolicy", "whisper-stt")
        patch = '{"data": {"smoke_test.py": "changed"}}'
        kubectl("-n", RELEASE, "patch", "configmap", "synapse-scripts", "--patch", patch)

        def healed() -> bool:
            there = works("get", "-n", RELEASE, "networkpolicy", "whisper-stt")
            text = get("-n", RELEASE, "configmap", "synapse-scripts")["data"]["smoke_test.py"]
            piper = get("-n", RELEASE, "deployment", "piper-tts")["status"].get("readyReplicas")
            return there and text != "changed" and piper == 1

        eventually("what was changed by hand is as before", healed, HEALS, self.complaints)
        return "as before: a scaled Deployment, a deleted NetworkPolicy, a changed ConfigMap"

    def mistake(self) -> str:
        """The chart refuses; Argo CD goes on with what runs, and says why."""
        before = self.pods()
        wrong = {"gpu": {"timeSlices": 0}}
        self.commits["mistake"] = self.tree.use("Set a value that cannot be", more=wrong)
        sentence = "minimum: got 0, want 1"

        again = watch.now_and_then()

        def shown() -> bool:
            again()
            return any(sentence in one for one in watch.conditions("synapse"))

        eventually("Argo CD shows the chart's sentence", shown, HEALS, self.complaints)
        time.sleep(LOOKS)
        if self.pods() != before:
            raise StepFailed("pods have changed")
        (condition,) = [one for one in watch.conditions("synapse") if sentence in one]
        kind = condition.partition(":")[0]
        return f"no pod has changed; {kind} says: at '/gpu/timeSlices': {sentence}"

    def mended(self) -> str:
        """The release is again what Git says."""
        commit = self.tree.revert(self.commits["mistake"])
        watch.arrived("synapse", commit)
        return f"Synced and Healthy at {commit[:8]}, no condition left"

    def bad_image(self) -> str:
        """What renders, and cannot run: the rollout waits, and old pods serve."""
        before = self.pods()
        missing = {"gateway": {"image": {"tag": "not-there"}}}
        commit = self.tree.use("Name an image that nobody has pushed", more=missing)

        again = watch.now_and_then()

        def stuck() -> bool:
            again()
            return "Pending" in self.phases()

        eventually("the new pod cannot start", stuck, HEALS, self.complaints)
        time.sleep(LOOKS)
        gone = before - self.pods()
        if gone:
            raise StepFailed(f"pods have gone: {sorted(gone)}")
        state = watch.state(watch.application("synapse"))
        back = self.tree.revert(commit)
        # Argo CD begins no sync while one waits for pods that will never be ready.
        watch.terminate("synapse")
        watch.arrived("synapse", back)
        return f"old pods served on while the Application was {state}; taken back by a revert"

    def back(self) -> str:
        """Components that Git no longer names go, and their data stays."""
        commit = self.tree.revert(self.commits["phase 4"])
        watch.arrived("synapse", commit)
        left = sorted({name for name, _ in self.pods()} & {"piper-tts", "whisper-stt"})
        if left:
            raise StepFailed(f"still there: {left}")
        claims = [one["metadata"]["name"] for one in get("-n", RELEASE, "pvc")["items"]]
        if "whisper-stt-cache" not in claims:
            raise StepFailed(f"a volume was lost: there are {claims}")
        return "what phase 4 brought is gone, but for its volume"

    def complaints(self) -> str:
        """What Argo CD says of the release."""
        return watch.complaints("synapse")

    def resources(self) -> list[dict[str, Any]]:
        """Objects of the release, as Argo CD lists them."""
        found: list[dict[str, Any]] = watch.application("synapse")["status"]["resources"]
        return found

    def service(self, name: str) -> dict[str, Any]:
        """A Service of the release."""
        found: dict[str, Any] = get("-n", RELEASE, "service", name)
        return found

    def pods(self) -> set[tuple[str, str]]:
        """Running pods of Deployments: name and identity, with the restarts of their containers."""
        found = get("-n", RELEASE, "pods", "-l", "pod-template-hash")["items"]
        return {
            (
                one["metadata"]["labels"]["app.kubernetes.io/name"],
                one["metadata"]["uid"]
                + str([c["restartCount"] for c in one["status"].get("containerStatuses", [])]),
            )
            for one in found
            if one["status"]["phase"] == "Running"
        }

    def phases(self) -> set[str]:
        """Phases of the pods."""
        return {one["status"]["phase"] for one in get("-n", RELEASE, "pods")["items"]}

    def restarted_nothing(self, before: set[tuple[str, str]]) -> None:
        """Fail if a pod has gone or was restarted."""
        gone = before - self.pods()
        if gone:
            raise StepFailed(f"pods were restarted: {sorted(gone)}")


def prepare(folder: Path) -> Proof:
    """Argo CD, images and the repository."""
    install.install()
    traffic.start()
    tree = Tree(folder / "synapse", install.REPOSITORY, RELEASE, install.push_address())
    proof = Proof(tree)
    extra = {"small.yaml": SMALL.read_text()}
    if in_laboratory():
        images.load(images.build([], images.CORE))
        extra = {
            "laboratory.yaml": LAB.read_text(),
            "images.yaml": release.tag_values().read_text(),
        } | extra
    for name, text in extra.items():
        path = tree.folder / "values" / "proof" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        proof.overlays.append(f"values/proof/{name}")
    return proof


def clean() -> None:
    """Remove what a proof has left.

    Raises:
        ClusterError: The cluster syncs from another repository under the same names.
    """
    if works("get", "crd", "applications.argoproj.io"):
        things = [
            ("--namespace", NAMESPACE, kind, name, "--ignore-not-found")
            for kind in ("application", "appproject")
            for name in ("root", "synapse")
        ]
        for thing in things:
            found = kubectl("get", *thing, "--output", "yaml")
            if found and install.REPOSITORY not in found:
                raise ClusterError(
                    f"the {' '.join(thing[2:4])} is not of a proof; take a cluster that does not "
                    "sync this tree already"
                )
        for thing in things:
            kubectl("delete", *thing, timeout=300)
    kubectl("delete", "namespace", RELEASE, "--ignore-not-found", timeout=300)
    install.remove()
    traffic.remove()


def report(lines: list[Line]) -> str:
    """The steps as a table."""
    rows = [
        f"| {step} | {seconds:.0f} s | {asked or '-'} | {len(lost)} | {evidence} |"
        for step, seconds, evidence, asked, lost in lines
    ]
    head = ["| step | took | requests | lost | seen |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


def main() -> int:
    """Run the proof; 1 if a step failed."""
    with tempfile.TemporaryDirectory(prefix="synapse-argocd-") as folder:
        try:
            clean()
            proof = prepare(Path(folder))
        except ClusterError as error:
            sys.stderr.write(f"\n{error}\n")
            return 1
        failure = ""
        try:
            proof.run()
            with Step("removing it"):
                clean()
        except (ClusterError, StepFailed) as error:
            failure = str(error)
    sys.stdout.write("\n" + report(proof.lines))
    if failure:
        sys.stderr.write(f"\n{failure}\n")
        return 1
    return 0
