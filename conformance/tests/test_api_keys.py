"""Who may call: keys, and what each may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from conformance.suite.gateway import CHAT, chat_body, error_of
from conformance.suite.lines import NotSupported, line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.suite.gateway import Gateway
    from conformance.suite.lines import Evidence

CHATS = "/v1/chat/completions"


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
