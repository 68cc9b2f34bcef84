"""What a newcomer reads when an install goes wrong, and what is done twice only when it must."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("install", ROOT / "hack" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def install() -> Any:
    return _load()


def why(install: Any, text: str, package: str = "av 18.1.0") -> str:
    return str(install.why_no_install(text, package, Path("/v/install.log")))


NO_NETWORK = """\
WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'
ERROR: No matching distribution found for av==18.1.0
"""


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: OSError: [Errno 28] No space left on device", "the disk is full"),
        (NO_NETWORK, "the package index does not answer"),
        ("ReadTimeoutError: Read timed out.", "the package index does not answer"),
        (
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.",
            "is not the file that the lock names",
        ),
        (
            "ERROR: No matching distribution found for av==18.1.0",
            "there is no ready-made file of av 18.1.0 for Python",
        ),
        ("ERROR: something new", "ERROR: something new"),
    ],
)
def test_each_way_to_fail_has_a_sentence(install: Any, output: str, sentence: str) -> None:
    text = why(install, output)
    assert sentence in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (
            "The virtual environment was not created: ensurepip is not available.",
            "apt install python3.11-venv",
        ),
        ("/usr/bin/python3: No module named venv", "apt install python3.11-venv"),
        ("Error: [Errno 28] No space left on device", "the disk is full"),
        ("Error: [Errno 13] Permission denied: '/x'", "Permission denied: '/x'"),
    ],
)
def test_each_way_to_have_no_environment_has_a_sentence(
    install: Any, monkeypatch: pytest.MonkeyPatch, output: str, sentence: str
) -> None:
    monkeypatch.setattr(install, "version_of", lambda _: (3, 11))
    assert sentence in str(install.why_no_venv(output, "python3", Path("/v")))


def test_an_unsupported_python_is_named_with_what_is_needed(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHON", raising=False)
    monkeypatch.setattr(install, "version_of", {sys.executable: (3, 9)}.get)
    with pytest.raises(install.Problem, match=r"Python 3\.11, 3\.12 or 3\.13 is needed .* is 3\.9"):
        install.find_python()


def test_a_python_that_was_named_is_the_only_one_tried(
    install: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON", "/no/such/python")
    with pytest.raises(install.Problem, match="none was found"):
        install.find_python()


def test_a_disk_with_too_little_room_is_refused_before_anything_is_fetched(
    install: Any, tmp_path: Path
) -> None:
    install.NEEDS_MB["test"] = 10**9
    with pytest.raises(install.Problem, match=r"MB free and the install needs 1000000000 MB"):
        install.check_disk(tmp_path, "test")


def test_a_disk_that_fills_up_anywhere_is_the_same_sentence(
    install: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(install, "install", full)
    assert install.main(["gateway"]) == 1
    assert "the disk is full" in capsys.readouterr().err


def test_progress_counts_what_is_for_this_machine(
    install: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = install.Shown(3, install.Steps(1))
    for line in (
        "Ignoring colorama: markers 'sys_platform == \"win32\"' don't match your environment",
        "Collecting av==18.1.0 (from -r locks/embedded.txt (line 24))",
        "  Downloading av-18.1.0-cp311-abi3-linux_x86_64.whl (35.8 MB)",
        "Collecting anyio==4.16.0 (from -r locks/embedded.txt (line 9))",
        "  Using cached anyio-4.16.0-py3-none-any.whl (134 kB)",
        "Installing collected packages: av, anyio",
    ):
        shown.line(line)
    lines = [line.split("s  ", 1)[1].strip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "1 of 2  av 18.1.0  35.8 MB",
        "2 of 2  anyio 4.16.0  134 kB from the cache",
        "unpacking 2 packages",
    ]


def test_what_is_installed_already_is_not_installed_again(
    install: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    stamp = {"embedded": install.digest("embedded")}
    (tmp_path / ".installed.json").write_text(json.dumps(stamp))
    monkeypatch.setenv("VENV", str(tmp_path))
    assert install.main(["embedded"]) == 0
    assert capsys.readouterr().out == ""


def test_a_changed_lock_is_installed(
    install: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".installed.json").write_text(json.dumps({"embedded": "of an older lock"}))
    monkeypatch.setenv("VENV", str(tmp_path))
    monkeypatch.setenv("PYTHON", "/no/such/python")
    assert install.main(["embedded"]) == 1


def test_the_installer_is_written_for_a_python_that_is_too_old() -> None:
    text = (ROOT / "hack" / "install.py").read_text()
    newer = r"from __future__|:=|\bmatch \w+:|-> [a-z]+\[|: [a-z]+\[| \| None[:,)=]"
    unquoted = [
        line for line in text.splitlines() if re.search(newer, re.sub(r'"[^"]*"', "", line))
    ]
    assert unquoted == []


@pytest.mark.parametrize("name", ["gateway", "embedded", "test"])
def test_a_lock_pins_every_package_by_hash_and_names_no_host_and_no_path(name: str) -> None:
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    entries = re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"(?m)^#.*\n", "", text).strip())
    for entry in entries:
        assert re.match(r"[A-Za-z0-9._-]+==[^ ]+", entry), entry
        assert "--hash=sha256:" in entry, entry
    assert not re.search(r"://|--index-url|--find-links| @ ", text)


def test_each_lock_agrees_with_the_larger_ones() -> None:
    pins = [
        set(
            re.findall(
                r"(?m)^([A-Za-z0-9._-]+==[^ \\]+)", (ROOT / "locks" / f"{name}.txt").read_text()
            )
        )
        for name in ("gateway", "embedded", "test")
    ]
    assert pins[0] < pins[1] < pins[2]


def test_what_would_pull_in_torch_is_in_no_lock() -> None:
    text = (ROOT / "locks" / "test.txt").read_text()
    assert not re.search(r"(?m)^(torch|llama-cpp-python|sentence-transformers)==", text)
