"""A right gateway, and the suite to run against it."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import partial
from typing import TYPE_CHECKING

import httpx
import pytest
from conformance.meta_tests import fakes
from conformance.meta_tests.runs import KEY, Outcome, run
from hack.scrapes.programs import free_port, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def right(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a gateway that is right."""
    with fakes.engine() as engine:
        targets = {
            name: {"service": service, "targets": [{"backend": "engine", "model": name}]}
            for name, service in (("chat", "llm"), ("vectors", "embeddings"))
        }
        settings = {
            "backends": {"engine": {"url": engine, "type": "openai-compatible"}},
            "models": targets,
            "auto": {"default": "chat"},
            "keys": {"meta": {"sha256": hashlib.sha256(KEY.encode()).hexdigest()}},
        }
        config = tmp_path_factory.mktemp("right") / "synapse.yaml"
        config.write_text(json.dumps(settings), encoding="utf-8")
        port = free_port()
        command = [sys.executable, "-P", "-m", "synapse_gateway", "serve"]
        command += ["--config", str(config), "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        with running(command, lambda: _is_ready(url)):
            yield url


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Outcome]:
    """Runs the suite with some arguments."""
    return partial(run, tmp_path / "report")
