"""Requests that flow while something is done to the deployment, and what became of them.

The one definition of "lost" is in `conformance/pods/traffic.py`, which runs in a pod of an
application and calls the gateway through its Service.
"""

from __future__ import annotations

import functools
import itertools
import json
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from conformance.pods import traffic as caller
from conformance.suite.gateway import CHAT, EMBEDDINGS
from conformance.suite.lab import PODS
from conformance.suite.lines import SuiteError
from conformance.suite.report.chart import Course
from conformance.suite.timeouts import EXEC, TRAFFIC_ENDS, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from conformance.suite.cluster import Object
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

TOKENS = 6
SHARE_OF_CHATS = 4
"""One of so many requests is a chat, the others are embeddings."""
QUESTIONS = (
    "Name the days of the week.",
    "Say hello.",
    "What is the capital of France?",
)
"""Small models waver where two words are as likely: which one they say then depends on what is
computed beside it. The first question that each engine answers alike every time is taken."""
TIMES = 6
"""How often each is asked before."""
TEXT = "The river is high this morning."
LONGEST = 600
"""Seconds after which traffic ends by itself."""


@dataclass(frozen=True)
class Plan:
    """What to call.

    Attributes:
        url: Base URL of the gateway, as an application has it.
        key: API key.
        streams: Shapes of requests that are streamed, `concurrent` at a time.
        requests: Shapes of requests that arrive at `rate` a second.
        known: By kind and backend, the answers that are right.
        concurrent: Streams at a time.
        rate: Requests a second, beside the streams.
        seconds: When it ends by itself.
        idle: Connections that are kept for the next request.
        pending: Requests without an answer, beside the streams, from which on none is sent: they
            would only wait.
    """

    url: str
    key: str
    streams: list[dict[str, Any]]
    requests: list[dict[str, Any]]
    concurrent: int
    rate: float
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: float = LONGEST
    idle: int = 4
    pending: int = 4


def openai_shapes(chat: str, embedding: str, question: str) -> dict[str, dict[str, Any]]:
    """Return requests of OpenAI's API, by kind."""
    body = {
        "model": chat,
        "messages": _messages(question),
        "max_tokens": TOKENS,
        "temperature": 0,
        "seed": 1,
    }
    shapes = {
        "chat-stream": {"path": "/v1/chat/completions", "body": {**body, "stream": True}},
        "chat": {"path": "/v1/chat/completions", "body": body},
    }
    if embedding:
        asked = {"model": embedding, "input": TEXT}
        shapes["embedding"] = {"path": "/v1/embeddings", "body": asked}
    return {kind: {"kind": kind, **shape} for kind, shape in shapes.items()}


def ollama_shape(model: str, question: str = QUESTIONS[0]) -> dict[str, Any]:
    """Return a streamed chat of Ollama's API."""
    body = {
        "model": model,
        "messages": _messages(question),
        "options": {"num_predict": TOKENS, "temperature": 0, "seed": 1},
        "stream": True,
    }
    return {"kind": "ollama-stream", "path": "/api/chat", "body": body}


def _messages(question: str) -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": question},
    ]


@functools.cache
def settled(deployment: Session) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return requests by kind that each engine answers alike every time, and those answers.

    Raises:
        NotSupported: The deployment has no chat model.
        SuiteError: No engine gives the same answer twice.
    """
    gateway = deployment.gateway
    chat = gateway.model(CHAT)
    embedding = (gateway.capable[EMBEDDINGS] or [""])[0]
    why = ""
    for question in QUESTIONS:
        shapes = openai_shapes(chat, embedding, question)
        known, why = learn(deployment, shapes)
        if not why:
            return shapes, known
    raise SuiteError(f"the engines do not answer the same question alike: {why}")


def arrivals(shapes: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the requests that arrive one after the other: a chat, and embeddings if there are."""
    embeddings = [shapes["embedding"]] * (SHARE_OF_CHATS - 1) if "embedding" in shapes else []
    return [shapes["chat"], *embeddings]


def plan(deployment: Session) -> Plan:
    """Return a plan for the deployment, with requests that each of its engines answers alike.

    Raises:
        NotSupported: It has no chat model.
        SuiteError: No engine gives the same answer twice.
    """
    shapes, known = settled(deployment)
    return Plan(
        url=f"http://synapse-gateway.{deployment.release.namespace}:8000",
        key=deployment.release.key(),
        streams=[shapes["chat-stream"]],
        requests=arrivals(shapes),
        known=known,
        concurrent=deployment.options.streams,
        rate=deployment.options.rate,
        pending=max(4, deployment.options.streams),
    )


def learn(
    deployment: Session, shapes: dict[str, dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], str]:
    """Ask every backend of the shapes' models, some times, from where the gateway asks them.

    Returns:
        The answers by kind and backend, and why they cannot be relied on (empty if they can).
    """
    release = deployment.release
    asked: list[tuple[str, str, dict[str, Any]]] = []
    for kind, shape in shapes.items():
        for target in release.config["models"][shape["body"]["model"]]["targets"]:
            backend = release.config["backends"][target["backend"]]
            body = {**shape["body"], "model": target.get("model", shape["body"]["model"])}
            request = {"url": backend["url"] + shape["path"], "body": body}
            asked += [(kind, target["backend"], request)] * TIMES
    pod = deployment.cluster.ready("synapse-gateway")[0]["metadata"]["name"]
    requests = json.dumps([request for _, _, request in asked])
    found = deployment.cluster.python(
        release.namespace, pod, PODS / "ask.py", requests, container="gateway", seconds=300
    )
    known: dict[str, dict[str, Any]] = {}
    for (kind, backend, _), answer in zip(asked, found, strict=True):
        if "error" in answer:
            return {}, f"{backend}: {answer['error']}"
        said, lost = caller.READERS[kind](answer["text"])
        if lost:
            return {}, f"{backend}: {lost}"
        if not caller.same(known.setdefault(kind, {}).setdefault(backend, said), said):
            return {}, f"{backend} answers {kind} in two ways"
    return known, ""


@dataclass
class Result:
    """What became of the requests.

    Attributes:
        answers: Records of `conformance/pods/traffic.py`, by the time of their sending.
        marks: What was done meanwhile, and when.
    """

    answers: list[dict[str, Any]]
    marks: list[tuple[float, str]]

    def at(self, mark: str) -> float:
        """Return when something was done, in seconds since the epoch."""
        return next(when for when, what in self.marks if what == mark)

    def sent(self, after: float = 0.0, before: float = 1e12) -> list[dict[str, Any]]:
        """Return the answers to requests that were sent within some time."""
        return [one for one in self.answers if after <= one["t"] < before]

    @property
    def lost(self) -> list[dict[str, Any]]:
        """The lost requests."""
        return [one for one in self.answers if one["lost"]]

    @property
    def told(self) -> list[dict[str, Any]]:
        """Those of them that had begun, and whose caller was told in the stream that it broke."""
        return [one for one in self.lost if one["lost"].startswith("error in the stream")]

    def backends(self, answers: Iterable[dict[str, Any]]) -> Counter[str]:
        """Count answers by who gave them."""
        return Counter(one["backend"] for one in answers if not one["lost"] and one["backend"])

    def course(self) -> Course:
        """Return a picture of it: answers by the second in which they ended."""
        if not self.answers:
            return Course(seconds=1)
        start = min(one["t"] for one in self.answers)
        end = max(one["t"] + one["seconds"] for one in self.answers)
        seconds = int(end - start) + 1
        rows: dict[str, list[int]] = {}
        lost = [0] * seconds
        for one in self.answers:
            second = int(one["t"] + one["seconds"] - start)
            if one["lost"]:
                lost[second] += 1
            else:
                rows.setdefault(one["backend"] or "unknown", [0] * seconds)[second] += 1
        marks = [(when - start, what) for when, what in self.marks]
        return Course(seconds=seconds, answered=dict(sorted(rows.items())), lost=lost, marks=marks)

    def why_lost(self) -> str:
        """Say why requests were lost, the most frequent reasons first."""
        reasons = Counter(one["lost"] for one in self.lost)
        return "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))


def tell(evidence: Evidence, result: Result) -> None:
    """Write down what callers saw."""
    evidence("requests", len(result.answers))
    evidence("lost", len(result.lost))
    if result.lost:
        evidence("why", result.why_lost())
    evidence.charts.append(result.course())


def none_lost(evidence: Evidence, *results: Result) -> None:
    """Write down what callers saw, and hold it against what is promised.

    Raises:
        AssertionError: A request was lost.
    """
    for result in results:
        tell(evidence, result)
        if result.lost:
            raise AssertionError(result.why_lost())


class Traffic:
    """Traffic that flows.

    Args:
        deployment: Where.
        plan: What is called.
        pod: Who calls; an application's pod of the suite's own if none is named.
    """

    _numbers = itertools.count(1)

    def __init__(self, deployment: Session, plan: Plan, pod: Object | None = None) -> None:
        self._deployment = deployment
        self._plan = plan
        self._pod = (pod or deployment.lab.caller)["metadata"]
        self._folder = f"/tmp/run-{next(self._numbers)}"  # noqa: S108 - of a pod of ours
        self.marks: list[tuple[float, str]] = []

    def start(self) -> None:
        """Begin."""
        script = (PODS / "traffic.py").read_text(encoding="utf-8")
        self._shell(f"mkdir -p {self._folder}; cat > {self._folder}/traffic.py", script)
        self._shell(f"umask 077; cat > {self._folder}/plan.json", json.dumps(self._plan.__dict__))
        # a session of its own, which holds nothing of this shell's: kubectl would wait for it
        run = f"cd {self._folder} && python3 traffic.py {self._folder} > log 2>&1; touch ended"
        self._shell(f"nohup setsid sh -c '{run}' > /dev/null 2>&1 < /dev/null &")

    def mark(self, what: str) -> None:
        """Note that something is being done, by the pod's clock."""

        def look() -> float | None:  # an API server that has just come back may lose what was said
            said = self._shell("date +%s.%N")
            return float(said) if said else None

        self.marks.append((eventually("the pod tells the time", look, EXEC), what))

    def answers(self) -> list[dict[str, Any]]:
        """Return what has come back so far."""
        text = self._shell(f"cat {self._folder}/answers.jsonl 2> /dev/null || true")
        whole = text[: text.rfind("\n") + 1]
        found = [json.loads(line) for line in whole.splitlines()]
        return sorted(found, key=lambda one: float(one["t"]))

    def until(
        self, what: str, look: Callable[[list[dict[str, Any]]], bool], seconds: float
    ) -> None:
        """Let it flow until its answers show something.

        Raises:
            AssertionError: They did not, in time.
        """
        eventually(what, lambda: look(self.answers()), seconds, every=1.0)

    def flow(self, seconds: float) -> None:
        """Let it flow for a while."""
        time.sleep(seconds)

    def stop(self) -> Result:
        """End, and return what became of everything that was sent."""
        self._shell(f"touch {self._folder}/stop")

        def look() -> bool:
            return "yes" in self._shell(f"test -e {self._folder}/ended && echo yes || true")

        try:
            eventually("the last requests end", look, TRAFFIC_ENDS, every=1.0)
        except AssertionError as error:
            raise SuiteError(str(error)) from None
        log = self._shell(f"tail -3 {self._folder}/log")
        if log:
            raise SuiteError(f"the callers failed: {log}")
        return Result(self.answers(), self.marks)

    def _shell(self, command: str, text: str = "") -> str:
        namespace, name = self._pod["namespace"], self._pod["name"]
        done = self._deployment.cluster.exec(namespace, name, ["sh", "-c", command], text)
        if done.code != 0:
            raise SuiteError(f"{command[:60]}: {done.error.strip()}")
        return done.text


@contextmanager
def flowing(deployment: Session, plan: Plan, pod: Object | None = None) -> Iterator[Traffic]:
    """Let traffic flow for the length of a block, and stop it in any case."""
    traffic = Traffic(deployment, plan, pod)
    traffic.start()
    try:
        yield traffic
    except BaseException:
        traffic.stop()
        raise
