"""One set of real servers for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import openai
import pytest

from synapse_gateway.up.plan import EMBEDDED, missing_packages
from tests.real.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if missing := missing_packages(EMBEDDED):
        pytest.skip(f"the packages {', '.join(missing)} are missing; `make up` installs them")
    stack = Stack(tmp_path_factory.mktemp("stack"))
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


@pytest.fixture(scope="session")
def http(stack: Stack) -> Iterator[httpx.Client]:
    """Plain HTTP with the key that may do everything."""
    headers = {"authorization": "Bearer sk-full"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    """The official client, as an application makes it, but without its own retries."""
    with openai.OpenAI(base_url=f"{stack.url}/v1", api_key="sk-full", max_retries=0) as client:
        yield client
