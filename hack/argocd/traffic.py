"""Callers while a step goes on: 20 streams and 20 requests a second, from an application's pod.

What they send and what counts as lost is `conformance/pods/traffic.py`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from string import Template
from typing import TYPE_CHECKING, Any, Self

from conformance.pods import traffic as caller

from hack.argocd.kube import apply, in_laboratory, kubectl
from hack.cluster.images import PART
from hack.cluster.progress import say
from hack.cluster.settings import ROOT, ClusterError
from hack.cluster.shell import eventually

if TYPE_CHECKING:
    from types import TracebackType

NAMESPACE = "synapse-argocd-callers"
STREAMS, RATE = map(int, os.environ.get("TRAFFIC", "20x20").split("x"))
"""Streams at a time, and requests a second beside them (three embeddings to a chat)."""
LONGEST = 1200
"""Seconds after which callers end by themselves."""
ENDS = 180.0
"""Seconds that the last requests may take."""
PODS = ROOT / "conformance" / "pods"

SAME = {"temperature": 0, "seed": 7}
CHAT = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
}
OPENAI = CHAT | SAME | {"max_tokens": 12}
EMBEDDING = {"model": "all-minilm-l6-v2", "input": "The river is high this morning."}
SHAPES: dict[str, dict[str, Any]] = {
    "chat": {"path": "/v1/chat/completions", "body": OPENAI},
    "chat-stream": {"path": "/v1/chat/completions", "body": OPENAI | {"stream": True}},
    "embedding": {"path": "/v1/embeddings", "body": EMBEDDING},
    "ollama-stream": {
        "path": "/api/chat",
        "body": CHAT | {"stream": True, "options": SAME | {"num_predict": 12}},
    },
    "ollama-embedding": {"path": "/api/embed", "body": EMBEDDING},
}
BACKENDS = ("", "ollama")
"""Who answers: Ollama itself, and the gateway by Ollama."""

CALLERS = """
apiVersion: v1
kind: Namespace
metadata: {name: $namespace, labels: {synapse.io/access: "true"}}
---
apiVersion: v1
kind: Pod
metadata: {name: callers, namespace: $namespace}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  containers:
    - name: python
      image: $image
      command: [sleep, infinity]
"""


def image() -> str:
    """An image with Python 3.11 or newer."""
    if named := os.environ.get("PYTHON_IMAGE"):
        return named
    return PART["tools"].reference if in_laboratory() else "docker.io/library/python:3.13-slim"


def shell(command: str, text: str = "") -> str:
    """Output of a shell in the callers' pod."""
    pod = ["exec", "--stdin", "--namespace", NAMESPACE, "callers", "--"]
    return kubectl(*pod, "sh", "-c", command, text=text)


def learn(url: str) -> dict[str, dict[str, caller.Said]]:
    """Ask everything once; the answers, by kind and by who gives them.

    Raises:
        ClusterError: A request has no answer.
    """
    requests = [{"url": url + shape["path"], "body": shape["body"]} for shape in SHAPES.values()]
    script = shell(
        f"cat > /tmp/ask.py && python3 /tmp/ask.py '{json.dumps(requests)}'", _read("ask")
    )
    known = {}
    for kind, answer in zip(SHAPES, json.loads(script), strict=True):
        if "error" in answer:
            raise ClusterError(f"{kind} has no answer: {answer['error']}")
        said, lost = caller.READERS[kind](answer["text"])
        if lost:
            raise ClusterError(f"{kind}: {lost}")
        known[kind] = dict.fromkeys(BACKENDS, said)
    return known


class Traffic:
    """Callers for the length of a block.

    Args:
        url: Base URL of a Service; nobody calls if it is empty.
        known: The right answers.
        anew: Whether each request has a connection of its own, to whom the Service names by then;
            otherwise connections are kept.

    Raises:
        ClusterError: Nothing is answered, or the callers themselves fail.
    """

    _numbers = itertools.count(1)

    def __init__(
        self, url: str, known: dict[str, dict[str, caller.Said]], *, anew: bool = False
    ) -> None:
        self._url = url
        self._known = known
        self._idle = 0 if anew else 4
        self._folder = f"/tmp/run-{next(self._numbers)}"  # noqa: S108 - of the callers' pod
        self.answers: list[dict[str, Any]] = []

    @property
    def lost(self) -> list[str]:
        """What was lost, one line each."""
        return [f"{one['kind']}: {one['lost']}" for one in self.answers if one["lost"]]

    @property
    def answered(self) -> str:
        """Who answered how many."""
        counts = Counter(one["backend"] for one in self.answers if not one["lost"])
        names = {"": "Ollama itself", "ollama": "the gateway"}
        return ", ".join(f"{count} by {names[name]}" for name, count in sorted(counts.items()))

    def __enter__(self) -> Self:
        if not self._url:
            return self
        shapes = {kind: {"kind": kind, **shape} for kind, shape in SHAPES.items()}
        kinds = ("chat", "embedding", "ollama-embedding", "embedding")
        plan = {
            "url": self._url,
            "key": "",
            "streams": [shapes["chat-stream"], shapes["ollama-stream"]],
            "requests": [shapes[kind] for kind in kinds],
            "known": self._known,
            "concurrent": STREAMS,
            "rate": RATE,
            "pending": RATE,
            "idle": self._idle,
            "seconds": LONGEST,
        }
        shell(f"mkdir -p {self._folder} && cat > {self._folder}/traffic.py", _read("traffic"))
        shell(f"cat > {self._folder}/plan.json", json.dumps(plan))
        run = f"{{ nohup setsid python3 traffic.py {self._folder} > log 2>&1; touch ended; }}"
        shell(f"cd {self._folder}; {run} > /dev/null 2>&1 &")
        self._flow()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._url:
            return
        if kind is None:
            self._flow()  # against what the step has left
        shell(f"touch {self._folder}/stop")
        eventually("the last requests end", self._ended, ENDS, lambda: shell(self._log))
        if said := shell(f"cat {self._folder}/log"):
            raise ClusterError(f"the callers failed: {said}")
        text = shell(f"cat {self._folder}/answers.jsonl")
        self.answers = [json.loads(line) for line in text.splitlines()]
        if kind is not None:
            say(f"  {len(self.answers)} requests until then, {len(self.lost)} lost")

    def _flow(self) -> None:
        """Return when every caller has sent anew."""
        count = f"wc -l < {self._folder}/answers.jsonl || echo 0"
        enough = int(shell(count)) + 3 * STREAMS
        eventually(
            "requests are answered",
            lambda: int(shell(count)) >= enough,
            ENDS,
            lambda: shell(self._log),
        )

    @property
    def _log(self) -> str:
        return f"tail -n 3 {self._folder}/log {self._folder}/answers.jsonl"

    def _ended(self) -> bool:
        return shell(f"test -e {self._folder}/ended && echo yes || true") != ""


def start() -> None:
    """Bring the callers' pod up."""
    apply(Template(CALLERS).substitute(namespace=NAMESPACE, image=image()), NAMESPACE)
    ready = ["wait", "--namespace", NAMESPACE, "pod/callers", "--for=condition=Ready"]
    kubectl(*ready, "--timeout=120s", timeout=150)


def remove() -> None:
    """Take it away."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=300)


def _read(name: str) -> str:
    return (PODS / f"{name}.py").read_text(encoding="utf-8")
