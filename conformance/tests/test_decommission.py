"""Two applications' own Ollama instances move to the gateway, and back, while they are called."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from conformance.suite.lines import NotSupported, line
from conformance.suite.release import GATEWAY
from conformance.suite.team import OLLAMA, Team
from conformance.suite.timeouts import RECOVERY, eventually
from conformance.suite.traffic import Plan, flowing, ollama_shape

from synapse_gateway.decommission.find import repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session
    from conformance.suite.traffic import Result, Traffic

NAMES = ("synapse-conformance-team-a", "synapse-conformance-team-b")
DRAIN = 40
"""Seconds from the alias to the end of the pods; names are looked up for each connection here."""
SETTLE = 4.0


@dataclass(frozen=True)
class Move:
    """Two teams, and the command that moves them.

    Attributes:
        deployment: Where to.
        teams: Who.
        model: A model of theirs, that the gateway has.
        foreign: A model of the second one's, that the gateway has not.
    """

    deployment: Session
    teams: tuple[Team, ...]
    model: str
    foreign: str

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `synapse decommission`."""
        options, release = self.deployment.options, self.deployment.release
        words = [sys.executable, "-m", "synapse_gateway", "decommission"]
        words += [f"--kubeconfig={options.kubeconfig}", f"--drain={DRAIN}"]
        words += [f"--context={options.context}"] if options.context else []
        words += [f"--gateway-service={GATEWAY}.{release.namespace}"]
        words += [f"--gateway-url={self.deployment.gateway.url}", "--callers-send-keys"]
        words += [f"--namespace={name}" for name in NAMES]
        words += [f"--image={re.escape(repository(self.teams[0].image))}$"]
        environ = {**os.environ, "SYNAPSE_API_KEY": release.key()}
        return subprocess.run(  # noqa: S603 - of this repository
            [*words, *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=RECOVERY * 2,
        )

    def flowing(self, stack: ExitStack) -> list[Traffic]:
        """Let each team's applications call their own Ollama, by its name."""
        found = []
        options, count = self.deployment.options, len(self.teams)
        for team in self.teams:
            shape = ollama_shape(self.model)
            plan = Plan(
                url=team.url,
                key=self.deployment.release.key(),
                streams=[shape],
                requests=[shape],
                concurrent=max(1, options.streams // count),
                rate=max(1, options.rate // count / 4),
                idle=0,
            )
            found.append(stack.enter_context(flowing(self.deployment, plan, team.caller)))
        return found


@pytest.fixture(scope="module")
def move(deployment: Session) -> Iterator[Move]:
    """The teams, with models; the second has one more than the gateway."""
    deployment.need_disruptive()
    targets = [
        (name, target.get("model", name), target["backend"])
        for name, model in deployment.release.config["models"].items()
        for target in model["targets"]
    ]
    chats = set(deployment.gateway.capable["chat"])
    model = next((name for name, _, b in targets if b == OLLAMA and name in chats), None)
    if model is None:
        raise NotSupported("no chat model of the gateway comes from an Ollama")
    teams = tuple(Team(deployment, name) for name in NAMES)
    for team in teams:
        team.bring(model)
    made = Move(deployment, teams, model, "of-team-b")
    yield made
    made.command("--undo")


@line("decommission.plan", "The plan finds every instance, and changes nothing")
def test_the_plan(move: Move, evidence: Evidence) -> None:
    done = move.command()
    for text in done.stdout.splitlines()[:3]:
        evidence("plan", " ".join(text.split()))
    assert done.returncode == 0, done.stderr
    for team in move.teams:
        assert team.name in done.stdout, f"{team.name} is not in the plan"
        assert team.replicas() == 1
        assert "externalName" not in team.service()["spec"]


@line("decommission.refusal", "A model that the gateway lacks is refused, and nothing moves")
def test_a_missing_model(move: Move, evidence: Evidence) -> None:
    second = move.teams[1]
    copied = {"source": move.model, "destination": move.foreign}
    _ask(move, second, "POST", "/api/copy", copied)
    try:
        done = move.command("--apply")
    finally:
        _ask(move, second, "DELETE", "/api/delete", {"model": move.foreign})
    texts = (done.stderr + done.stdout).splitlines()
    said = next((text.strip() for text in texts if move.foreign in text), "")
    evidence("said", said)
    assert done.returncode == 1, "it was not refused"
    assert said, f"the refusal does not name {move.foreign}: {done.stderr}"
    for team in move.teams:
        assert team.replicas() == 1
        assert "externalName" not in team.service()["spec"]


def _ask(move: Move, team: Team, method: str, path: str, body: dict[str, str]) -> None:
    """Change something in a team's Ollama, from a pod of the team."""
    script = (
        "import sys, urllib.request as r\n"
        "r.urlopen(r.Request(sys.argv[1], sys.argv[2].encode(), method=sys.argv[3]))"
    )
    words = ["python3", "-c", script, f"{team.url}{path}", json.dumps(body), method]
    done = move.deployment.cluster.exec(team.name, "caller", words)
    assert done.code == 0, done.error


def under_traffic(
    move: Move, flag: str, done: str, settled: Callable[[], object] = lambda: None
) -> list[Result]:
    """Run the command with a flag while the teams' applications call, and return what they saw.

    Args:
        move: Who moves.
        flag: The flag, and the mark of its beginning.
        done: The mark of its end.
        settled: Returns when what the command has begun is over.
    """
    with ExitStack() as stack:
        flows = move.flowing(stack)
        for flow in flows:
            flow.flow(SETTLE)
            flow.mark(flag)
        ended = move.command(f"--{flag}")
        assert ended.returncode == 0, ended.stderr
        for flow in flows:
            flow.mark(done)
        settled()
        flows[0].flow(SETTLE)
        return [flow.stop() for flow in flows]


@line("decommission.move", "Instances become aliases and are stopped, and no request is lost")
def test_they_move(move: Move, evidence: Evidence) -> None:
    results = under_traffic(
        move,
        "apply",
        "applied",
        lambda: eventually("their pods are gone", lambda: _stopped(move), RECOVERY),
    )
    tell(move, results, evidence)
    for team, result in zip(move.teams, results, strict=True):
        assert team.service()["spec"].get("externalName"), f"{team.name}: no alias"
        assert team.replicas() == 0, f"{team.name}: not stopped"
        assert any(result.backends(result.sent(result.at("applied")))), "the gateway did not answer"
        assert not result.lost, result.why_lost()


@line("decommission.undo", "One command brings them back, and no request is lost")
def test_they_move_back(move: Move, evidence: Evidence) -> None:
    if any(team.replicas() for team in move.teams):
        raise NotSupported("they did not move")
    results = under_traffic(move, "undo", "undone")
    tell(move, results, evidence)
    for team, result in zip(move.teams, results, strict=True):
        assert "externalName" not in team.service()["spec"], f"{team.name}: still an alias"
        assert team.replicas() == 1
        assert not result.lost, result.why_lost()


def _stopped(move: Move) -> bool:
    cluster = move.deployment.cluster
    return not any(cluster.all("Pod", team.name, "app=ollama") for team in move.teams)


def tell(move: Move, results: list[Result], evidence: Evidence) -> None:
    """Write down what the teams' applications saw."""
    for team, result in zip(move.teams, results, strict=True):
        evidence(f"{team.name}, requests", len(result.answers))
        evidence(f"{team.name}, lost", len(result.lost))
        own = [one for one in result.answers if not one["lost"] and not one["backend"]]
        evidence(f"{team.name}, answered by its own Ollama", len(own))
        answered = sum(result.backends(result.answers).values())
        evidence(f"{team.name}, answered by the gateway", answered)
        evidence.charts.append(result.course())
