"""What the deployment says that it has, and whether that is there."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from conformance.suite.lines import line
from conformance.suite.timeouts import PROBED, eventually

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session


@line("deployment.claims", "It has models, and says what they can do")
def test_it_claims_something(deployment: Session, gateway: Gateway, evidence: Evidence) -> None:
    for kind, names in gateway.capable.items():
        evidence(kind, ", ".join(names) or "none")
    if deployment.options.allow_empty:
        return
    assert gateway.models, "GET /v1/models is empty: nothing can be shown (--allow-empty passes)"
    assert any(gateway.capable.values()), "no model answers; see the backends in GET /health"


@line("deployment.healthy", "Every backend that is configured answers")
def test_every_backend_answers(gateway: Gateway, evidence: Evidence) -> None:
    def settled() -> dict[str, Any] | None:
        now: dict[str, Any] = gateway.get("/health")
        return now if now["status"] == "healthy" else None

    with suppress(AssertionError):  # one probe may have met a busy moment
        eventually("every backend answers", settled, PROBED)
    health = gateway.get("/health")
    for name, backend in health["backends"].items():
        evidence(name, f"{backend['type']}, {backend['status']}")
    ill = {
        name: entry["detail"]
        for name, entry in health["backends"].items()
        if entry["status"] == "unhealthy"
    }
    assert not ill, f"unhealthy: {ill}"
    assert health["status"] == "healthy"


@line("deployment.probes", "It answers /livez and /readyz, for Kubernetes")
def test_the_probes_answer(gateway: Gateway) -> None:
    assert gateway.http.get("/livez").status_code == 200
    assert gateway.http.get("/readyz").status_code == 200


@line("deployment.metrics", "It gives its metrics to Prometheus")
def test_metrics_are_there(gateway: Gateway, evidence: Evidence) -> None:
    metrics = gateway.metrics()
    assert metrics.value("synapse_build_info") == 1
    assert metrics.value("synapse_requests_total") > 0
    evidence("requests since its start", round(metrics.value("synapse_requests_total")))


@line("deployment.openapi", "Every path of /openapi.json is served, by its method alone")
def test_the_description_is_true(gateway: Gateway, evidence: Evidence) -> None:
    document = gateway.get("/openapi.json")
    assert document["openapi"].startswith("3."), document["openapi"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["responses"], f"{method} {path} names no answer"
            _is_served(gateway, path, method)
    evidence("paths", len(document["paths"]))


def _is_served(gateway: Gateway, path: str, method: str) -> None:
    concrete = path.replace("{model}", "no-such-model")
    body: Any = {} if method in ("post", "put") else None
    answer = gateway.http.request(method, concrete, json=body)
    assert answer.status_code != 405, f"{method} {path} is described, but answers 405"
    # 501: the gateway has it, and this deployment has no server for it
    assert answer.status_code < 500 or answer.status_code == 501, (
        f"{method} {path} without a body answers {answer.status_code}"
    )
    if answer.status_code == 404 and not path.startswith("/api/"):
        code = answer.json()["error"]["code"]
        assert code != "not_found", f"{method} {path} is described, but is not there"
    if path in ("/livez", "/readyz", "/health", "/metrics"):
        assert gateway.http.request("DELETE", path).status_code == 405


@line("deployment.docs", "GET /docs shows the API to people")
def test_the_docs_page(gateway: Gateway) -> None:
    answer = gateway.http.get("/docs")
    assert answer.status_code == 200
    assert "text/html" in answer.headers["content-type"]
    assert "/v1/chat/completions" in answer.text


@pytest.fixture(autouse=True)
def _nothing_else(gateway: Gateway) -> None:
    """Every line of this module needs the gateway."""
