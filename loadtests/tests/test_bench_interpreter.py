import sys
from pathlib import Path

import pytest
from loadtests.bench import interpreter


def test_the_version_is_what_an_interpreter_says_and_nothing_where_there_is_none() -> None:
    assert interpreter.version_of(sys.executable) == sys.version_info[:3]
    assert interpreter.version_of("/nowhere/python3") == ()


@pytest.mark.parametrize("version", ["3.10.12", "3.14.0"])
def test_a_distribution_whose_python_will_not_do_leaves_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    python = tmp_path / "python3"
    python.write_text(
        f"#!/bin/sh\ncase $3 in *ensurepip*) echo True ;; *) echo {version} ;; esac\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(interpreter, "DISTRIBUTION", str(python))
    assert interpreter.for_gateway(lambda _: None) == interpreter.own()


def test_without_a_python_of_the_distribution_this_one_is_measured_and_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interpreter, "can_apt_install", lambda: False)
    monkeypatch.setattr(interpreter, "DISTRIBUTION", "/nowhere/python3")
    found = interpreter.for_gateway(lambda _: None)
    assert found.path == sys.executable
    assert "virtual environment" in found.name
