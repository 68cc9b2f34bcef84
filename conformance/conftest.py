"""`pytest conformance`: the options, the plugin, and the fixtures of every test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.suite import options
from conformance.suite.lines import Evidence
from conformance.suite.plugin import EVIDENCE, EXCHANGES, Recorder
from conformance.suite.session import Session

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway

HERE = Path(__file__).parent
SESSION = pytest.StashKey[Session]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "line(id, title): the line of the report that it belongs to")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keep the suite and its own tests apart: they have nothing to do with each other's target."""
    asked = [Path(config.rootpath, argument.partition("::")[0]) for argument in config.args]
    meta = collection_path.is_relative_to(HERE / "meta_tests")
    live = collection_path.is_relative_to(HERE / "tests")
    if meta and not any(path.is_relative_to(HERE / "meta_tests") for path in asked):
        return True
    if live and not any(path.is_relative_to(HERE) for path in asked):
        return True
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Find the deployment before its tests are made from what it has."""
    config = session.config
    live = [
        a for a in config.args if Path(config.rootpath, a.partition("::")[0]).is_relative_to(HERE)
    ]
    if any("meta_tests" in argument for argument in live) or not live:
        return
    # A warning of a client library says nothing about the deployment.
    config.addinivalue_line("filterwarnings", "default")
    chosen = options.read(config)
    config.stash[SESSION] = Session(chosen)
    config.stash[SESSION].check()
    config.pluginmanager.register(Recorder(chosen, config.stash[SESSION]), "conformance")


def pytest_unconfigure(config: pytest.Config) -> None:
    if SESSION in config.stash:
        config.stash[SESSION].close()


@pytest.fixture(scope="session")
def deployment(request: pytest.FixtureRequest) -> Session:
    return request.config.stash[SESSION]


@pytest.fixture
def evidence(request: pytest.FixtureRequest) -> Evidence:
    """What the test saw, for its line."""
    found = request.node.stash[EVIDENCE] = Evidence()
    return found


@pytest.fixture
def gateway(deployment: Session, request: pytest.FixtureRequest) -> Gateway:
    """The gateway; what is asked of it is kept for the report of a failure."""
    found = deployment.gateway
    found.forget()
    request.node.stash[EXCHANGES] = found.exchanges
    return found
