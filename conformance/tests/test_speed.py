"""The contract's bounds on time, measured here."""

from __future__ import annotations

import json
import statistics
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from conformance.suite.gateway import CHAT, EMBEDDINGS, QUESTION
from conformance.suite.lab import PODS
from conformance.suite.lines import NotSupported, line
from conformance.suite.release import GATEWAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

EMBEDDINGS_P95 = 0.100
"""Seconds; the contract's bound for one short text."""
FIRST_TOKEN = 5.0
"""Seconds; the contract's bound on a CPU."""
OVERHEAD = 0.020
"""Seconds; the contract's bound for what the gateway adds."""
SAMPLES = 60
PAIRS = 200
"""Pairs of requests, one to the server and one through the gateway."""
ROUNDS = 5
"""The best round counts: what else a machine does meanwhile only ever makes a round slower."""
STREAMS = 10


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


@line("speed.embeddings", "95 of 100 embeddings of a short text take less than 100 ms")
def test_embeddings(gateway: Gateway, evidence: Evidence) -> None:
    gateway.need("/v1/embeddings")
    slow = []
    for name in gateway.capable[EMBEDDINGS] or [gateway.model(EMBEDDINGS)]:
        best = _embeddings(gateway, name)
        rounds = 1
        while p95(best) >= EMBEDDINGS_P95 and rounds < ROUNDS:
            best = min(best, _embeddings(gateway, name), key=p95)
            rounds += 1
        evidence(
            name,
            f"median {statistics.median(best) * 1000:.1f} ms, p95 {p95(best) * 1000:.1f} ms, "
            f"round {rounds}",
        )
        if p95(best) >= EMBEDDINGS_P95:
            slow.append(name)
    assert not slow, f"p95 over {EMBEDDINGS_P95 * 1000:.0f} ms: {', '.join(slow)}"


def _embeddings(gateway: Gateway, model: str) -> list[float]:
    """Return how long each of a round's requests took, after a few that warm up."""
    times = []
    for number in range(SAMPLES + 3):
        begun = time.perf_counter()
        answer = gateway.http.post(
            "/v1/embeddings", json={"model": model, "input": "The river is high this morning."}
        )
        assert answer.status_code == 200, answer.text
        if number >= 3:
            times.append(time.perf_counter() - begun)
    return times


@line("speed.first-token", "The first token of a stream comes within 5 s")
def test_first_token(gateway: Gateway, evidence: Evidence) -> None:
    gateway.model(CHAT)
    slow = []
    for name in gateway.capable[CHAT]:
        times = [_first_token(gateway, name) for _ in range(STREAMS)]
        evidence(name, f"median {statistics.median(times):.3f} s, worst {max(times):.3f} s")
        if max(times) >= FIRST_TOKEN:
            slow.append(name)
    assert not slow, f"over {FIRST_TOKEN:.0f} s: {', '.join(slow)}"


def _first_token(gateway: Gateway, model: str) -> float:
    body: Any = {"model": model, "messages": QUESTION, "max_tokens": 4, "stream": True}
    begun = time.perf_counter()
    with gateway.openai.chat.completions.create(**body) as stream:
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                return time.perf_counter() - begun
    raise AssertionError(f"{model}: a stream without content")


@line("speed.overhead", "The gateway adds less than 20 ms to what its backend takes")
def test_overhead(deployment: Session, gateway: Gateway, evidence: Evidence) -> None:
    plan = _pairs(deployment, gateway)
    pod = deployment.cluster.ready(GATEWAY)[0]["metadata"]
    added: dict[str, float] = {}
    for number in range(1, ROUNDS + 1):
        found = deployment.cluster.python(
            pod["namespace"],
            pod["name"],
            PODS / "overhead.py",
            json.dumps(plan),
            container="gateway",
            seconds=180,
        )
        direct, through = found["direct"], found["through"]
        added = {
            "median": statistics.median(through) - statistics.median(direct),
            "p95": p95(through) - p95(direct),
        }
        evidence(
            f"round {number}",
            ", ".join(
                f"{name} {take(direct) * 1000:.1f} ms direct, {take(through) * 1000:.1f} ms through"
                for name, take in (("median", statistics.median), ("p95", p95))
            ),
        )
        if max(added.values()) < OVERHEAD:
            break
    evidence("added", ", ".join(f"{name} {one * 1000:.1f} ms" for name, one in added.items()))
    assert max(added.values()) < OVERHEAD, f"over {OVERHEAD * 1000:.0f} ms: {added}"


def _pairs(deployment: Session, gateway: Gateway) -> dict[str, Any]:
    """Return what is asked from the gateway's own pod, by whom policies let its backends be called.

    Raises:
        NotSupported: No backend takes OpenAI's embeddings.
    """
    config = deployment.release.config
    for name in gateway.capable[EMBEDDINGS]:
        first = min(config["models"][name]["targets"], key=lambda one: int(one.get("order", 1)))
        address = urlsplit(config["backends"][first["backend"]]["url"])
        ask: dict[str, Any] = {
            "path": "/v1/embeddings",
            "headers": {"content-type": "application/json"},
            "body": {"model": name, "input": "The river is high this morning."},
        }
        key = {"authorization": f"Bearer {gateway.key}"} if gateway.key else {}
        return {
            "rounds": PAIRS,
            "direct": {
                **ask,
                "url": address.netloc,
                "path": f"{address.path.rstrip('/')}/v1/embeddings",
                "body": {**ask["body"], "model": first.get("model", name)},
            },
            "through": {**ask, "url": "127.0.0.1:8000", "headers": {**ask["headers"], **key}},
        }
    raise NotSupported("no model does embeddings")
