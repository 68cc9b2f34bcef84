"""One set of real servers for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
