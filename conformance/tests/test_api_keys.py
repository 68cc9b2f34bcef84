"""Who may call: keys, and what each may do."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from conformance.suite.gateway import CHAT, EMBEDDINGS, chat_body, error_of
from conformance.suite.lines import NotSupported, line
from conformance.suite.timeouts import CONFIG_TAKEN, REQUEST, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence
    from conformance.suite.session import Session

CHATS = "/v1/chat/completions"
ASKED = 12
"""How often a key is tried, to have met every replica."""


@pytest.fixture
def anybody(gateway: Gateway) -> Iterator[Gateway]:
    """A caller without a key.

    Raises:
        NotSupported: The deployment serves such callers.
    """
    nobody = gateway.as_caller("")
    if nobody.http.get("/v1/models").status_code == 200:
        raise NotSupported("the deployment serves callers without a key (auth: anonymous)")
    yield nobody
    nobody.close()


@line("api.keys.required", "Without a key nothing but health and metrics is told")
def test_no_key(gateway: Gateway, anybody: Gateway) -> None:
    paths = [
        (path, method)
        for path, operations in gateway.paths.items()
        for method in operations
        if path.startswith(("/v1/", "/api/")) and path != "/api/version"
    ]
    for path, method in paths:
        body: Any = {} if method == "post" else None
        answer = anybody.http.request(method, path.replace("{model}", "a"), json=body)
        assert answer.status_code == 401, f"{method} {path} answers {answer.status_code}"
        assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/livez", "/readyz", "/health", "/metrics"):
        assert anybody.http.get(path).status_code == 200


@line("api.keys.wrong", "A wrong key is a 401 that does not repeat it")
def test_a_wrong_key(gateway: Gateway, anybody: Gateway) -> None:
    del anybody
    key = "sk-conformance-nobody"
    stranger = gateway.as_caller(key)
    with pytest.raises(openai.AuthenticationError) as caught:
        stranger.openai.chat.completions.create(**chat_body("any"))
    stranger.close()
    assert caught.value.code == "invalid_api_key"
    assert key not in caught.value.message


@line("api.keys.headers", "A key is taken from either header")
def test_either_header(gateway: Gateway, anybody: Gateway) -> None:
    model = gateway.model(CHAT)
    for headers in ({"x-api-key": gateway.key}, {"authorization": f"bearer {gateway.key}"}):
        answer = anybody.http.post(CHATS, json=chat_body(model, max_tokens=1), headers=headers)
        assert answer.status_code == 200, f"{next(iter(headers))}: {answer.text}"


@line("api.keys.anonymous", "Where callers without a key are served, any key is as good as none")
def test_anonymous(gateway: Gateway, evidence: Evidence) -> None:
    with httpx.Client(base_url=gateway.url, timeout=60, trust_env=False) as nobody:
        answer = nobody.get("/v1/models")
        if answer.status_code == 401:
            error_of(answer)
            raise NotSupported("the deployment wants keys")
        assert answer.status_code == 200
        some = {"authorization": "Bearer not-needed"}
        assert nobody.get("/v1/models", headers=some).status_code == 200
    evidence("keys", "not wanted")


@pytest.fixture
def limits(deployment: Session) -> dict[str, dict[str, Any]]:
    """What the configuration keeps callers to, by caller.

    Raises:
        NotSupported: It keeps nobody to anything.
    """
    found = {
        name: allowed
        for name, allowed in deployment.release.config.get("keys", {}).items()
        if name in deployment.release.secrets
    }
    if not found:
        raise NotSupported("the configuration has no keys")
    return found


def limited(
    deployment: Session, limits: dict[str, dict[str, Any]], limit: str
) -> tuple[str, Any, str]:
    """Return a caller with a limit, the limit, and the caller's key.

    Raises:
        NotSupported: There is none.
        AssertionError: The gateway does not take its key.
    """
    name = next((name for name, allowed in limits.items() if limit in allowed), "")
    if not name:
        raise NotSupported(f"no caller of the configuration has {limit}")
    key = deployment.release.secrets[name]
    eventually(  # a Secret that has changed reaches the pods within a minute or so
        f"every replica takes the key of {name}",
        lambda: all(_taken(deployment.gateway.url, key) for _ in range(ASKED)),
        CONFIG_TAKEN,
        every=2.0,
    )
    return name, limits[name][limit], key


def _taken(url: str, key: str) -> bool:
    """Whether a replica knows a key; each call may reach another one."""
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.get(f"{url}/v1/models", headers=headers, trust_env=False, timeout=REQUEST)
    return answer.status_code != 401


@line("api.limits.models", "A key for some models sees and uses those alone")
def test_a_key_for_some_models(
    deployment: Session, limits: dict[str, dict[str, Any]], gateway: Gateway, evidence: Evidence
) -> None:
    name, models, key = limited(deployment, limits, "models")
    caller = gateway.as_caller(key)
    listed = {one["id"] for one in caller.models}
    evidence(f"{name} sees", ", ".join(sorted(listed)))
    others = [one["id"] for one in gateway.models if one["id"] not in listed]
    assert listed <= set(models), f"{name} sees {sorted(listed - set(models))}"
    assert others, "there is no other model"
    for path, body in ((CHATS, chat_body(others[0])), ("/v1/embeddings", {"input": "a"})):
        answer = caller.http.post(path, json={**body, "model": others[0]})
        assert answer.status_code in (403, 404), f"{others[0]}: {answer.status_code}"
        error_of(answer)
    caller.close()


@line("api.limits.rate", "Over its requests a minute a caller gets 429, and when to come back")
def test_a_rate(
    deployment: Session, limits: dict[str, dict[str, Any]], gateway: Gateway, evidence: Evidence
) -> None:
    name, most, key = limited(deployment, limits, "requests_per_minute")
    caller = gateway.as_caller(key)
    model = gateway.model(EMBEDDINGS)
    count, answer = 0, None
    while count <= 2 * most:  # a minute may end between two of them
        answer = caller.http.post("/v1/embeddings", json={"model": model, "input": "a"})
        if answer.status_code == 429:
            break
        assert answer.status_code == 200, answer.text
        count += 1
    caller.close()
    evidence(f"{name} may ask {most} times a minute", f"answered {count}, then refused")
    assert answer is not None
    assert answer.status_code == 429, f"{count} requests were answered"
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert error_of(answer)["code"] == "rate_limit_exceeded"


@line("api.limits.concurrency", "A caller with too much under way gets 429")
def test_concurrency(
    deployment: Session, limits: dict[str, dict[str, Any]], gateway: Gateway, evidence: Evidence
) -> None:
    name, most, key = limited(deployment, limits, "concurrency")
    caller = gateway.as_caller(key)
    long = [{"role": "user", "content": "Count to one hundred."}]
    body = chat_body(gateway.model(CHAT), messages=long, max_tokens=200, stream=True)
    with ExitStack() as stack:
        for _ in range(most):
            answer = stack.enter_context(caller.http.stream("POST", CHATS, json=body))
            assert answer.status_code == 200
        refused = caller.http.post(CHATS, json=body)
    caller.close()
    evidence(f"{name} may have {most} under way", f"the next: {refused.status_code}")
    assert refused.status_code == 429, refused.text
    error_of(refused)
