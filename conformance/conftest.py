"""`pytest conformance`: the options, the plugin, and the fixtures of every test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from conformance.suite import options
from conformance.suite.lines import Evidence
from conformance.suite.plugin import EVIDENCE, EXCHANGES, Recorder
from conformance.suite.session import SESSION, Session

if TYPE_CHECKING:
    from conformance.suite.gateway import Gateway

HERE = Path(__file__).resolve().parent
META = HERE / "meta_tests"


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "line(id, title): the line of the report that it belongs to")


def _asked(config: pytest.Config) -> list[Path]:
    """Return the files and folders that the run was asked for."""
    here = config.invocation_params.dir
    return [Path(here, argument.partition("::")[0]).resolve() for argument in config.args]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Keep the suite and its own tests apart: they have nothing to do with each other's target."""
    meta = any(path.is_relative_to(META) for path in _asked(config))
    if collection_path.is_relative_to(META):
        return None if meta else True
    if collection_path.is_relative_to(HERE / "tests"):
        return True if meta else None
    return None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Find the deployment before its tests are made from what it has."""
    config = session.config
    asked = [path for path in _asked(config) if path.is_relative_to(HERE)]
    if not asked or any(path.is_relative_to(META) for path in asked):
        return
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
