from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, Protocol

import pytest

from synapse_gateway.config import load
from synapse_gateway.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from synapse_gateway.config import Loaded


class Reader(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> Loaded: ...


class Refusals(Protocol):
    def __call__(self, text: str, environ: Mapping[str, str] | None = None) -> list[str]: ...


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    """Loads a text as a file."""

    def read(text: str, environ: Mapping[str, str] | None = None) -> Loaded:
        path = tmp_path / "backends.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load(path, environ or {})

    return read


@pytest.fixture
def refusals(read: Reader, tmp_path: Path) -> Refusals:
    """Loads a text that must be refused, and returns the reasons without the file's directory."""

    def refusals(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
        with pytest.raises(ConfigError) as refused:
            read(text, environ)
        return str(refused.value).replace(f"{tmp_path}/", "").splitlines()

    return refusals
